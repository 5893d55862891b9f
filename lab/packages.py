"""The Debian packages that the lab's real parts come from: installed where that is allowed, named where it isn't."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lab.cache import LabError, say

# Only lab/node needs these, and only tests those: they are asked for by name.
NODE = ("iproute2", "ipset", "iptables", "nftables", "runc")
TESTS = ("docker-registry", "shellcheck")
# A program of each package, by which its presence is told; RabbitMQ's by the server itself, because the one on PATH is
# a wrapper that changes to another user; PostgreSQL's in a folder of its version, whichever the machine's Debian has.
PACKAGES = {
    "bubblewrap": "bwrap",
    "buildah": "buildah",
    "busybox-static": "busybox",
    "dash": "dash",
    "debootstrap": "debootstrap",
    "docker-registry": "docker-registry",
    "haproxy": "haproxy",
    "iproute2": "ip",
    "ipset": "ipset",
    "iptables": "iptables",
    "nftables": "nft",
    "postgresql": "/usr/lib/postgresql/*/bin/postgres",
    "prometheus": "prometheus",
    "python3-venv": "/usr/lib/python3*/ensurepip/__main__.py",
    "rabbitmq-server": "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "redis-server": "redis-server",
    "runc": "runc",
    "shellcheck": "shellcheck",
    "util-linux": "setpriv",
}


def ensure_packages(*packages: str) -> None:
    """Install those of the packages that aren't there, or LabError says what to do. None named: all but those above."""
    wanted = packages or [name for name in PACKAGES if name not in (*NODE, *TESTS)]
    missing = [name for name in wanted if not _there(PACKAGES[name])]
    if not missing:
        return
    command = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise LabError(f"the lab needs the Debian packages {', '.join(missing)}: run `{command}` as root")
    say(f"installing {', '.join(missing)}")
    # RUNLEVEL=1 keeps a package from starting its service: ours run on ports of their own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for step in (["apt-get", "update"], [*command.split(), "--yes"]):
        run = subprocess.run(step, env=environment, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise LabError(f"`{command}` failed:\n{run.stderr}")


def program(name: str) -> str:
    """Return the path of a program of one of the packages. LabError names the package if it isn't there."""
    package = next((package for package, probe in PACKAGES.items() if probe == name), "util-linux")
    path = shutil.which(name)
    if path is None:
        raise LabError(f"{name} isn't there: install the Debian package {package}: `apt-get install {package}`")
    return path


def _there(probe: str) -> bool:
    if probe.startswith("/"):
        return any(Path("/").glob(probe[1:]))
    return shutil.which(probe, path=f"{os.environ['PATH']}:/usr/sbin") is not None  # not everybody's PATH has it
