"""Plane's "image": a Python with Plane's requirements, as a folder that a container mounts at /usr/local.

Like Plane's image it has `python`, `gunicorn` and `celery` in /usr/local/bin and the project in /code. It is made with
venv and pip from a lock file with hashes, once for each lock file and Python, and never changed afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lab import cache
from lab.cache import LabError, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PLANE = Path(__file__).parent / "plane"
PYTHON = "3.12"  # Plane's

Lock = Literal["requirements", "requirements-oldest", "requirements-newest"]

RECIPE = 1  # counted up when what `_make` makes changes: the cache's folders carry it
SCRIPTS = {"gunicorn": "gunicorn.app.wsgiapp:run", "celery": "celery.__main__:main"}


@dataclass(frozen=True)
class Interpreter:
    """A Python to build on: where it is installed and which one it is ("3.12.1")."""

    executable: Path
    prefix: Path
    version: str


@dataclass(frozen=True)
class Image:
    """What a container runs in. `prefix` is where `root` appears in it."""

    root: Path
    prefix: str
    interpreter: Interpreter
    code: Path = PLANE
    workdir: str = "/code"
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ("./bin/docker-entrypoint-api.sh",)  # for charts that set no command
    env: Mapping[str, str] = field(default_factory=dict)

    def with_env(self, **variables: str) -> Image:
        """Return the image with more variables of its own: whatever the pod sets wins over them."""
        return replace(self, env={**self.env, **variables})


def build(lock: Lock = "requirements", python: str = PYTHON) -> Image:
    """Return the image of a lock file of the small Plane and a Python, made if need be (about 20 s).

    Where there is no such Python it is the one that runs this, and a line says so. LabError if pip fails.
    """
    interpreter = find_python(python)
    pins, prefix = PLANE / f"{lock}.txt", mount_point(interpreter)
    digest = hashlib.sha256(pins.read_bytes() + f"{RECIPE} {prefix} {interpreter}".encode()).hexdigest()[:12]
    root = cache.folder("image", f"{lock}-py{interpreter.version}-{digest}") / "root"
    cache.made(
        root,
        lambda path: _make(path, interpreter, pins, prefix),
        what=f"image of {pins.name} on Python {interpreter.version}",
        takes="about 20 s",
    )
    env = variables(prefix) | {"BIND_HOST": "127.0.0.1"}  # the lab's containers share the host's network
    return Image(root=root, prefix=prefix, interpreter=interpreter, env=env)


def mount_point(interpreter: Interpreter) -> str:
    """Return where a container has an image of that Python: one that is installed there itself must stay visible."""
    return "/opt/plane" if interpreter.prefix.is_relative_to("/usr/local") else "/usr/local"


def variables(prefix: str) -> dict[str, str]:
    """Return the variables of any image that a container has at `prefix`."""
    return {
        "PATH": f"{prefix}/bin:/usr/local/sbin:/usr/local/bin:/bin:/usr/sbin:/usr/bin:/sbin",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def find_python(version: str) -> Interpreter:
    """Return an installed Python of that minor version, or the running one if there is none."""
    for candidate in _candidates(version):
        found = _asked(candidate)
        if found is not None and found.version.rsplit(".", 1)[0] == version:
            return found
    say(f"there is no python{version} here (on PATH or from pyenv): taking the running {sys.version.split()[0]}")
    running = _asked(sys.executable)
    if running is None:
        raise LabError(f"{sys.executable} doesn't answer")
    return running


def _candidates(version: str) -> Iterator[str]:
    if on_path := shutil.which(f"python{version}"):
        yield on_path  # may be a pyenv shim, which answers only for selected versions
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False).stdout.strip()
        yield from map(str, sorted(Path(root, "versions").glob(f"{version}.*/bin/python{version}"), reverse=True))
    yield sys.executable


def _asked(executable: str) -> Interpreter | None:
    """Return what a Python says about itself; None if it doesn't run."""
    ask = (
        "import json, platform, sys; print(json.dumps([getattr(sys, '_base_executable', sys.executable), "
        "sys.base_prefix, platform.python_version()]))"
    )
    run = subprocess.run([executable, "-I", "-c", ask], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        return None
    path, prefix, version = json.loads(run.stdout)
    return Interpreter(Path(path), Path(prefix), version)


def _make(root: Path, interpreter: Interpreter, pins: Path, prefix: str) -> None:
    venv(root, interpreter, "--require-hashes", "-r", pins)
    finish(root, prefix)


def venv(root: Path, interpreter: Interpreter, *wanted: str | Path) -> None:
    """Make a virtual environment with what pip is asked for. LabError if that fails."""
    run(interpreter.executable, "-m", "venv", root)
    run(root / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)


def finish(root: Path, prefix: str) -> None:
    """Make an environment fit for a container that has it at `prefix`, whatever user that runs as."""
    for name, entry in SCRIPTS.items():
        # pip's own scripts name the folder that they were installed in; these name where the container has it.
        module, attribute = entry.split(":")
        script = root / "bin" / name
        script.write_text(
            f"#!{prefix}/bin/python\nimport sys\nfrom {module} import {attribute}\nsys.exit({attribute}())\n"
        )
        script.chmod(0o755)
    for folder, _, _ in os.walk(root):  # readable for any user of a container, whatever our umask
        Path(folder).chmod(0o755)


def run(*argv: str | Path) -> None:
    """Run a program to its end. LabError with what it said if it fails."""
    ran = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise LabError(f"`{' '.join(map(str, argv))}` failed:\n{ran.stdout}{ran.stderr}")
