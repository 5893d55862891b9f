"""An OCI image layout (a folder), read: its configuration, its layers, and the root that they make.

https://github.com/opencontainers/image-spec: image-layout.md and layer.md. Only what a builder of ours writes is
handled, one image for one platform; anything else is a LabError.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.cache import LabError

GONE = ".wh."  # a file of this prefix says that a lower layer's file isn't there
HIDDEN = ".wh..wh..opq"  # and this one that nothing of a lower layer's folder is


@dataclass(frozen=True)
class Layout:
    """An image in a folder. `digest` is the one of its manifest: "sha256:...", by which a registry knows it."""

    folder: Path

    @property
    def digest(self) -> str:
        manifests = json.loads((self.folder / "index.json").read_bytes())["manifests"]
        if len(manifests) != 1:
            raise LabError(f"{self.folder} has {len(manifests)} images, and one is expected")
        digest: str = manifests[0]["digest"]
        return digest

    def configuration(self) -> dict[str, Any]:
        """Return what the image says of how it is run: Entrypoint, Cmd, Env, User and so on."""
        configuration: dict[str, Any] = json.loads(self._blob(self._manifest()["config"]["digest"]).read_bytes())
        return configuration["config"]

    def layers(self) -> list[Path]:
        """Return its layers, archives, the base's first."""
        return [self._blob(layer["digest"]) for layer in self._manifest()["layers"]]

    def unpack(self, root: Path) -> None:
        """Make the folder `root` with what a container of the image has. Owners are kept where root does it."""
        root.mkdir()
        for layer in self.layers():
            apply(layer, root)

    def manifest(self) -> bytes:
        """Return its manifest, as a registry serves it."""
        return self._blob(self.digest).read_bytes()

    def blobs(self) -> dict[str, Path]:
        """Return by digest what its manifest names."""
        return {
            f"{kind.name}:{file.name}": file for kind in (self.folder / "blobs").iterdir() for file in kind.iterdir()
        }

    def _manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(self.manifest())
        return manifest

    def _blob(self, digest: str) -> Path:
        return self.folder / "blobs" / Path(*digest.split(":"))


def apply(layer: Path, root: Path) -> None:
    """Put a layer's files on what lower layers left in `root`."""
    with tarfile.open(layer) as archive:
        for member in archive:
            path = root / member.name
            if path.name == HIDDEN:
                raise LabError(f"{layer} hides a whole folder, {member.name}, which isn't handled here")
            if path.name.startswith(GONE):
                _remove(path.with_name(path.name.removeprefix(GONE)))
                continue
            if not member.isdir():
                _remove(path)
            archive.extract(member, root, filter="fully_trusted")  # of our own making; other filters change modes


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
