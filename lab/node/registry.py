"""The node's image registry: what its container engine asks for every image, whatever registry the image's name says.

So an image that isn't there is a real pull error, and no request leaves the node. It only reads.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from lab.node.images import MANIFEST, Image, digest

if TYPE_CHECKING:
    import socket

    from lab.oci import Layout


class Registry:
    """Serves images over HTTP on a listening socket. May be added to at any time."""

    def __init__(self, at: socket.socket) -> None:
        self._names: dict[str, str] = {}  # repository:tag -> digest of a manifest
        self._blobs: dict[str, Path | bytes] = {}
        self._server = ThreadingHTTPServer(at.getsockname(), _Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = at
        self._server.daemon_threads = True
        self._server.find = self.find  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, daemon=True, name="lab-registry").start()

    def add(self, name: str, image: Image | Layout) -> None:
        """Have an image under a name of the form REPOSITORY:TAG, without a registry's host."""
        manifest = image.manifest()
        self._blobs.update(image.blobs())
        self._blobs[digest(manifest)] = manifest
        self._names[name] = digest(manifest)

    def find(self, repository: str, kind: str, reference: str) -> tuple[str, Path | bytes] | None:
        """Return the digest and the content of a manifest or a blob."""
        if kind == "manifests" and not reference.startswith("sha256:"):
            reference = self._names.get(f"{repository}:{reference}", "")
        content = self._blobs.get(reference)
        return None if content is None else (reference, content)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """The part of the OCI distribution specification that pulling an image needs."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/").split("/")
        if path == ["v2"]:
            self._answer(200, "application/json", b"{}")
            return
        *repository, kind, reference = path[1:] if len(path) > 3 else ("", "", "")
        found = self.server.find("/".join(repository), kind, reference)  # type: ignore[attr-defined]
        if found is None:
            unknown = {"code": "MANIFEST_UNKNOWN", "message": "the node's registry has no such image"}
            self._answer(404, "application/json", json.dumps({"errors": [unknown]}).encode())
        else:
            self._answer(200, MANIFEST if kind == "manifests" else "application/octet-stream", found[1], found[0])

    do_HEAD = do_GET  # noqa: N815 - the names are the base class's

    def log_message(self, *_: object) -> None:
        """Say nothing: containerd's log has what was pulled."""

    def _answer(self, code: int, kind: str, content: Path | bytes, named: str = "") -> None:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        if named:
            self.send_header("Docker-Content-Digest", named)
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(content, bytes):
            self.wfile.write(content)
        else:
            with content.open("rb") as file:
                self.wfile.flush()
                self.connection.sendfile(file)
