"""A running webhook and the clients that call it: real processes, real TLS, loopback only."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import certs
from lab.process import Process, wait_for

REPOSITORY = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}

# Stands in the pod of every review: no log line may ever hold it.
SECRET = "hunter2-never-in-a-log"


def issue(directory: Path, *, force: bool = False, now: datetime | None = None, days: int = 30) -> Path:
    certs.issue(directory, ["localhost", "127.0.0.1"], days=days, force=force, now=now or datetime.now(UTC))
    return directory


def review(uid: str = "0b9d7c1e-7f9e-4b7e-9f5e-2f6f5c0e6a11", *, padding: int = 0) -> bytes:
    """A review of one of Plane's API pods, `padding` bytes longer than it need be."""
    container = {
        "name": "plane-app-api",
        "image": "makeplane/plane-backend:v1.2.0",
        "command": ["./bin/docker-entrypoint-api.sh"],
        "env": [{"name": "SECRET_KEY", "value": SECRET}],
        "resources": {"limits": {"memory": "1Gi"}},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "plane-app-api-wl-", "annotations": {"filler": "x" * padding}},
        "spec": {"containers": [container]},
    }
    request = {
        "uid": uid,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "namespace": "plane",
        "dryRun": False,
        "object": pod,
    }
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


class Webhook:
    """The server as a process, started on entry and gone on exit."""

    def __init__(self, cert_dir: Path, log: Path, *, broken: bool = False, **limits: float) -> None:
        options = {"cert_dir": str(cert_dir), "broken": broken, "limits": limits}
        self.argv = [sys.executable, "-m", "tests.edges.program", json.dumps(options)]
        self.cert_dir = cert_dir
        self._log = log

    def __enter__(self) -> Self:
        self.process = Process(self.argv, log=self._log, cwd=REPOSITORY)
        try:
            (line,) = wait_for(lambda: self.lines("listening"), 30, "the webhook listens", need=[self.process])
        except BaseException:
            self.process.kill()
            raise
        self.port, self.metrics_port = line["port"], line["metrics_port"]
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()

    def lines(self, message: str = "", **fields: object) -> list[dict[str, Any]]:
        """The log's lines whose message contains this text and whose fields have these values."""
        complete = self._log.read_bytes().splitlines(keepends=True)
        lines = [json.loads(line) for line in complete if line.endswith(b"\n")]
        return [line for line in lines if message in line["message"] and fields.items() <= line.items()]

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.cert_dir / "ca.crt")

    def connect(self, trust: ssl.SSLContext | None = None) -> http.client.HTTPSConnection:
        """A connection to be used any number of times; unlike its class's default it never reconnects by itself."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=trust or self.trust())
        connection.connect()
        connection.auto_open = 0
        return connection

    def raw(self) -> ssl.SSLSocket:
        """A TLS connection without HTTP."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        return self.trust().wrap_socket(plain, server_hostname="127.0.0.1")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body, from whatever certificate: as a kubelet's probe."""
        with self.open(path) as response:
            return response.status, response.read().decode()

    def open(self, path: str) -> http.client.HTTPResponse:
        untrusting = ssl.create_default_context()
        untrusting.check_hostname, untrusting.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=untrusting)
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse()

    def ready(self) -> bool:
        return self.get("/readyz")[0] == http.HTTPStatus.OK

    def metric(self, name: str) -> float:
        """A sample by its whole name, labels included; 0 if there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=20)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found = re.search(rf"^{re.escape('plane_webhook_' + name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def resident_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert found
        return int(found[1]) / 1024

    def ended(self, timeout: float) -> int:
        """The exit code, of a process that ends by itself within this many seconds."""
        return self.process.wait(timeout)


def post(connection: http.client.HTTPSConnection, body: bytes, **headers: str) -> tuple[int, dict[str, Any], bool]:
    """Status, JSON and whether the connection stays open."""
    connection.request("POST", "/mutate?timeout=10s", body, JSON | headers)  # as an API server writes it
    response = connection.getresponse()
    content = json.loads(response.read())
    return response.status, content, not response.will_close


def receive_all(connection: ssl.SSLSocket) -> bytes:
    """What comes until the other side hangs up, cleanly or not."""
    received = bytearray()
    with suppress(ConnectionError, ssl.SSLError):
        while piece := connection.recv(65536):
            received += piece
    return bytes(received)


class ApiServer(threading.Thread):
    """Posts reviews like a kube-apiserver: keeps its connections, dials when one was closed, and never tries again.

    A failed call is a pod that was not injected: `failures` must be empty at the end.
    """

    def __init__(self, webhook: Webhook, *, pause: float = 0.002) -> None:
        super().__init__(daemon=True)
        self._webhook, self._pause = webhook, pause
        self._over = threading.Event()
        self.calls = self.dials = 0
        self.failures: list[str] = []
        self.trust = webhook.trust()

    def run(self) -> None:
        connection = None
        while not self._over.wait(self._pause):
            self.calls += 1
            try:
                if connection is None:
                    connection = self._webhook.connect(self.trust)
                    self.dials += 1
                uid = f"call-{self.calls}"
                status, content, stays = post(connection, review(uid))
                response = content["response"]
                if (status, response["uid"], response["allowed"]) != (200, uid, True) or "patch" not in response:
                    self.failures.append(f"{status} {content}")
                if not stays:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(f"call {self.calls}: {error!r}")
                connection = None
        if connection:
            connection.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(30)

    def call_for(self, seconds: float) -> None:
        before = self.calls
        time.sleep(seconds)
        assert self.calls > before, "the client is stuck"
