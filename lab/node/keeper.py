"""Keeps the node's namespaces and cgroups, and ends them whole, however the Python that wanted them ends.

A program: `keeper.py FOLDER` makes a cgroup below its own in each hierarchy, starts inside.py as PID 1 of new
namespaces, and prints PID 1's pid as the machine numbers it. When its stdin closes, because nobody wants the node any
more or nobody is left who could, it kills PID 1 (and so all that runs there), removes the cgroups and then FOLDER.
Killed itself, it takes the namespaces along; the cgroups, empty then, are removed by the next keeper. It must never
touch a process or a cgroup that it did not make, and imports nothing but the standard library: it has to start at once.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

NAME = "plane-webhook-node-"  # and the keeper's pid
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_GONE = 20.0  # seconds; a cgroup can be removed when its last process has been waited for


def hierarchies() -> dict[str, Path]:
    """Return where this process is in each cgroup v1 hierarchy, by controllers as the kernel lists them."""
    mounts = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup":
            mounts[frozenset(options.split(","))] = Path(before.split()[4])
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        names = frozenset(controllers.split(","))
        for options, mount in mounts.items():
            if controllers and names <= options:
                found[controllers] = mount / path.lstrip("/")
    return found


def main(folder: Path) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # stdin says when it is over, and nothing else
        signal.signal(number, signal.SIG_IGN)
    places = hierarchies()
    for place in places.values():
        _sweep(place)
    own = {controllers: place / f"{NAME}{os.getpid()}" for controllers, place in places.items()}
    try:
        for group in own.values():
            group.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group, which then takes no process
                if (group / name).exists():
                    (group / name).write_text((group.parent / name).read_text())
        _run(folder, own)
    finally:
        for group in own.values():
            _remove(group)
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _run(folder: Path, groups: dict[str, Path]) -> None:
    words = [f"{controllers}={group}" for controllers, group in groups.items()]
    unshare = subprocess.Popen(
        [
            *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--"),
            *(sys.executable, "-I", str(Path(__file__).with_name("inside.py")), str(folder), *words),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - no threads here
    )
    assert unshare.stdout is not None
    ready = unshare.stdout.readline()
    inside = _child(unshare.pid)
    if ready and inside:
        print(inside, flush=True)
        init = os.pidfd_open(inside)
        select.select([sys.stdin, init], [], [])
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(init, signal.SIGKILL)
    unshare.wait()


def _child(pid: int) -> int:
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(words[0]) if words else 0


def _sweep(place: Path) -> None:
    """Remove what a keeper left that was killed itself."""
    for group in place.glob(f"{NAME}*"):
        if not Path("/proc", group.name.removeprefix(NAME)).exists():
            _remove(group, patience=0)


def _remove(group: Path, patience: float = _GONE) -> None:
    deadline = time.monotonic() + patience
    while group.exists():
        for path, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):  # busy: its last processes are still ending
                Path(path).rmdir()
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
