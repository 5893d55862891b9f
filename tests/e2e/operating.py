"""`plane-webhook operate` as its own service account, and what a kubelet does for `serve`: the Secret becomes files."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.process import Process, Startable, free_port, wait_for
from lab.webhook import COMMAND, Webhook
from tests.e2e.cluster import create

if TYPE_CHECKING:
    from lab.controlplane import ControlPlane

OWN = "plane-webhook"
ACCOUNT = "plane-webhook-operate"
SECRET = "plane-webhook-tls"
REPLICA = "replica.lab.test"

MANIFESTS = Path(__file__).parents[2] / "manifests/operate"
APPLY = ("apply", "--server-side", "--validate=strict", "-k", MANIFESTS)


class Operate(Startable):
    """One process of it; `impatient` shortens what it waits for, as this module's program does."""

    def __init__(self, plane: ControlPlane, *words: str, impatient: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="plane-webhook-operate-"))
        self._plane = plane
        self._words = words
        self._program = [sys.executable, "-m", "tests.e2e.operating"] if impatient else [COMMAND]
        self.runs = 0

    def start(self) -> None:
        """Start it with the rights of its account and nothing else."""
        self.runs += 1
        self.metrics_port = free_port()
        kubeconfig = account_kubeconfig(self._plane, ACCOUNT, self.folder / "kubeconfig")
        own = ["--namespace", OWN, "--kubeconfig", kubeconfig, "--host", "127.0.0.1"]
        argv = [*self._program, "operate", *own, "--metrics-port", str(self.metrics_port)]
        self.process = Process([*argv, *self._words], log=self.folder / f"operate-{self.runs}.log")
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
    """Brings the Secret to a folder, within a second of its change."""

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
            for name, content in secret(self._plane).items():
                (self._folder / name).write_bytes(content)


def secret(plane: ControlPlane) -> dict[str, bytes]:
    """The webhook's Secret; nothing where there is none."""
    found = plane.api.get(f"/api/v1/namespaces/{OWN}/secrets/{SECRET}").json().get("data") or {}
    return {name: base64.b64decode(content) for name, content in found.items()}


def account_kubeconfig(plane: ControlPlane, account: str, path: Path) -> Path:
    """Write a kubeconfig of a service account in the webhook's namespace."""
    config: dict[str, Any] = json.loads(plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": plane.kubectl("-n", OWN, "create", "token", account).strip()}
    path.write_text(json.dumps(config))
    return path


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
    from webhook.cluster import certificates, operate  # noqa: PLC0415 - the lab is loaded without it

    resolve = socket.getaddrinfo
    socket.getaddrinfo = lambda host, *rest, **named: resolve("127.0.0.1" if host == REPLICA else host, *rest, **named)
    certificates.SETTLE = timedelta(seconds=2)
    certificates.QUIET = timedelta(seconds=4)
    operate.INTERVAL = 1.0
    operate.CENSUS = 3.0
    return command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
