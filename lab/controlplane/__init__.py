"""A real Kubernetes control plane as plain processes on loopback: etcd, API server, controller manager.

There is no kubelet, scheduler or kube-proxy: pods are created, admitted and deleted for real, and stay
Pending until `settle` says otherwise. This module must never listen beyond loopback or leave anything behind.

    with ControlPlane() as plane:
        plane.helm("install", "plane-app", CHART, "--namespace", "plane", "--create-namespace")
        plane.wait_for(lambda: plane.pods("plane"), 30, "pods of the release")
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from lab.cache import LabError
from lab.controlplane import components
from lab.controlplane.programs import VERSIONS, binary
from lab.process import Process, Startable, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client.samples import Sample

__all__ = ["CHART", "ControlPlane"]

CHART = Path(__file__).parents[1] / "chart"

# Seconds. A start takes about 5; on a machine that compiles something meanwhile, several times that.
START_TIMEOUT = 60

_REJECTIONS = "apiserver_admission_webhook_rejection_count"
_FAILED_OPEN = "apiserver_admission_webhook_fail_open_count"


class ControlPlane(Startable):
    """A control plane of one Kubernetes version, with clients that may do anything.

    `url`, `kubeconfig`, `apiserver_log` and `api` (httpx, for what is cheap or raw) hold while it runs.
    """

    wait_for = staticmethod(wait_for)

    def __init__(
        self,
        *,
        kubernetes: str = VERSIONS["kubernetes"],
        controller_manager: bool = True,
        apiserver_args: Sequence[str] = (),
    ) -> None:
        """Take the version (all three numbers) and what else the API server is told. Starts nothing."""
        self.kubernetes = kubernetes
        self._wants_controllers = controller_manager
        self._apiserver_args = apiserver_args
        self._processes: list[Process] = []  # in the order in which they are stopped
        self._components: dict[str, tuple[Process, tuple[str, ...]]] = {}

    def close(self) -> None:
        """End everything and see it gone. Twice is the same as once."""
        while self._processes:
            self._processes[0].kill()  # asked politely, an API server takes a minute; nothing here is kept anyway
            del self._processes[0]
        if hasattr(self, "api"):
            self.api.close()
        shutil.rmtree(self._files, ignore_errors=True)

    def kubectl(self, *args: str | Path, input: str | None = None, check: bool = True) -> str:  # noqa: A002
        """Return what kubectl printed; with `check=False` its stderr too, whatever the exit code."""
        return self._client("kubectl", *args, stdin=input, check=check)

    def helm(
        self,
        *args: str | Path,
        input: str | None = None,  # noqa: A002
        check: bool = True,
        program: str = "helm",
    ) -> str:
        """Return what helm, or its other version `helm4`, printed; `check` as for kubectl."""
        return self._client(program, *args, stdin=input, check=check)

    def environment(self) -> dict[str, str]:
        """Return the variables by which a shell finds kubectl, helm and plane-webhook, and they this control plane."""
        folders = [binary("kubectl").parent, binary("helm").parent, Path(sys.executable).parent]
        own = {"KUBECONFIG": self.kubeconfig, "KUBECACHEDIR": self._files / "kubectl"}
        own |= {f"HELM_{kind}_HOME": self._files / "helm" / kind for kind in ("CACHE", "CONFIG", "DATA")}
        path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
        return os.environ | {variable: str(value) for variable, value in own.items()} | {"PATH": path}

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects server-side."""
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=listed)

    def namespace(self, name: str, labels: dict[str, str] | None = None) -> str:
        """Make a namespace, or give it just these labels, and its service account: pods can be made at once."""
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        for path, made in ((name, namespace), (f"{name}/serviceaccounts/default", account)):
            self.api.patch(  # what `apply` does, without starting a process
                f"/api/v1/namespaces/{path}",
                params={"fieldManager": "kubectl", "force": "true"},
                content=json.dumps(made),
                headers={"content-type": "application/apply-patch+yaml"},
            ).raise_for_status()
        return name

    def pods(self, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """Return the namespace's pods that are not being deleted, as the API server stores them."""
        found = self.api.get(f"/api/v1/namespaces/{namespace}/pods", params={"labelSelector": selector})
        found.raise_for_status()
        return [pod for pod in found.json()["items"] if "deletionTimestamp" not in pod["metadata"]]

    def settle(self, namespace: str, selector: str = "") -> None:
        """Say in a kubelet's place that each pod runs and is ready (a Job's: is done), so rollouts go on."""
        for pod in self.pods(namespace, selector):
            done = any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", []))
            ready = {"type": "Ready", "status": "False" if done else "True"}
            answer = self.api.patch(
                f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/status",
                json={"status": {"phase": "Succeeded" if done else "Running", "conditions": [ready]}},
                headers={"content-type": "application/strategic-merge-patch+json"},
            )
            if answer.status_code != httpx.codes.NOT_FOUND:  # a rollout may have deleted it meanwhile
                answer.raise_for_status()

    def local_service(self, namespace: str, name: str) -> str:
        """Make a Service that leads to this machine; return the name that its certificate must be for.

        A webhook's `clientConfig.service` may then name it with any `port`: the API server resolves an
        ExternalName Service by itself and needs no kube-proxy for it.
        """
        spec = {"type": "ExternalName", "externalName": "localhost"}
        metadata = {"name": name, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        return f"{name}.{namespace}.svc"

    def kill(self, component: str) -> None:
        """End etcd or another component at once, and see it gone."""
        self._components[component][0].kill()

    def restart(self, component: str) -> None:
        """Start a component again that was killed, with what was stored."""
        process, args = self._components[component]
        self._processes.remove(process)
        self._run(component, *args)

    def metrics(self, name: str) -> list[Sample]:
        """Return those samples of the API server's own metrics whose name begins with `name`."""
        lines = [line for line in self.api.get("/metrics").text.splitlines() if line.startswith(name)]
        families = text_string_to_metric_families("\n".join(lines))
        return [sample for family in families for sample in family.samples]

    @property
    def apiserver(self) -> Process:
        """Its process."""
        return self._components["kube-apiserver"][0]

    def counter(self, name: str, /, **labels: str) -> float:
        """Return the sum over the series of exactly this name with these labels; 0 if there is none yet."""
        series = (sample for sample in self.metrics(name) if sample.name == name)
        return sum(sample.value for sample in series if labels.items() <= sample.labels.items())

    def failed_calls(self, webhook: str) -> float:
        """Return how many calls of the webhook failed, as the API server counts, under Ignore and Fail.

        A refusal by the webhook itself (`allowed: false`) is an answer and not counted.
        """
        refusals = self.counter(_REJECTIONS, name=webhook, error_type="no_error")
        return self.counter(_FAILED_OPEN, name=webhook) + self.counter(_REJECTIONS, name=webhook) - refusals

    def start(self) -> None:
        """Start everything and return when it is ready. LabError with the end of a log when it isn't."""
        self._files = Path(tempfile.mkdtemp(prefix="plane-webhook-lab-"))
        components.write_certificates(self._files)
        port = free_port()
        self._connect(port)
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        need = [self._run("etcd", *components.etcd(self._files / "etcd", client, peer))]
        wait_for(lambda: _succeeds(f"{client}/health"), START_TIMEOUT, "etcd is healthy", need=need)
        self._start_apiserver(client, port, need=need)
        if self._wants_controllers:
            self._start_controllers(self.kubeconfig, need=need)

    def _connect(self, port: int) -> None:
        """Make the clients of an API server that is on this port of loopback, once the certificates are written."""
        self.url = f"https://127.0.0.1:{port}"
        self.kubeconfig = components.write_kubeconfig(self._files / "kubeconfig", self.url)
        self.api = self.client()

    def client(self) -> httpx.Client:
        """Return one more client like `api`: a pool of connections that a hundred threads share breaks some of them."""
        trust = ssl.create_default_context(cafile=str(self._files / "ca.crt"))
        trust.load_cert_chain(self._files / "admin.crt", self._files / "admin.key")
        return httpx.Client(base_url=self.url, verify=trust, trust_env=False, timeout=30)

    def _start_apiserver(self, etcd: str, port: int, *more: str, need: list[Process]) -> None:
        flags = components.apiserver(self._files, etcd, port)
        need.append(self._run("kube-apiserver", *flags, *more, *self._apiserver_args))
        self.apiserver_log = need[-1].log
        wait_for(lambda: _succeeds("/readyz", self.api), START_TIMEOUT, "the API server is ready", need=need)

    def _start_controllers(self, kubeconfig: Path, *more: str, need: list[Process]) -> None:
        need.append(
            self._run("kube-controller-manager", *components.controller_manager(self._files, kubeconfig), *more)
        )
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_for(lambda: _succeeds(account, self.api), START_TIMEOUT, "controllers work", need=need)

    def _run(self, name: str, *args: str) -> Process:
        version = self.kubernetes if name.startswith("kube-") else None
        process = Process([binary(name, version), *args], log=self._files / f"{name}.log", cwd=self._files)
        # An API server whose etcd is gone hangs and keeps its port: it is the first to be stopped.
        self._processes.insert(0 if name == "kube-apiserver" else len(self._processes), process)
        self._components[name] = process, args
        return process

    def _client(self, name: str, *args: str | Path, stdin: str | None, check: bool) -> str:
        """Run kubectl or helm, one version for every server: the lab has them handle stable kinds only."""
        done = subprocess.run(
            [binary(name), *args],
            input=stdin,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if not check:
            return done.stdout + done.stderr
        if done.returncode:
            words = " ".join(map(str, [name, *args]))
            raise LabError(f"`{words}` failed with exit code {done.returncode}:\n{done.stderr.strip()}")
        return done.stdout


def _succeeds(url: str, client: httpx.Client | None = None) -> bool:
    try:
        return (client.get(url) if client else httpx.get(url, trust_env=False)).is_success
    except httpx.TransportError:
        return False
