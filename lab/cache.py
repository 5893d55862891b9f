"""The lab's cache folder: what takes long to make is made once, for every checkout and every process.

Things live in `<root>/<thing>-<version>/`, so two versions never meet. A thing appears under its name only when it is
complete, and two processes that want it at once make it once. This module must never remove what it did not make.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Often enough that nobody takes a build for hung, rare enough that a log of the whole set stays readable.
HEARTBEAT = 30.0


class LabError(RuntimeError):
    """The lab can't be set up; the text says what is missing and what to do."""


def say(text: str) -> None:
    """Print one line of progress, on stderr: stdout belongs to the program that uses the lab."""
    print(f"[lab] {text}", file=sys.stderr, flush=True)


def root() -> Path:
    """Return the cache folder: $PLANE_WEBHOOK_CACHE, or plane-webhook in the user's cache folder."""
    if named := os.environ.get("PLANE_WEBHOOK_CACHE"):
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "plane-webhook").absolute()


def folder(thing: str, version: str) -> Path:
    """Return the folder of one version of a thing, made if need be."""
    path = root() / f"{thing}-{version}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def made(path: Path, make: Callable[[Path], None], *, what: str, takes: str) -> Path:
    """Return `path`; where it isn't there yet, `make(temporary)` makes it (a file or a folder) and it is renamed.

    `takes` says how long that is for somebody who has nothing yet ("about 3 minutes"). Whatever `make` raises passes.
    """
    if path.exists():
        return path
    with _locked(path.with_name(f".{path.name}.lock"), what):
        if path.exists():  # another process made it while we waited
            return path
        temporary = path.with_name(f".{path.name}.part")  # the lock is ours, so is this name
        _remove(temporary)
        try:
            with _progress(what, takes):
                make(temporary)
            temporary.rename(path)
        finally:
            _remove(temporary)
    return path


@contextmanager
def _locked(lock: Path, what: str) -> Iterator[None]:
    """Hold the lock; the kernel lets go of it when the process ends, however it ends."""
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{what}: another process makes it, waiting")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _progress(what: str, takes: str) -> Iterator[None]:
    say(f"{what}: making it, {takes} the first time")
    start, done = time.monotonic(), threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT):
            say(f"{what}: {time.monotonic() - start:.0f} s so far")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    say(f"{what}: made in {time.monotonic() - start:.0f} s")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
