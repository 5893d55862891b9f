"""setup-envtest brings the control plane's programs from a mirror of the tests' own; where it can't, they are built.

The real one downloads, checks and unpacks the programs of the lab. Only what is built in their place is not real: `go`
writes a word into the file that it is to make.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.cache import root
from lab.controlplane import envtest
from lab.controlplane.programs import PROGRAMS, VERSIONS, binary, installed, prebuilt, setup_envtest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

KUBERNETES = VERSIONS["kubernetes"]
MINOR = KUBERNETES.rpartition(".")[0]
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
INDEX, ARCHIVE = "/index.yaml", "/archive.tar.gz"
GO = """#!/bin/sh
for word; do
    test "$before" = -o && echo built > "$word"
    before=$word
done
"""


class Mirror(ThreadingHTTPServer):
    """A server of an index with one archive. `asked` has each path that it was asked for, in order."""

    daemon_threads = True

    def __init__(self, archive: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.version = KUBERNETES
        self.offer(archive)
        self.silent = ""  # the path for which there is no answer
        self.pause = 0.0  # seconds before each sixth of the archive
        self.asked: list[str] = []
        self.closed = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def offer(self, archive: Path) -> None:
        self.archive = archive
        with archive.open("rb") as file:
            self.sum = hashlib.file_digest(file, "sha512").hexdigest()

    @property
    def index(self) -> dict[str, Any]:
        name = f"envtest-v{self.version}-linux-{ARCHITECTURE}.tar.gz"
        return {"releases": {f"v{self.version}": {name: {"hash": self.sum, "selfLink": self.url + ARCHIVE}}}}

    def close(self) -> None:
        self.closed.set()
        self.shutdown()
        self.server_close()


class Answer(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == self.server.silent:
            self.server.closed.wait()
            return
        body = json.dumps(self.server.index).encode() if self.path == INDEX else self.server.archive.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        piece = len(body) // 6 + 1
        for begin in range(0, len(body), piece):
            if self.path == ARCHIVE:
                time.sleep(self.server.pause)
            try:
                self.wfile.write(body[begin : begin + piece])
            except ConnectionError:  # it was given up
                return

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def pack(path: Path, programs: dict[str, Path]) -> Path:
    """Pack programs as those of a release are, though not compressed."""
    with tarfile.open(path, "w:gz", compresslevel=0) as packed:
        for name, program in programs.items():
            packed.add(program.resolve(), f"controller-tools/envtest/{name}")
    return path


@pytest.fixture(scope="module")
def archive() -> Iterator[Path]:
    """One with the smallest of the lab's programs."""
    with tempfile.TemporaryDirectory() as folder:
        yield pack(Path(folder, "archive.tar.gz"), {"etcd": binary("etcd")})


@pytest.fixture(scope="module")
def own() -> dict[str, Path]:
    """The lab's programs."""
    return {name: binary(name) for name in envtest.BRINGS}


@pytest.fixture(scope="module")
def tool() -> Path:
    return setup_envtest()


@pytest.fixture
def mirror(archive: Path, tool: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """One that the lab asks, on a machine where there is nothing but setup-envtest."""
    with tempfile.TemporaryDirectory() as folder, closing(Mirror(archive)) as running:
        monkeypatch.setenv("LAB_ENVTEST_INDEX", running.url + INDEX)
        monkeypatch.setenv("PLANE_WEBHOOK_CACHE", f"{folder}/cache")
        monkeypatch.setenv("PATH", f"{folder}/path")
        for name in ("KUBEBUILDER_ASSETS", "ENVTEST_INSTALLED_ONLY"):
            monkeypatch.delenv(name, raising=False)
        go, ready = Path(folder, "path/go"), root() / f"setup-envtest-{envtest.VERSION}/setup-envtest"
        for path in (go, ready):
            path.parent.mkdir(parents=True)
        go.write_text(GO)
        go.chmod(0o755)
        ready.symlink_to(tool)
        forget()
        yield running
        forget()


def forget() -> None:
    """Remember nothing, as another process."""
    for remembered in (installed, prebuilt, envtest.programs):
        remembered.cache_clear()


def built(name: str) -> bool:
    return binary(name).read_bytes() == b"built\n"


def kept() -> list[str]:
    """What is in the cache of what it brings."""
    return sorted(path.name for path in (root() / f"envtest-{KUBERNETES}").iterdir())


def test_what_it_brings_is_used(mirror: Mirror, own: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    mirror.offer(pack(root() / "archive.tar.gz", own))
    for name in envtest.BRINGS:
        path = binary(name)
        assert path == root() / f"envtest-{KUBERNETES}/programs/{name}"
        said = subprocess.run([path, *PROGRAMS[name].asks], capture_output=True, text=True, check=True).stdout
        assert (VERSIONS["etcd"] if name == "etcd" else f"v{KUBERNETES}") in said
    assert capfd.readouterr().err.count("by setup-envtest: made in") == 1
    assert mirror.asked.count(ARCHIVE) == 1
    assert kept() == [".programs.lock", "programs"]
    assert sorted(each.name for each in path.parent.iterdir()) == sorted(envtest.BRINGS)


def test_another_process_takes_it_without_asking_and_without_go(mirror: Mirror) -> None:
    first, asked = binary("etcd"), [*mirror.asked]
    shutil.rmtree(os.environ["PATH"])
    forget()
    assert binary("etcd") == first
    assert mirror.asked == asked


def test_what_it_does_not_bring_is_built_and_what_was_built_before_is_used(mirror: Mirror) -> None:
    assert built("kube-controller-manager")
    assert built("helm4")
    assert mirror.asked == []
    ready = root() / f"etcd-{VERSIONS['etcd']}/etcd"
    ready.parent.mkdir()
    ready.touch()
    assert binary("etcd") == ready
    assert mirror.asked == []
    assert built("kubectl")  # of these there is none in the archive
    assert ARCHIVE in mirror.asked


def test_another_patch_release_serves_another_minor_one_does_not(
    mirror: Mirror, capfd: pytest.CaptureFixture[str]
) -> None:
    mirror.version = "1.30.0"
    assert built("etcd")
    assert "unable to find a version" in capfd.readouterr().err
    (root() / f"etcd-{VERSIONS['etcd']}/etcd").unlink()
    forget()
    mirror.version = f"{MINOR}.99"
    assert binary("etcd").parent.name == "programs"


@pytest.mark.usefixtures("mirror")
def test_a_program_of_it_that_does_not_fit_is_not_used(capfd: pytest.CaptureFixture[str]) -> None:
    assert prebuilt("etcd", "3.4.0") is None
    assert f"etcd is {VERSIONS['etcd']}, 3.4.0 is wanted: not used" in capfd.readouterr().err


@pytest.mark.parametrize("wrong", ["0" * 128, ""])
def test_without_the_index_s_checksum_nothing_is_used(
    mirror: Mirror, capfd: pytest.CaptureFixture[str], wrong: str
) -> None:
    mirror.sum = wrong
    assert built("etcd")
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "checksum" in line]
    assert f"{KUBERNETES} by setup-envtest: unable to download requested version: checksum mismatch" in said
    assert said.endswith("; what is missing is built from source instead")
    assert kept() == [".programs.lock"]


@pytest.mark.parametrize("silent", [INDEX, ARCHIVE])
def test_a_network_that_does_not_answer_costs_its_time_once(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], silent: str
) -> None:
    mirror.silent = silent
    monkeypatch.setattr(envtest, "SILENCE", 1)
    began = time.monotonic()
    assert all(built(name) for name in envtest.BRINGS)
    assert time.monotonic() - began < 3
    said = "by setup-envtest: nothing has come for 1 s; what is missing is built"
    assert capfd.readouterr().err.count(said) == 1
    assert kept() == [".programs.lock"]

    asked, etcd = [*mirror.asked], root() / f"etcd-{VERSIONS['etcd']}/etcd"
    etcd.unlink()
    forget()  # another process, within minutes
    assert built("etcd")
    assert mirror.asked == asked
    assert "failed a few minutes ago, not tried again" in capfd.readouterr().err

    etcd.unlink()
    mirror.silent = ""
    monkeypatch.setattr(envtest, "AGAIN", 0)
    forget()
    assert binary("etcd").parent.name == "programs"


def test_one_that_takes_as_long_as_a_build_is_given_up(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mirror.pause = 0.4
    monkeypatch.setattr(envtest, "LIMIT", 1)
    assert built("etcd")
    assert "by setup-envtest: not done in 1 s; what is missing is built" in capfd.readouterr().err
    assert kept() == [".programs.lock"]


def test_a_slow_one_is_waited_for(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.pause = 0.4
    monkeypatch.setattr(envtest, "SILENCE", 1)
    assert binary("etcd").parent.name == "programs"


@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize(
    ("ends", "said"), [("echo no such module >&2; exit 1", "no such module"), ("exec /bin/sleep 30", "not done in 1 s")]
)
def test_that_it_can_t_be_built_is_one_failure_more(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], ends: str, said: str
) -> None:
    monkeypatch.setattr(envtest, "LIMIT", 1)
    (root() / f"setup-envtest-{envtest.VERSION}/setup-envtest").unlink()
    go = Path(os.environ["PATH"], "go")
    go.write_text(f'{GO}case "$*" in *setup-envtest) {ends} ;; esac\n')
    assert built("etcd")
    assert f"{said}; what is missing is built from source instead" in capfd.readouterr().err
