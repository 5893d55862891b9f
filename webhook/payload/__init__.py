"""The files that run inside Plane's container. They run on busybox, dash and bash and on Python 3.8 and newer.

`FILES` is what the guard unpacks into the container, by its path there: the sources without most of what
only their authors need, for every pod carries them. `PACKED` is all of it as one word of a command: tar, gzip, base64, the same
bytes for the same files.
"""

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
# By text, not by its syntax tree: to make one of each file would take a twentieth of the webhook's start.
_OPENING = re.compile(r'\A("""[^\n]*)(?<!""")\n(?:(?!""").)*"""\n', re.DOTALL)
_DOCSTRING = re.compile(r'(?<=:\n)( +)"""(?:(?!""").)*"""\n(?=\1\S)', re.DOTALL)  # if it is not all that there is


def _text(file: Traversable) -> str:
    return file.read_text(encoding="utf-8")


def lean(text: str) -> str:
    """A source as it travels: no comment, no empty line, of a module's docstring its first line, and no other.

    The rest is as it was written, names and layout too. A shell script keeps its first two lines, which say what it is; a
    Python program its head, which is one for the shell. No text may look like a comment or a docstring here, nor have
    empty lines.
    """
    lines = text.splitlines()
    head = 0
    if text.startswith("#!"):
        head = lines.index("") if '"""' in text else 2
    bare = filter(None, (_COMMENT.sub("", line) for line in lines[head:]))
    body = _DOCSTRING.sub("", _OPENING.sub(r'\1"""\n', "".join(f"{line}\n" for line in bare)))
    return "".join(f"{line}\n" for line in lines[:head]) + body


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
