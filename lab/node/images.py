"""Images for the node, made from folders and from what Debian packages have installed on this machine.

An image is layers and a configuration, as the OCI image specification has them. Layers are made once, into the cache,
and are the same bytes whenever they are made of the same files. Nothing is fetched.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cache
from lab.packages import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lab.container import Shell
    from lab.images import Image as Plane
    from lab.images import Interpreter

RECIPE = 4  # counted up when what the functions below put into a layer changes: the cache's folders carry it
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
# What wheels for Linux may expect of a machine, beside what Python itself loads.
WHEELS = ("libgcc_s.so.1", "libstdc++.so.6", "libdl.so.2", "librt.so.1", "libutil.so.1", "libpthread.so.0")
_LEFT_OUT = re.compile(r"/(test|idlelib|tkinter|turtledemo|ensurepip|config-[^/]*|[^/]*\.a)(/|$)")


@dataclass(frozen=True)
class Layer:
    """A tar file, named by its SHA-256."""

    file: Path

    @property
    def digest(self) -> str:
        return f"sha256:{self.file.name}"


@dataclass(frozen=True)
class Image:
    """Layers, lowest first, and how a container of them runs where its pod doesn't say."""

    layers: Sequence[Layer]
    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    workdir: str = "/"

    def config(self) -> bytes:
        """Return its configuration, as a registry serves it."""
        run = {"Env": [f"{key}={value}" for key, value in self.env.items()], "WorkingDir": self.workdir}
        run |= {"Entrypoint": [*self.entrypoint], "Cmd": [*self.cmd], "User": self.user}
        kind = {"architecture": _ARCHITECTURES[platform.machine()], "os": "linux"}
        rootfs = {"type": "layers", "diff_ids": [layer.digest for layer in self.layers]}
        return json.dumps({**kind, "config": run, "rootfs": rootfs}).encode()

    def manifest(self) -> bytes:
        """Return its manifest, as a registry serves it."""
        config = self.config()
        described = {"mediaType": _CONFIG, "digest": digest(config), "size": len(config)}
        layers = [
            {"mediaType": _LAYER, "digest": layer.digest, "size": layer.file.stat().st_size} for layer in self.layers
        ]
        return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}).encode()

    def blobs(self) -> dict[str, Path | bytes]:
        """Return by digest what its manifest names."""
        return {digest(self.config()): self.config(), **{layer.digest: layer.file for layer in self.layers}}


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def busybox() -> Image:
    """Return Debian's static busybox under all its names."""
    only = layer("busybox", stamp(program("busybox")), lambda tree: tree.busybox())
    return Image([only], cmd=("sh",), env={"PATH": "/bin"})


def pause() -> Image:
    """Return what every pod's sandbox runs: a process that does nothing."""
    return Image(busybox().layers, entrypoint=("/bin/sleep", "2147483647"), user="65535:65535")


def standin() -> Image:
    """Return what stands for Plane's other images: both of the charts' commands serve nothing on port 8000."""

    def fill(tree: Tree) -> None:
        for path in ("usr/bin/node", "usr/bin/entrypoint-api.sh"):
            tree.write(path, "#!/bin/sh\nexec busybox httpd -f -p 8000 -h /home\n")
        tree.write("home/index.html", "")

    return Image([_userland("busybox"), layer("standin", "1", fill)], env={"PATH": "/usr/bin"})


def plane(image: Plane, shell: Shell) -> Image:
    """Return the small Plane's image as a real one, with that shell as /bin/sh. Its entrypoints ask for bash too."""
    key = image.root.parent.name
    root = layer("plane", f"{key}-{stamp(*files(image.code))}", lambda tree: _plane(tree, image))
    env = {key: value for key, value in image.env.items() if key != "BIND_HOST"}  # that is for containers on loopback
    layers = [python(image.interpreter), root, _userland(shell)]
    return Image(layers, image.entrypoint, image.cmd, env, workdir=image.workdir)


def _plane(tree: Tree, image: Plane) -> None:
    tree.add(image.root, image.prefix.lstrip("/"))
    tree.add(image.code, image.workdir.lstrip("/"))


def python(interpreter: Interpreter) -> Layer:
    """Return a layer with that Python and the libraries that it and common wheels load."""

    def fill(tree: Tree) -> None:
        prefix = interpreter.prefix
        if prefix == Path("/usr"):  # the machine's own: of /usr only what is Python's
            for path in (*prefix.glob("bin/python3*"), *prefix.glob("lib/python3*")):
                tree.add(path, str(path).lstrip("/"))
        else:
            tree.add(prefix / "bin", str(prefix / "bin").lstrip("/"))
            for path in sorted((*prefix.glob("lib/lib*.so*"), *prefix.glob("lib/python3*/*"))):
                if path.name != "site-packages" and not _LEFT_OUT.search(f"/{path}"):  # environments have their own
                    tree.add(path, str(path).lstrip("/"))
        tree.libraries([interpreter.executable.resolve(), *prefix.glob("lib/python3*/lib-dynload/*.so")])
        tree.libraries(wheels := [Path(found) for found in map(_library, WHEELS) if found])
        for library in wheels:
            tree.add(library.resolve(), str(library.parent.resolve() / library.name).lstrip("/"))

    return layer("python", f"{interpreter.version}-{stamp(interpreter.executable)}", fill)


def _userland(shell: Shell) -> Layer:
    """Return a layer with bash, that shell as sh, and the usual commands: busybox's, or Debian's coreutils."""
    commands = [Path(program(name)).resolve() for name in ("bash", "dash")]
    if shell != "busybox":
        listed = subprocess.run(["dpkg", "-L", "coreutils"], capture_output=True, text=True, check=True).stdout
        commands += [Path(line) for line in listed.split() if re.match(r"(/usr)?/bin/", line)]
        commands += [Path(program(name)) for name in ("grep", "gzip", "sed", "tar")]

    def fill(tree: Tree) -> None:
        for command in commands:
            tree.add(command, f"usr/bin/{command.name}")
        if shell == "busybox":
            tree.busybox(but=("bash", "dash"))
        else:
            tree.link("usr/bin/sh", shell)
        tree.libraries(commands)

    return layer(f"userland-{shell}", stamp(program("busybox"), *commands), fill)


class Tree:
    """A layer in the making: files of this machine at paths of the image, root's, with times, for bytecode."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._there: set[str] = set()
        for path, text in _ACCOUNTS.items():
            self._put(_info(path, tarfile.REGTYPE, 0o644), text.encode())
        for path in ("tmp", "var/tmp"):
            self._put(_info(path, tarfile.DIRTYPE, 0o1777))
        for path in ("proc", "sys", "dev", "root"):
            self._put(_info(path, tarfile.DIRTYPE, 0o755))
        for path in ("bin", "sbin", "lib", "lib64"):
            self._put(_info(f"usr/{path}", tarfile.DIRTYPE, 0o755))
            self.link(path, f"usr/{path}")

    def add(self, source: Path, path: str) -> None:
        """Add a file, a link or a folder with all that is in it."""
        if source.is_symlink():
            self.link(path, str(source.readlink()))
        elif source.is_dir():
            self._put(_info(path, tarfile.DIRTYPE, 0o755))
            for each in sorted(source.iterdir()):
                if not _LEFT_OUT.search(f"/{path}/{each.name}"):
                    self.add(each, f"{path}/{each.name}")
        elif source.is_file():
            info = _info(path, tarfile.REGTYPE, 0o755 if os.access(source, os.X_OK) else 0o644)
            info.mtime = int(source.stat().st_mtime)
            self._put(info, source.read_bytes())

    def write(self, path: str, text: str) -> None:
        """Add a file that anyone may run."""
        self._put(_info(path, tarfile.REGTYPE, 0o755), text.encode())

    def link(self, path: str, target: str) -> None:
        self._put(_info(path, tarfile.SYMTYPE, 0o777, target))

    def busybox(self, *, but: Sequence[str] = ()) -> None:
        """Add busybox under all its names but some."""
        real = Path(program("busybox"))
        self.add(real, "usr/bin/busybox")
        listed = subprocess.run([real, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for name in sorted({*listed} - {"busybox", *but}):
            self.link(f"usr/bin/{name}", "busybox")

    def libraries(self, files: Iterable[Path]) -> None:
        """Add the shared libraries that the files load, where the machine has them."""
        for library in _loaded(files):
            # Debian's /lib is a link to /usr/lib: an image's must not be a folder in its place.
            self.add(library.resolve(), str(library.parent.resolve() / library.name).lstrip("/"))

    def _put(self, info: tarfile.TarInfo, content: bytes = b"") -> None:
        if info.name not in self._there:
            self._there.add(info.name)
            info.size = len(content)
            self._tar.addfile(info, BytesIO(content))


def layer(name: str, version: str, fill: Callable[[Tree], None]) -> Layer:
    def make(folder: Path) -> None:
        folder.mkdir()
        with tarfile.open(folder / "layer", "w", format=tarfile.PAX_FORMAT) as tar:
            fill(Tree(tar))
        with (folder / "layer").open("rb") as made:
            named = hashlib.file_digest(made, "sha256").hexdigest()
        (folder / "layer").rename(folder / named)

    place = cache.folder("node-layer", f"{name}-{RECIPE}-{version}") / "layer"
    cache.made(place, make, what=f"image layer {name}", takes="some seconds")
    (file,) = place.iterdir()
    return Layer(file)


def _info(path: str, kind: bytes, mode: int, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.linkname = kind, mode, target
    return info


def _loaded(files: Iterable[Path]) -> Iterator[Path]:
    asked = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False)  # 1 where one is static
    found = re.findall(r"(?:=>\s+|^\s+)(/\S+) \(0x", asked.stdout, re.MULTILINE)
    yield from map(Path, dict.fromkeys(found))


def _library(name: str) -> str | None:
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    found = re.search(rf"^\s+{re.escape(name)} .*=> (\S+)$", known, re.MULTILINE)
    return found[1] if found else None


def files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)


def stamp(*files: str | Path) -> str:
    """Return a short name for the present content of files."""
    known = [(str(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in files]  # noqa: PTH116
    return hashlib.sha256(repr((known, sys.byteorder)).encode()).hexdigest()[:12]
