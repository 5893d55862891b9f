"""PID 1 of the node: makes its namespaces look like a machine of their own, says so, and waits for orphans.

A program, started by keeper.py: `inside.py FOLDER CONTROLLERS=CGROUP ...`. All that it mounts and configures is in its
own mount and network namespace and goes with it. It imports nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ADDRESS = "10.243.0.1"  # the node's
PODS = "10.244.0.0/24"
SERVICES = "10.96.0.0/16"
_CLONE_NEWCGROUP = 0x02000000  # linux/sched.h; os.unshare is younger than the Python that we support

# The kubelet wants these and would set them for the whole machine: it is shown files that already say so.
SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def main(folder: Path, groups: dict[str, Path]) -> None:
    for group in groups.values():
        (group / "cgroup.procs").write_text("0")  # 0 is the writer
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWCGROUP):  # after that, so that its root is where we are
        raise OSError(ctypes.get_errno(), "no cgroup namespace")
    _mounts(folder)
    _cgroups(list(groups))
    _sysctls(folder)
    _network()
    print("ready", flush=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        signal.sigwait({signal.SIGCHLD})


def _mounts(folder: Path) -> None:
    _run("mount", "--make-rprivate", "/")
    _run("mount", "--make-rshared", "/")  # among ourselves: a kubelet insists
    _run("mount", "-t", "proc", "proc", "/proc")
    # These paths are constants in the kubelet, containerd and the CNI plugins.
    for path in ("/var/lib", "/run"):
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path)
    # The kubelet tells by its folder how much room there is for pods. Images stay in memory, and go with it at once.
    for name, path in (("kubelet", Path("/var/lib/kubelet")), ("log", Path("/var/log"))):
        path.mkdir(exist_ok=True)
        (folder / name).mkdir(exist_ok=True)
        _run("mount", "--bind", folder / name, path)


def _cgroups(hierarchies: list[str]) -> None:
    """Mount each hierarchy once, as the namespace has it: the old mounts would have every group appear twice."""
    root = Path("/sys/fs/cgroup")
    _run("umount", "-R", root)
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "cgroup", root)
    for controllers in hierarchies:
        place = root / controllers.removeprefix("name=")
        place.mkdir()
        _run(
            "mount", "-t", "cgroup", "-o", f"none,{controllers}" if "=" in controllers else controllers, "cgroup", place
        )


def _sysctls(folder: Path) -> None:
    shown = folder / "sysctls"
    shown.mkdir()
    for name, value in SYSCTLS.items():
        real = Path("/proc/sys", name)
        if real.exists() and real.read_text().strip() != value:
            file = shown / name.replace("/", ".")
            file.write_text(value + "\n")
            _run("mount", "--bind", file, real)


def _network() -> None:
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "node0", "type", "veth", "peer", "name", "node0p")
    for end in ("node0", "node0p"):
        _run("ip", "link", "set", end, "up")
    _run("ip", "address", "add", f"{ADDRESS}/24", "dev", "node0")
    # Without a route to them, packets for Services never come to kube-proxy's rules.
    _run("ip", "route", "add", SERVICES, "dev", "node0", "src", ADDRESS)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), {key: Path(path) for key, path in (word.rsplit("=", 1) for word in sys.argv[2:])})
