"""`plane-webhook operate` as its own service account, and what a kubelet does for `serve`: the Secret becomes files."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from lab.pods import INJECT, api_pod, create, injected
from lab.process import Process, Startable, free_port, wait_for
from lab.webhook import COMMAND, Webhook

if TYPE_CHECKING:
    from lab.controlplane import ControlPlane

OWN = "plane-webhook"
ACCOUNT = "plane-webhook-operate"
SECRET = "plane-webhook-tls"
REPLICA = "replica.lab.test"
HEAL = {**INJECT, "plane-webhook/heal": "enabled"}

MANIFESTS = Path(__file__).parents[1] / "manifests/operate"
APPLY = ("apply", "--server-side", "--validate=strict", "-k", MANIFESTS)


class Operate(Startable):
    """One process of it; `impatient` shortens what it waits for, as this module's program does.

    `writes`: it kills itself when it has made so many, its Lease's not counted; `ahead`: seconds that its clock is;
    `through`: the port of a proxy in front of the API server.
    """

    def __init__(
        self,
        plane: ControlPlane,
        *words: str | Path,
        impatient: bool = True,
        writes: int = 0,
        ahead: float = 0.0,
        through: int | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="plane-webhook-operate-"))
        self._plane = plane
        self._words = words
        self._through = through
        self._environment = {"OPERATE_WRITES": str(writes), "OPERATE_AHEAD": str(ahead)}
        self._program = [sys.executable, "-m", "lab.operating"] if impatient else [COMMAND]
        self.runs = 0

    def start(self) -> None:
        """Start it with the rights of its account and nothing else."""
        self.runs += 1
        self.metrics_port = free_port()
        kubeconfig = account_kubeconfig(self._plane, ACCOUNT, self.folder / "kubeconfig")
        if self._through is not None:
            direct = kubeconfig.read_text()
            kubeconfig.write_text(direct.replace(self._plane.url, f"https://127.0.0.1:{self._through}"))
        own = ["--namespace", OWN, "--kubeconfig", kubeconfig, "--host", "127.0.0.1"]
        argv = [*self._program, "operate", *own, "--metrics-port", str(self.metrics_port)]
        log = self.folder / f"operate-{self.runs}.log"
        self.process = Process([*argv, *self._words], log=log, env={**os.environ, **self._environment})
        wait_for(lambda: self.said("operating"), 30, "operate runs", need=[self.process])

    def close(self) -> None:
        if self.runs:
            self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def terminate(self) -> int:
        """End it as a kubelet does."""
        self.process.signal(signal.SIGTERM)
        return self.process.wait(15)

    def said(self, text: str) -> list[str]:
        """The messages of its present run with this text."""
        lines = [json.loads(line) for line in self.process.log.read_text().splitlines() if line.startswith("{")]
        return [each["message"] for each in lines if text in each["message"]]


class Kubelet(Startable):
    """Brings the Secret to a folder, within a second of its change.

    A real one takes up to a minute for that (10 s on lab/node, which is told so), and can't run in CI: the tests of
    renewals replace the Secret many times, on a control plane alone. tests/e2e/node/test_own.py has a real one.
    """

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self._plane, self._folder = plane, folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(0.5):
            with suppress(httpx.TransportError):  # the API server may be away
                for name, content in secret(self._plane).items():
                    (self._folder / name).write_bytes(content)


def secret(plane: ControlPlane) -> dict[str, bytes]:
    """The webhook's Secret; nothing where there is none."""
    found = plane.api.get(f"/api/v1/namespaces/{OWN}/secrets/{SECRET}").json().get("data") or {}
    return {name: base64.b64decode(content) for name, content in found.items()}


def bundle(plane: ControlPlane) -> bytes:
    """The registration's caBundle; nothing where it has none."""
    found = plane.api.get(f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{OWN}").json()
    return base64.b64decode(found["webhooks"][0]["clientConfig"].get("caBundle", ""))


def metrics(operate: Operate) -> str:
    """What Prometheus would be told."""
    return httpx.get(f"http://127.0.0.1:{operate.metrics_port}/metrics", trust_env=False).text


def gauge(operate: Operate, namespace: str, state: str) -> float:
    """How many pods of a namespace stand like this; -1 where it has not looked yet."""
    name = f'plane_webhook_operate_pods{{plane_namespace="{namespace}",state="{state}"}} '
    found = [line for line in metrics(operate).splitlines() if line.startswith(name)]
    return float(found[0].removeprefix(name)) if found else -1


def account_kubeconfig(plane: ControlPlane, account: str, path: Path) -> Path:
    """Write a kubeconfig of a service account in the webhook's namespace."""
    config: dict[str, Any] = json.loads(plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": plane.kubectl("-n", OWN, "create", "token", account).strip()}
    path.write_text(json.dumps(config))
    return path


def as_account(plane: ControlPlane, account: str) -> httpx.Client:
    """A client with the rights of a service account of the webhook's namespace."""
    token = plane.kubectl("-n", OWN, "create", "token", account).strip()
    config = json.loads(plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    return httpx.Client(
        base_url=plane.url,
        verify=ssl.create_default_context(cafile=config["certificate-authority"]),
        trust_env=False,
        headers={"authorization": f"Bearer {token}"},
    )


def deployment(namespace: str, replicas: int = 2, kind: str = "Deployment") -> dict[str, Any]:
    """Plane's API as its chart has it, as far as it matters here; or a StatefulSet or DaemonSet of it."""
    spec = {"selector": {"matchLabels": {"a": "b"}}}
    spec["template"] = {"metadata": {"labels": {"a": "b"}}, "spec": api_pod()["spec"]}
    own = {"DaemonSet": {}, "StatefulSet": {"replicas": replicas, "serviceName": "none"}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "plane-app-api-wl", "namespace": namespace},
        "spec": {**spec, **own.get(kind, {"replicas": replicas})},
    }


def bind(plane: ControlPlane, namespace: str, what: str = "heal") -> None:
    """Grant healing in a namespace, or reading `logs`, as docs/reference/operate.md says."""
    role = f"plane-webhook-{what}"
    made = ("create", "rolebinding", role, f"--clusterrole={role}", f"--serviceaccount={OWN}:{ACCOUNT}")
    plane.kubectl("-n", namespace, *made)


@contextmanager
def kubelet(plane: ControlPlane, *namespaces: str) -> Iterator[list[int]]:
    """Say that pods run as soon as they are there; of each look, how many of a namespace's were ready before."""
    ended = threading.Event()
    counts: list[int] = []

    def work() -> None:
        while not ended.wait(0.2):
            for namespace in namespaces:
                counts.append(sum(map(_ready, plane.pods(namespace))))
                plane.settle(namespace)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield counts
    finally:
        ended.set()
        thread.join()


def healed(plane: ControlPlane, namespace: str, replicas: int) -> bool:
    """Whether there are as many pods as there should be, and each is injected."""
    pods = plane.pods(namespace)
    return len(pods) == replicas and all(map(injected, pods))


def released(plane: ControlPlane, namespace: str, replicas: int = 1, kind: str = "Deployment") -> str:
    """A release in a namespace that nobody has opted in, whose pods run."""
    plane.namespace(namespace)
    wait_for(lambda: create(plane, namespace, api_pod(), dry_run=True).is_success, 15, "pods can be made")
    plane.apply(deployment(namespace, replicas, kind))
    with kubelet(plane, namespace):  # a StatefulSet's next one comes when the one before is ready
        wait_for(lambda: sum(map(_ready, plane.pods(namespace))) == replicas, 20, "its pods")
    return namespace


def _ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@pytest.fixture(scope="module")
def installed(controlplane: ControlPlane) -> Iterator[ControlPlane]:
    controlplane.kubectl(*APPLY)
    wait_for(lambda: create(controlplane, OWN, bare(), dry_run=True).is_success, 30, "pods can be made")
    yield controlplane
    controlplane.kubectl("delete", "-k", MANIFESTS, "--wait=false", "--ignore-not-found")
    gone = ("get", "namespace", OWN, "--ignore-not-found", "-o", "name")
    wait_for(lambda: not controlplane.kubectl(*gone), 60, "the namespace is gone")


@pytest.fixture(scope="module")
def operate(installed: ControlPlane) -> Iterator[Operate]:
    with Operate(installed) as running:
        wait_for(lambda: secret(installed), 30, "a Secret", need=[running.process])
        yield running


@pytest.fixture(scope="module")
def serving(
    controlplane: ControlPlane, operate: Operate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Webhook]:
    """A webhook that gets its certificate from the Secret, and that the API server and `operate` reach."""
    folder = tmp_path_factory.mktemp("tls")
    with Kubelet(controlplane, folder):
        wait_for((folder / "tls.key").exists, 10, "the files", need=[operate.process])
        with Webhook(cert_dir=folder) as webhook:
            controlplane.local_service(OWN, OWN)
            controlplane.apply(endpoint(webhook))
            port = {"op": "replace", "path": "/webhooks/0/clientConfig/service/port", "value": webhook.port}
            controlplane.kubectl("patch", "mutatingwebhookconfiguration", OWN, "--type=json", "-p", json.dumps([port]))
            yield webhook


def endpoint(webhook: Webhook) -> dict[str, Any]:
    """The EndpointSlice by which `operate` finds a webhook on this machine."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": OWN, "namespace": OWN, "labels": {"kubernetes.io/service-name": OWN}},
        "addressType": "FQDN",  # loopback addresses are refused
        "endpoints": [{"addresses": [REPLICA], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": webhook.port}],
    }


def bare() -> dict[str, Any]:
    """A pod that Pod Security `restricted` takes."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    security["seccompProfile"] = {"type": "RuntimeDefault"}
    return {
        "metadata": {"name": "bare"},
        "spec": {"containers": [{"name": "x", "image": "x", "securityContext": security}]},
    }


def main() -> int:
    """`plane-webhook`, with minutes made seconds, and a name for this machine that an EndpointSlice takes."""
    from webhook.cli import main as command  # noqa: PLC0415
    from webhook.cluster import (  # noqa: PLC0415 - the lab is loaded without it
        api,
        certificates,
        evictions,
        healing,
        lease,
        operate,
    )

    resolve = socket.getaddrinfo
    socket.getaddrinfo = lambda host, *rest, **named: resolve("127.0.0.1" if host == REPLICA else host, *rest, **named)
    certificates.SETTLE = timedelta(seconds=1)
    certificates.QUIET = timedelta(seconds=3)
    operate.INTERVAL = 0.5
    operate.CENSUS = 1.0
    healing.PATIENCE = 2.0
    healing.PAUSES = (1.0, 2.0, 3.0)
    evictions.TRY_AGAIN = 3.0
    lease.DURATION, lease.HELD, lease.RENEW = 4.0, 3.0, 1.0
    operate.Operator = partial(operate.Operator, now=_now)
    request, left = api.Api.request, int(os.environ["OPERATE_WRITES"])

    def counted(self: Any, method: str, path: str, **given: Any) -> bytes:
        nonlocal left
        answer = request(self, method, path, **given)
        left -= method != "GET" and "/leases/" not in path and "dryRun" not in (given.get("query") or {})
        if left == 0 and method != "GET" and "/leases/" not in path:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    if left:
        api.Api.request = counted
    return command(sys.argv[1:])


def _now() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=float(os.environ["OPERATE_AHEAD"]))


if __name__ == "__main__":
    sys.exit(main())
