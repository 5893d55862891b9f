"""The image of plane-webhook, built from the Dockerfile by buildah: no container engine, no registry, no network.

What `docker build` pulls comes from this machine instead: the bases are made of its Debian packages (`debian.py`),
and the Python packages lie in a folder that pip filled before, held to the lock files' hashes. So the Python is
Debian's, and the rest is what a user builds. `python -m lab.ourimage` builds it and prints where it is.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cache, debian
from lab.cache import LabError, say
from lab.images import run
from lab.oci import Layout
from lab.packages import ensure_packages, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[1]
LOCKS = ("requirements/build.txt", "requirements/runtime.txt")
CONTEXT = ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE", *LOCKS, "webhook", "certs")

# Debian's Python for the Dockerfile's two: the one that builds needs a shell for RUN, the one that runs has none.
BASES = {"PYTHON": ("python3", "python3-venv", "dash"), "BASE": ("python3",)}
RECIPE = 1  # counted up when what this module makes changes
PIP = "[install]\nno-index = true\nfind-links = /wheels\n"


def image() -> Layout:
    """Return the image of this tree, built if need be (about 30 s, and 20 s more for the packages the first time).

    LabError says what is missing where it can't be built: Debian, root, or buildah.
    """
    taken = packages()
    path = cache.folder("webhook-image", _digest(taken)) / "oci"
    cache.made(path, lambda folder: build(folder, taken), what="image of plane-webhook", takes="about 30 s")
    return Layout(path)


def build(layout: Path, taken: dict[str, list[debian.Package]] | None = None) -> Layout:
    """Build it anew, whatever the cache has, and return it as an OCI layout in the folder `layout`."""
    taken = taken or packages()
    wheels = _wheels(taken)
    with _buildah() as buildah, tempfile.TemporaryDirectory(prefix="plane-webhook-base-") as temporary:
        bases = []
        for name, of_debian in taken.items():
            root = Path(temporary, name)
            debian.make(root, of_debian)
            file = root.with_suffix(".Dockerfile")
            file.write_text("FROM scratch\nCOPY . /\n")
            buildah("build", "--timestamp=0", f"--file={file}", f"--tag=lab/{name.lower()}", root)
            bases.append(f"--build-arg={name}=localhost/lab/{name.lower()}")
        pip = Path(temporary, "pip.conf")
        pip.write_text(PIP)
        given = [f"--secret=id=pip.conf,src={pip}", f"--volume={wheels}:/wheels:ro"]
        buildah("build", "--isolation=chroot", "--timestamp=0", *given, *bases, "--tag=plane-webhook", REPOSITORY)
        buildah("push", "--disable-compression", "plane-webhook", f"oci:{layout}:plane-webhook")
    return Layout(layout)


def packages() -> dict[str, list[debian.Package]]:
    """Return the Debian packages of each base; LabError says why no image can be built here, where none can."""
    ensure_packages("buildah", "python3-venv", "dash")
    return {name: debian.closure(wanted) for name, wanted in BASES.items()}


def _digest(taken: dict[str, list[debian.Package]]) -> str:
    """Return a name for all that goes into the image."""
    found = hashlib.sha256(f"{RECIPE} {taken} {PIP}".encode())
    for name in CONTEXT:
        path = REPOSITORY / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                found.update(f"{file.relative_to(REPOSITORY)} {file.stat().st_mode} ".encode() + file.read_bytes())
    return found.hexdigest()[:12]


def _wheels(taken: dict[str, list[debian.Package]]) -> Path:
    """Return a folder with the locked packages, built for the base's Python."""
    version = next(package.version for package in taken["BASE"] if package.name == "python3")
    minor = ".".join(version.split(".")[:2])
    locks = [REPOSITORY / name for name in LOCKS]
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:12]

    def download(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder)]
        pip += ["--python-version", minor, "--only-binary=:all:", "--require-hashes"]
        for lock in locks:
            run(*pip, "--requirement", lock)

    path = cache.folder("wheels", f"py{minor}-{digest}") / "all"
    return cache.made(path, download, what=f"packages of the image, for Python {minor}", takes="about 20 s")


@contextmanager
def _buildah() -> Iterator[Callable[..., None]]:
    """Give a buildah with a storage of its own, which goes with it; nothing on this machine is read or written."""
    folder = Path(tempfile.mkdtemp(prefix="plane-webhook-buildah-"))
    argv = [program("buildah"), f"--root={folder / 'root'}", f"--runroot={folder / 'run'}", "--storage-driver=vfs"]
    try:
        yield lambda *words: run(*argv, *words)
    finally:
        shutil.rmtree(folder)


def main() -> int:
    try:
        built = image()
    except LabError as error:
        say(str(error))
        return 2
    print(f"{built.digest} in {built.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
