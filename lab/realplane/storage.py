"""What stands for the object storage, and for whoever takes Plane's webhooks: says 200 to all and stores nothing.

Of a webhook it keeps what happened to what; of the rest nothing. It must never listen beyond loopback.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

# Not the address that the lab's Planes have: one takes no webhook to the host that it is asked by.
HOST = "127.0.0.2"
HOOK = "/hook"  # where webhooks are posted to


class Storage:
    """A server on a free port of loopback. Use it as a context manager."""

    def __init__(self) -> None:
        self.webhooks: list[str] = []  # event, action and id, in the order of arrival
        webhooks = self.webhooks

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path == HOOK:
                    told = json.loads(body)
                    webhooks.append(f"{told['event']} {told['action']} {told['data']['id']}")
                self.send_response(200)
                self.send_header("ETag", '"0"')
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                """Say nothing: nobody reads it."""

        self._server = ThreadingHTTPServer((HOST, 0), Answer)
        self._server.daemon_threads = True
        self.url = f"http://{HOST}:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="storage", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
