"""A registry as people publish to: Debian's docker-registry, over TLS, for whoever knows the password."""

from __future__ import annotations

import shutil
import ssl
import tempfile
from base64 import b64encode
from pathlib import Path

import httpx
import trustme

from lab.packages import program
from lab.process import Process, Startable, free_port, wait_for

USER, PASSWORD = "somebody", "secret"
HASHED = "$2b$04$Caf84wjq/tys1EI9ZLfwOupGDTRAC7E43GN./uYLJyrQp00q/2z/y"  # it takes bcrypt's only
# What a manifest may be: a registry that isn't told answers with an old kind, or with none.
KINDS = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"


class Registry(Startable):
    """`with` starts it on a port of loopback, empty, and leaves nothing.

    `host` is what comes first in its images' names; `trust` is a file with who signed its certificate.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="plane-webhook-registry-"))
        self.trust = self.folder / "ca.pem"

    def start(self) -> None:
        port = free_port()
        self.host = f"localhost:{port}"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.trust)
        pair = authority.issue_cert("localhost").private_key_and_cert_chain_pem
        pair.write_to_path(self.folder / "tls.pem")
        users = self.folder / "users"
        users.write_text(f"{USER}:{HASHED}\n")
        file = self.folder / "config.yml"
        file.write_text(
            f"""\
version: 0.1
storage: {{filesystem: {{rootdirectory: {self.folder / "storage"}}}}}
http: {{addr: "127.0.0.1:{port}", tls: {{certificate: {self.folder / "tls.pem"}, key: {self.folder / "tls.pem"}}}}}
auth: {{htpasswd: {{realm: here, path: {users}}}}}
"""
        )
        basic = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        self._client = httpx.Client(
            base_url=f"https://{self.host}/v2/",
            headers={"authorization": f"Basic {basic}", "accept": KINDS},
            verify=ssl.create_default_context(cafile=self.trust),
            trust_env=False,
        )
        self._process = Process([program("docker-registry"), "serve", file], log=self.folder / "registry.log")
        wait_for(self._answers, 30, "the registry answers", need=[self._process])

    def close(self) -> None:
        if hasattr(self, "_process"):
            self._process.stop()
            self._client.close()
        shutil.rmtree(self.folder)

    def digest(self, repository: str, tag: str) -> str | None:
        """Return the digest of what a tag names; None where there is no such tag."""
        answer = self._client.head(f"{repository}/manifests/{tag}")
        return answer.headers["docker-content-digest"] if answer.is_success else None

    def _answers(self) -> bool:
        try:
            return self._client.get("").is_success
        except httpx.TransportError:
            return False
