"""Which RabbitMQ the lab runs: the machine's own, or that of another Debian release, without a container engine.

The other one is a small Debian in the cache, made by debootstrap from the mirror that this machine's apt uses. This
module must never write outside of the cache, nor start a service of either.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cache
from lab.cache import LabError
from lab.packages import PACKAGES, ensure_packages, program

if TYPE_CHECKING:
    from collections.abc import Mapping

# Debian's programs on PATH change to the user `rabbitmq` and its folders; the ones beside this don't.
SERVER = Path(PACKAGES["rabbitmq-server"])
RELEASES = {"4.0": "trixie", "4.3": "sid"}  # where Debian has which
# What can be named. Quorum: queues that don't say what they are become quorum queues, as on Amazon MQ 4.
KINDS = tuple(f"{version}{queues}" for version in RELEASES for queues in ("", "-quorum"))
CHOSEN = "PLANE_WEBHOOK_RABBITMQ"  # an environment variable: one of these, for brokers of which no kind is named
RECIPE = 1  # counted up when what `_make` makes changes


@dataclass(frozen=True)
class Installation:
    """A RabbitMQ. `root` is the folder of its system: / is this machine's."""

    root: Path
    configuration: Mapping[str, str] = field(default_factory=dict)  # what it takes to be of its kind

    def path(self, inside: Path) -> Path:
        """Return where on this machine a path of its system is."""
        return self.root / inside.relative_to("/")

    def options(self, folder: Path) -> list[str]:
        """Return bwrap's options by which a program of it runs and may write to `folder`."""
        if self.root == Path("/"):
            return ["--dev-bind", "/", "/", "--proc", "/proc"]
        options = ["--ro-bind", str(self.root / "usr"), "/usr", "--ro-bind", str(self.root / "etc"), "/etc"]
        for name in ("bin", "lib", "lib64", "sbin"):
            options += ["--symlink", f"usr/{name}", f"/{name}"]
        options += ["--dev", "/dev", "--proc", "/proc", "--ro-bind", "/sys", "/sys", "--tmpfs", "/tmp"]
        return [*options, "--ro-bind", "/etc/hosts", "/etc/hosts", "--bind", str(folder), str(folder), "--chdir", "/"]

    def applications(self) -> set[Path]:
        """Return the folders, in its system, of the Erlang applications that the broker itself needs.

        They lie among some 50 plugins. Erlang asks every folder for every module that it loads, so leaving out the
        plugins makes the broker start in two thirds of the time.
        """
        plugins = self.path(SERVER.parent.parent).glob("lib/*/plugins/*-*")
        installed = {path.name.rsplit("-", 1)[0]: path for path in plugins}
        needed: set[Path] = set()
        wanted = ["rabbit"]
        while wanted:
            name = wanted.pop()
            folder = installed.get(name)  # the rest is Erlang's own
            if folder is not None and folder not in needed:
                needed.add(folder)
                described = (folder / f"ebin/{name}.app").read_text()
                for listed in re.findall(r"applications,\s*\[(.*?)\]", described, re.DOTALL):  # optional ones too
                    wanted += re.findall(r"\w+", listed)
        return {Path("/") / folder.relative_to(self.root) for folder in needed}


def installation(kind: str | None = None) -> Installation:
    """Return a RabbitMQ of one of KINDS, made if need be (about 3 minutes).

    Without a kind it is what $PLANE_WEBHOOK_RABBITMQ names, else the machine's. LabError if it can't be had.
    """
    kind = kind or os.environ.get(CHOSEN)
    if not kind:
        if not SERVER.exists():
            raise LabError(f"RabbitMQ isn't there: install the Debian package rabbitmq-server ({SERVER} is missing)")
        return Installation(Path("/"))
    if kind not in KINDS:
        raise LabError(f"the lab has no RabbitMQ {kind}, only {', '.join(KINDS)} and the machine's own")
    version, _, queues = kind.partition("-")
    release = RELEASES[version]
    root = cache.folder("rabbitmq", f"{version}-{release}-{RECIPE}") / "root"
    cache.made(
        root, lambda path: _make(path, version), what=f"RabbitMQ {version} of Debian {release}", takes="about 3 minutes"
    )
    return Installation(root, {"default_queue_type": queues} if queues else {})


def _make(root: Path, version: str) -> None:
    """Make the Debian that has it. Nothing stays mounted, however this ends: all mounts are in namespaces."""
    release = RELEASES[version]
    if os.geteuid() != 0:
        raise LabError(f"RabbitMQ {version} of Debian {release} is made by debootstrap, and only root can run that")
    ensure_packages("bubblewrap", "debootstrap", "util-linux")
    bootstrap = ["unshare", "--mount", "debootstrap", "--variant=minbase", "--merged-usr", "--force-check-gpg"]
    _run([*bootstrap, release, str(root), _mirror()])
    never = root / "usr/sbin/policy-rc.d"  # says no when a package wants to start its service
    never.write_text("#!/bin/sh\nexit 101\n")
    never.chmod(0o755)
    (root / "etc/hosts").touch()
    inside = [program("bwrap"), "--unshare-pid", "--die-with-parent", "--cap-add", "ALL", "--bind", str(root), "/"]
    inside += ["--dev", "/dev", "--proc", "/proc", "--ro-bind", "/etc/resolv.conf", "/etc/resolv.conf", "--"]
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "-o", "Dpkg::Options::=--force-unsafe-io"]
    _run([*inside, *install, "rabbitmq-server"])
    _run([*inside, "apt-get", "clean"])
    found = _run([*inside, "dpkg-query", "--show", "--showformat=${Version}", "rabbitmq-server"])
    if not found.startswith(f"{version}."):
        raise LabError(f"Debian {release} has RabbitMQ {found} now, and {version} no more: change lab/rabbitmq.py")


def _mirror() -> str:
    """Return the Debian mirror that this machine's apt uses."""
    found = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"])
    if not found:
        raise LabError("another Debian release can't be had: this machine's apt names no mirror of Debian")
    return found.split()[0]


def _run(argv: list[str]) -> str:
    """Run a step of it and return what it printed. LabError with the end of that if it fails."""
    environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    for scheme in ("http", "https"):  # debootstrap and the new Debian's apt don't know the settings of this one's
        variable = f"{scheme}_proxy"
        asked = subprocess.run(
            ["apt-config", "shell", "found", f"Acquire::{scheme}::Proxy"], capture_output=True, text=True, check=True
        )
        if proxy := asked.stdout.partition("=")[2].strip().strip("'") or os.environ.get(variable):
            environment[variable] = proxy
    run = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        end = "\n".join(f"{run.stdout}{run.stderr}".splitlines()[-10:])
        raise LabError(f"`{' '.join(argv)}` failed:\n{end}")
    return run.stdout.strip()
