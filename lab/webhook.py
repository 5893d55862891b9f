"""plane-webhook as a user runs it: the installed command, as a process, with certificates that the command issued.

    with Webhook() as webhook:
        plane.kubectl("apply", "--server-side", "-f", "-", input=webhook.registration())

Listens on loopback only, on free ports; its folder is removed with it. This module must never import what it runs: what
is shown with it is shown of the program.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from lab.cache import LabError
from lab.process import Process, Startable, wait_for

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

COMMAND = Path(sys.executable).with_name("plane-webhook")
HOSTS = ("127.0.0.1", "localhost")
READY = 30.0  # seconds; half of one alone on two cores


def command(*words: str | Path, stdin: str | None = None) -> str:
    """Run plane-webhook to its end and return what it printed. LabError with its complaint if it fails."""
    if not COMMAND.exists():
        raise LabError(f"{COMMAND} is missing: install the project into this environment (`make check` does)")
    done = subprocess.run([COMMAND, *words], input=stdin, capture_output=True, text=True, check=False, timeout=READY)
    if done.returncode:
        raise LabError(f"`plane-webhook {' '.join(map(str, words))}` ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


class Webhook(Startable):
    """`plane-webhook serve`. `with` starts it and leaves nothing; `start` after its end takes the same ports again.

    `port`, `metrics_port` and `url` hold once it has been started.
    """

    def __init__(
        self, *, hosts: tuple[str, ...] = HOSTS, configuration: str | None = None, cert_dir: Path | None = None
    ) -> None:
        """Prepare it: a folder and a certificate for `hosts`, unless `cert_dir` (of another replica) has one.

        `configuration` is the text of a configuration file; without one there is no --config.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="plane-webhook-serve-"))
        self.cert_dir = cert_dir or self.folder / "tls"
        self._hosts = [word for host in hosts for word in ("--host", host)]
        self.configuration: Path | None = None
        if configuration is not None:
            self.configuration = self.folder / "configuration.yaml"
            self.configuration.write_text(configuration)
        self.port = self.metrics_port = 0  # any free one, the first time
        self._runs = 0

    def start(self) -> None:
        """Start it and return when it is ready. It gets a certificate the first time."""
        if not self.cert_dir.exists():
            self.issue(self.cert_dir)
        self._runs += 1
        argv = ["serve", *self._config(), "--cert-dir", self.cert_dir, "--host", "127.0.0.1"]
        argv += ["--port", str(self.port), "--metrics-port", str(self.metrics_port)]
        self.process = Process([COMMAND, *argv], log=self.folder / f"serve-{self._runs}.log")
        need = [self.process]
        line = wait_for(lambda: self.log_lines(message="listening"), READY, "the webhook listens", need=need)[0]
        self.port, self.metrics_port = line["port"], line["metrics_port"]
        self.url = f"https://127.0.0.1:{self.port}"
        wait_for(self.ready, READY, "the webhook is ready", need=need)

    def close(self) -> None:
        """End it at once and remove its folder."""
        if self._runs:
            self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def terminate(self, timeout: float = 100) -> int:
        """End it as a kubelet does, and return its exit code. It stays as long as an API server may call: 95 s."""
        self.process.signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def issue(self, directory: Path, *words: str) -> None:
        """Issue a certificate for its hosts, as a user would."""
        command("certs", "issue", "--dir", directory, *self._hosts, *words)

    def registration(self, *words: str | Path) -> str:
        """Return what `plane-webhook registration` prints: for its URL, unless `words` say --service."""
        where = () if "--service" in words else ("--url", self.url)
        authority = () if "--ca-file" in words else ("--ca-file", self.cert_dir / "ca.crt")
        return command("registration", *self._config(), *where, *authority, *words)

    def _config(self) -> list[str | Path]:
        return ["--config", self.configuration] if self.configuration else []

    def ready(self) -> bool:
        """Tell what a readiness probe would."""
        try:
            return httpx.get(f"{self.url}/readyz", verify=False, trust_env=False).is_success  # noqa: S501 - as a kubelet
        except httpx.TransportError:
            return False

    def log_lines(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the lines of its present run that have these values, oldest first."""
        complete = self.process.log.read_bytes().splitlines(keepends=True)
        lines = [json.loads(line) for line in complete if line.endswith(b"\n")]
        return [line for line in lines if fields.items() <= line.items()]

    def metrics(self) -> list[Sample]:
        """Return what Prometheus would be told."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", trust_env=False).text
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def metric(self, name: str, /, **labels: str) -> float:
        """Return the sum over the series `plane_webhook_NAME` with these labels; 0 if there is none."""
        series = (sample for sample in self.metrics() if sample.name == f"plane_webhook_{name}")
        return sum(sample.value for sample in series if labels.items() <= sample.labels.items())

    @property
    def reviews(self) -> int:
        """How many reviews it has answered in its present run."""
        return int(self.metric("decisions_total"))
