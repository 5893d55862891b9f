"""A root folder made of Debian packages that this machine has: their files, copied, and nothing else.

It takes seconds and no network, and what nobody named isn't in it: no shell, say. No package's script runs, so it is
for programs that need none to have run (Python, a shell), not for services.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.cache import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable

# What packages depend on for their scripts and menus, which don't run here.
NOT_FOLLOWED = frozenset({"debconf", "dpkg", "media-types"})
NOT_COPIED = re.compile(r"/usr/share/(doc|info|lintian|locale|man)/|/__pycache__/")
QUERY = "${db:Status-Abbrev}\t${Package}\t${Architecture}\t${Version}\t${Provides}\t${Pre-Depends}, ${Depends}\n"


@dataclass(frozen=True)
class Package:
    """An installed package; `depends` has one entry a dependency, each the names of which one has to be there."""

    name: str
    architecture: str
    version: str
    provides: tuple[str, ...]
    depends: tuple[tuple[str, ...], ...]


def installed() -> dict[str, Package]:
    """Return this machine's Debian packages by name, and by what they provide. LabError where there are none."""
    if shutil.which("dpkg-query") is None:
        raise LabError("a root of Debian packages can't be made: this machine has no dpkg-query")
    found: dict[str, Package] = {}
    lines = _dpkg("--show", f"--showformat={QUERY}").splitlines()
    for state, name, architecture, version, provides, depends in (line.split("\t") for line in lines):
        if state.startswith("ii"):
            alternatives = tuple(_names(each.split("|")) for each in depends.split(",") if each.strip())
            found[name] = Package(name, architecture, version, _names(provides.split(",")), alternatives)
    provided = {name: package for package in found.values() for name in package.provides}
    return provided | found


def closure(wanted: Iterable[str]) -> list[Package]:
    """Return these packages and what they need, by name. LabError names what isn't installed."""
    there = installed()
    taken: dict[str, Package] = {}
    names = list(wanted)
    while names:
        name = names.pop()
        if name not in there:
            raise LabError(f"the Debian package {name} isn't there: run `apt-get install {name}` as root")
        package = there[name]
        if package.name in taken or package.name in NOT_FOLLOWED:
            continue
        taken[package.name] = package
        names += [next((one for one in either if one in there), either[0]) for either in package.depends]
    return sorted(taken.values(), key=lambda package: package.name)


def make(root: Path, packages: Iterable[Package]) -> None:
    """Make the folder `root` with the files of the packages, links as links, owned by root if root makes it."""
    for name in ("etc", "root", "usr/bin", "usr/lib", "usr/lib64", "usr/local", "usr/sbin", "var/lib"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("tmp", "var/tmp"):
        (root / name).mkdir()
        (root / name).chmod(0o1777)
    for package in packages:
        for line in _dpkg("--listfiles", f"{package.name}:{package.architecture}".removesuffix(":all")).splitlines():
            if line.startswith("/") and not NOT_COPIED.search(line):
                _copy(Path(line), root / line[1:])
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    subprocess.run(["/sbin/ldconfig", "-r", root], check=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a file or link, unless it isn't there any more: a machine may have dropped its documents."""
    if target.exists() or target.is_symlink():
        return
    if source.is_symlink() or source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)


def _names(words: Iterable[str]) -> tuple[str, ...]:
    """Return the names in a list of dependencies, without versions and architectures."""
    return tuple(re.split(r"[\s:(]", word.strip())[0] for word in words if word.strip())


def _dpkg(*words: str) -> str:
    return subprocess.run(["dpkg-query", *words], capture_output=True, text=True, check=True).stdout
