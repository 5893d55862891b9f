"""The files that run inside Plane's container. They run on busybox, dash and bash and on Python 3.8 and newer.

`FILES` is what the guard unpacks into the container, by its path there: the sources without most of what
only their authors need, for every pod carries them. `PACKED` is all of it as one word of a command: tar, gzip, base64, the same
bytes for the same files.
"""

import ast
import base64
import io
import re
import tarfile
import zlib
from importlib.resources import files
from importlib.resources.abc import Traversable

# Where a program has its place, and what it is here.
EXECUTABLE = {"bin/gunicorn": "shim.sh", "proof": "proof.py", "spool": "spool.sh"}
_COMMENT = re.compile(r"(?:^ *|  )# .*$")  # as we write them


def _text(file: Traversable) -> str:
    return file.read_text(encoding="utf-8")


def lean(text: str) -> str:
    """A source as it travels: no comment, no empty line, of a module's docstring its first line, and no other.

    The rest is as it was written, names and layout too. A shell script keeps its first two lines, which say what it is; a
    Python program its head, which is one for the shell. No text may look like a comment here, nor have empty lines.
    """
    lines = text.splitlines()
    head = 0
    if text.startswith("#!"):
        head = lines.index("") if '"""' in text else 2
    body = lines[head:] if head == 2 else _without_docstrings(lines[head:])
    bare = (_COMMENT.sub("", line) for line in body)
    return "".join(f"{line}\n" for line in (*lines[:head], *filter(None, bare)))


def _without_docstrings(lines: list[str]) -> list[str]:
    module = ast.parse("\n".join(lines))
    opening = module.body[0]
    dropped = set(range(opening.lineno, opening.end_lineno or 0))
    lines[opening.lineno - 1] = lines[opening.lineno - 1].removesuffix('"""') + '"""'
    nodes: list[ast.stmt] = module.body[1:]
    for node in nodes:  # and those inside of it
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            nodes += node.body
            first = node.body[0]
            if ast.get_docstring(node, clean=False) is not None and len(node.body) > 1:
                dropped.update(range(first.lineno - 1, first.end_lineno or 0))
    return [line for row, line in enumerate(lines) if row not in dropped]


def _library(folder: Traversable, path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name != "__pycache__":
            found |= _library(entry, f"{path}/{entry.name}")
        elif entry.name.endswith(".py"):
            found[f"{path}/{entry.name}"] = lean(_text(entry))
    return found


def _packed(texts: dict[str, str]) -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, text in texts.items():
            data = text.encode()
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o555 if path in EXECUTABLE else 0o444
            archive.addfile(info, io.BytesIO(data))
    # zlib writes gzip's head the same on every Python; Python 3.13's module gzip names another system there.
    return base64.b64encode(zlib.compress(buffer.getvalue(), 9, wbits=31)).decode()


_HERE = files(__name__)
# Without the last newline: it is a word of a command.
GUARD = _text(_HERE.joinpath("guard.sh")).rstrip("\n")
FILES: dict[str, str] = {
    **{path: lean(_text(_HERE.joinpath(name))) for path, name in EXECUTABLE.items()},
    **_library(_HERE.joinpath("lib"), "lib"),
}
PACKED = _packed(FILES)
