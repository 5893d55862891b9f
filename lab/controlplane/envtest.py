"""Programs of the control plane that nobody has to compile: setup-envtest brings them where the network lets it.

It reads an index, its own or the one that LAB_ENVTEST_INDEX names, downloads the archive that this has for the version,
and unpacks it if its SHA-512 is the index's. Whatever goes wrong is said in one line, and the programs are built. This
module must never fetch anything itself, and never have setup-envtest take what it has not checked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lab.cache import LabError, folder, made, say

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = "sigs.k8s.io/controller-runtime/tools/setup-envtest"
VERSION = "0.25.1"
BRINGS = ("etcd", "kube-apiserver", "kubectl")
# Seconds in which nothing arrives. Who can't reach GitHub has minutes of building before him as it is.
SILENCE = 10.0
# Seconds altogether, and as many for building setup-envtest: less than it takes to build the three.
LIMIT = 180.0
# Seconds for which a failure counts in other processes too: a set-up is a number of them, and takes that long.
AGAIN = 600.0
_NOT_THERE = "unable to find"  # the index was read, and has no such version


@cache
def programs(version: str, tool: Callable[[], Path] | None) -> Path | None:
    """Return the folder of what setup-envtest has for a Kubernetes version, perhaps of another patch release.

    `tool` makes setup-envtest; without it there is what was brought before. None where nothing is to be had; what went
    wrong with it is said in one line.
    """
    target = folder("envtest", version) / "programs"
    failed, index = folder("setup-envtest", VERSION) / "failed", os.environ.get("LAB_ENVTEST_INDEX", "")
    what = f"programs of Kubernetes {version} by setup-envtest"
    if target.exists():
        return target
    if not tool:
        return None
    if _failed_lately(failed, index):
        say(f"{what}: failed a few minutes ago, not tried again (remove {failed} to have it tried)")
        return None
    try:
        return made(target, lambda part: _fetch(tool(), version, part), what=what, takes="at most 3 minutes")
    except LabError as error:
        why = str(error).splitlines()[-1]  # the Go client's complaint has several, and this one says it
        say(f"{what}: {why}; what is missing is built from source instead")
        if _NOT_THERE not in str(error):
            failed.write_text(index)
    return None


def _failed_lately(failed: Path, index: str) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - failed.stat().st_mtime < AGAIN and failed.read_text() == index
    return False


def _fetch(tool: Path, version: str, target: Path) -> None:
    target.mkdir()
    try:
        try:
            unpacked = _use(tool, version, target)
        except LabError as error:
            if _NOT_THERE not in str(error):
                raise
            unpacked = _use(tool, version.rpartition(".")[0], target)
    finally:
        for each in target.glob("k8s/*"):  # setup-envtest makes it read-only: nobody but root could move or remove it
            each.chmod(0o755)
    for program in unpacked.iterdir():
        program.rename(target / program.name)
    shutil.rmtree(target / "k8s")


def _use(tool: Path, version: str, target: Path) -> Path:
    """Have the programs of a version, or of the newest of a minor one, in a folder below `target`, and return that."""
    index = os.environ.get("LAB_ENVTEST_INDEX")
    flags = ["--verify", "--use-env=false", "--bin-dir", target, *(["--index", index] if index else [])]
    process = subprocess.Popen(
        [tool, "use", version, "--print", "path", *flags],
        env=os.environ | {"TMPDIR": str(target)},  # its download goes with the rest, however this ends
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            out, err = _listen(process, target)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise LabError(err.strip().splitlines()[-1] if err.strip() else f"exit code {process.returncode}")
    return Path(out)


def _listen(process: subprocess.Popen[str], target: Path) -> tuple[str, str]:
    """Return what it printed once it has ended. LabError where nothing more comes into `target`."""
    began = heard = time.monotonic()
    size = 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=0.2)
        now = time.monotonic()
        if (arrived := _size(target)) != size:
            heard, size = now, arrived
        if now - heard > SILENCE:
            raise LabError(f"nothing has come for {SILENCE:.0f} s")
        if now - began > LIMIT:
            raise LabError(f"not done in {LIMIT:.0f} s")


def _size(target: Path) -> int:
    size = 0
    for path in target.rglob("*"):
        with suppress(FileNotFoundError):  # the archive goes when it is unpacked
            size += path.stat().st_size
    return size
