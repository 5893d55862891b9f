"""Another vendor's mutating webhook, as small as one can be: a server with TLS, and what registers it."""

from __future__ import annotations

import base64
import json
import ssl
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import trustme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab.pods import Pod

Operations = list[dict[str, Any]]


@contextmanager
def neighbour(patch: Callable[[Pod], Operations], folder: Path, host: str = "127.0.0.1") -> Iterator[dict[str, Any]]:
    """Answer each review with the JSON Patch operations that `patch` returns for the pod.

    Yield the clientConfig that leads there; a `host` of a Service's name is one that the certificate is for.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["content-length"])))
            request = review.pop("request")
            review["response"] = {
                "uid": request["uid"],
                "allowed": True,
                "patchType": "JSONPatch",
                "patch": base64.b64encode(json.dumps(patch(request["object"])).encode()).decode(),
            }
            body = json.dumps(review).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    authority = trustme.CA()
    authority.issue_cert(host).private_key_and_cert_chain_pem.write_to_path(str(folder / "neighbour.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "neighbour.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield {
            "url": f"https://127.0.0.1:{server.server_address[1]}/",
            "caBundle": base64.b64encode(authority.cert_pem.bytes()).decode(),
        }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def registration(name: str, client_config: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return its registration `name`, for all pods that are created in namespaces with the label `lab: NAME`."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    webhook = {
        "name": f"{name}.lab.test",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"lab": name}},
        "clientConfig": client_config,
        **more,
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [webhook],
    }
