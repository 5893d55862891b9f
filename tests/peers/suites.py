"""The peers' unit tests, from the source distributions of the versions that the small Plane's lock files name.

Their hashes stand in those files already, for pip knows a release by all of its files. What is fetched lies in the
lab's cache folder and is used as it is: this module must never change a peer's test.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cache, images

if TYPE_CHECKING:
    from lab.images import Lock

TOOLS = Path(__file__).with_name("requirements.txt")
NEEDED = ("t", "setup.cfg", "pyproject.toml")  # of a source distribution: the library itself is the installed one


@dataclass(frozen=True)
class Suite:
    """The unit tests of one library: all that could notice our patches, and the most telling ones."""

    package: str
    paths: tuple[str, ...]
    short: tuple[str, ...]
    plugins: tuple[str, ...] = ()


SUITES = (
    Suite("amqp", ("t/unit",), ("t/unit/test_channel.py", "t/unit/test_connection.py", "t/unit/test_transport.py")),
    Suite(
        "kombu",
        ("t/unit",),
        (
            *("t/unit/test_connection.py", "t/unit/test_messaging.py", "t/unit/test_pidbox.py", "t/unit/test_pools.py"),
            "t/unit/transport/test_pyamqp.py",
        ),
    ),
    Suite(
        "celery",
        ("t/unit/app", "t/unit/tasks", "t/unit/worker"),
        ("t/unit/app/test_amqp.py", "t/unit/app/test_control.py", "t/unit/tasks/test_tasks.py"),
        ("celery.contrib.pytest",),
    ),
)


@dataclass(frozen=True)
class Peers:
    """The tests of one set of versions, and the Python that has the libraries and what their tests import."""

    python: Path
    sources: Path  # a folder for each package

    @property
    def versions(self) -> str:
        """The releases, as a heading: "amqp 5.4.2, celery 5.4.0, kombu 5.7.0"."""
        return ", ".join(sorted(path.name.replace("-", " ") for path in self.sources.iterdir()))

    def folder(self, package: str) -> Path:
        """Return where a library's tests are run from."""
        return next(self.sources.glob(f"{package}-*"))


def fetch(lock: Lock) -> Peers:
    """Return the tests for a lock file of the small Plane, fetched if need be. LabError if pip can't."""
    interpreter, pins = images.find_python(images.PYTHON), images.PLANE / f"{lock}.txt"
    content = pins.read_bytes() + TOOLS.read_bytes()
    digest = hashlib.sha256(content + f"{NEEDED} {interpreter}".encode()).hexdigest()[:12]
    root = cache.folder("peers", f"{lock}-py{interpreter.version}-{digest}")
    python, sources = root / "venv/bin/python", root / "sources"

    def install(path: Path) -> None:
        # Where both lists have a package, the second's version is taken: none of those is a library under test.
        images.venv(path, interpreter, "--require-hashes", "-r", pins)
        images.run(path / "bin/python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", TOOLS)

    def unpack(path: Path) -> None:
        wanted, fetched = root / "sources.txt", root / "fetched"
        wanted.write_text("".join(_entries(pins.read_text(), suite.package) for suite in SUITES))
        options = ("--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes")
        images.run(python, "-m", "pip", "download", *options, "--dest", fetched, "-r", wanted)
        path.mkdir()
        for archive in fetched.glob("*.tar.gz"):
            _extract(archive, path)

    cache.made(root / "venv", install, what=f"a Python for the peers' tests ({lock})", takes="about 30 s")
    cache.made(sources, unpack, what=f"the peers' tests ({lock})", takes="about 20 s")
    return Peers(python, sources)


def _entries(pins: str, package: str) -> str:
    """Return what a lock file says of a package: its releases for each Python, with their hashes."""
    return "".join(re.findall(rf"^{package}==.*\n(?:    --hash.*\n)+", pins, re.MULTILINE))


def _extract(archive: Path, path: Path) -> None:
    with tarfile.open(archive) as source:
        chosen = [
            each for each in source.getmembers() if each.name.split("/")[1:2] and each.name.split("/")[1] in NEEDED
        ]
        source.extractall(path, chosen, filter="data")
