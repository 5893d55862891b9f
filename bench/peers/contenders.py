"""The contenders as processes, pinned to one core, each with the same certificate; and the client on another."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from bench.peers import pod
from lab.cache import LabError, folder, made
from lab.controlplane.programs import go
from lab.process import Process, Startable, cpu_seconds, free_port, wait_for
from lab.webhook import COMMAND, command

if TYPE_CHECKING:
    from collections.abc import Iterable

WHAT = {
    "floor": "uvicorn, a fixed answer",
    "ours": "plane-webhook",
    "maps": "Go, net/http and maps",
    "typed": "Go, controller-runtime",
    "tutorial": "FastAPI, make_patch",
}


def programs(module: str, takes: str) -> Path:
    """The folder with a module's programs, built if its sources are new."""
    sources = Path(__file__).with_name(module)
    texts = b"".join(path.read_bytes() for path in sorted(sources.rglob("*")) if path.is_file())
    target = folder(f"bench-peers-{module}", hashlib.sha256(texts).hexdigest()[:12]) / "bin"

    def build(part: Path) -> None:
        part.mkdir()
        go(sources, "build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o", f"{part}/", "./...")

    return made(target, build, what=f"contenders in Go: {module}", takes=takes)


def machine() -> dict[str, Any]:
    """The machine, and the versions of what ran."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    names = ("plane-webhook", "uvicorn", "uvloop", "httptools", "msgspec", "fastapi", "jsonpatch")
    go = subprocess.run(["go", "version"], capture_output=True, text=True, check=False).stdout.split()[2:3]
    return {
        "processor": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "go": "".join(go),
        **{name: version(name) for name in names},
    }


class Contenders(Startable):
    """Those of these names, running at the same time; `urls` by name."""

    def __init__(self, it: pod.Json, names: Iterable[str] = WHAT) -> None:
        self.names = list(names)
        self.pod, self.urls, self._processes = it, dict[str, str](), dict[str, Process]()
        self.folder = Path(tempfile.mkdtemp(prefix="plane-webhook-peers-"))
        self.body = self.folder / "review.json"
        self.body.write_bytes(pod.review(it))
        cores = sorted(os.sched_getaffinity(0))
        self.server_core, self.client_core = cores[0], cores[-1]

    def start(self) -> None:
        """Start each and see that it gives the pod that we give."""
        tools, tls = programs("go", "half a minute"), self.folder / "tls"
        self._load = tools / "load"
        cert, key = tls / "tls.crt", tls / "tls.key"
        command("certs", "issue", "--dir", tls, "--host", "127.0.0.1")
        answer, added = self.folder / "answer.json", self.folder / "injection.json"
        answer.write_bytes(pod.ours(self.pod))
        added.write_text(json.dumps(pod.additions(self.pod)))
        wanted = pod.answered(self.pod, pod.ours(self.pod))
        for name in self.names:
            port = str(free_port())
            if name == "ours":
                words = [COMMAND, "serve", "--cert-dir", tls, "--port", port, "--metrics-port", str(free_port())]
            elif name == "maps":
                words = [tools / "maps", added, cert, key, port]
            elif name == "typed":
                words = [programs("typed", "2 to 4 minutes") / "typed", added, tls, port]
            else:
                given = answer if name == "floor" else added
                words = [sys.executable, "-m", f"bench.peers.{name}", given, cert, key, port]
            process = Process(
                ["taskset", "-c", str(self.server_core), *words],
                log=self.folder / f"{name}.log",
                cwd=Path(__file__).parents[2],
            )
            self._processes[name] = process
            self.urls[name] = f"https://127.0.0.1:{port}/mutate"
            body = wait_for(lambda name=name: self._answer(name), 60, f"{name} answers", need=[process])  # type: ignore[misc]
            if pod.answered(self.pod, body) != wanted:
                raise LabError(f"{name} makes another pod than we do")

    def close(self) -> None:
        """End them."""
        for process in self._processes.values():
            process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def load(self, name: str, connections: int, seconds: float) -> dict[str, Any]:
        """Ask one of them for so long. Microseconds: p50, p99, worst, the server's processor time a review as `cpu`."""
        before = cpu_seconds(self.pid(name))
        words = ["taskset", "-c", str(self.client_core), self._load, self.urls[name], self.body]
        done = subprocess.run(
            [*words, str(connections), str(seconds)], capture_output=True, text=True, check=False, timeout=seconds + 60
        )
        if done.returncode:
            raise LabError(f"the client of {name} failed: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout)
        # Each connection is opened by one review that isn't counted.
        found["cpu"] = (cpu_seconds(self.pid(name)) - before) * 1e6 / (found["reviews"] + connections)
        found["rate"] = found["reviews"] / found["seconds"]
        return found

    def pid(self, name: str) -> int:
        """Its process."""
        return self._processes[name].pid

    def memory(self, name: str) -> float:
        """Resident memory in MiB."""
        text = Path(f"/proc/{self.pid(name)}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024

    def _answer(self, name: str) -> bytes | None:
        headers = {"content-type": "application/json"}
        try:
            answer = httpx.post(
                self.urls[name],
                content=self.body.read_bytes(),
                headers=headers,
                verify=False,  # noqa: S501 - it is on loopback
                trust_env=False,
            )
        except httpx.TransportError:
            return None
        return answer.content if answer.is_success else None
