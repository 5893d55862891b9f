"""The image of a real Plane: a Python with what the checkout's own requirements say, and the checkout's API as /code.

The list has no hashes, so none can be checked. One package of it is left out: psycopg-c, the same driver as
psycopg-binary beside it, which would have to be compiled here against libpq; without it psycopg takes the binary one.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cache, images
from lab.cache import LabError
from lab.images import Image

if TYPE_CHECKING:
    from lab.images import Interpreter

LEFT_OUT = "psycopg-c"
ENTRYPOINT = "bin/docker-entrypoint-api.sh"


def build(checkout: Path) -> Image:
    """Return the image of a checkout, made if need be. LabError if that is no checkout of Plane, or if pip fails."""
    code = (checkout / "apps/api").absolute()
    if not (code / ENTRYPOINT).exists():
        raise LabError(f"{checkout} is no checkout of Plane: {code / ENTRYPOINT} is missing")
    interpreter = images.find_python(images.PYTHON)
    prefix = images.mount_point(interpreter)
    lists = sorted((code / "requirements").glob("*.txt"))
    content = b"".join(path.name.encode() + path.read_bytes() for path in lists)
    digest = hashlib.sha256(content + f"{LEFT_OUT} {prefix} {interpreter}".encode()).hexdigest()[:12]
    root = cache.folder("realplane", f"py{interpreter.version}-{digest}") / "root"
    cache.made(
        root,
        lambda path: _make(path, interpreter, code / "requirements", prefix),
        what="image of the real Plane",
        takes="about 2 minutes",
    )
    return Image(root=root, prefix=prefix, interpreter=interpreter, code=code, env=images.variables(prefix))


def _make(root: Path, interpreter: Interpreter, requirements: Path, prefix: str) -> None:
    lists = root.with_name("requirements")
    shutil.copytree(requirements, lists, dirs_exist_ok=True)
    for path in lists.glob("*.txt"):
        kept = [line for line in path.read_text().splitlines() if not line.startswith(LEFT_OUT)]
        path.write_text("\n".join(kept) + "\n")
    images.venv(root, interpreter, "-r", lists / "production.txt")
    images.finish(root, prefix)
