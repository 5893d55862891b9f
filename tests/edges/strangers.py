"""An API server that says what no well-meant cluster would; the real client asks it over plain HTTP."""

from __future__ import annotations

import json
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import kubernetes.client

from webhook.cluster.api import Api


class Cluster:
    """An API server that has these objects, and nothing else; a POST comes back as it was sent.

    Bytes are handed out as they are, what is called yields parts until nobody listens, and a number is the status of a
    refusal.
    """

    def __init__(self, objects: dict[str, Any]) -> None:
        self.asked: list[str] = []
        self.posted: list[Any] = []
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                cluster.asked.append(self.path)
                found = objects.get(self.path.partition("?")[0], 404)
                if isinstance(found, int):
                    self._answer(found, b'{"message": "no"}')
                elif callable(found):
                    self.send_response(200)
                    self.end_headers()
                    with suppress(OSError):
                        for part in found():
                            self.wfile.write(part)
                else:
                    self._answer(200, found if isinstance(found, bytes) else json.dumps(found).encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                cluster.posted.append(json.loads(body))
                self._answer(201, body)

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Api:
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return api(self._server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def api(port: int) -> Api:
    configuration = kubernetes.client.Configuration()
    configuration.host = f"http://127.0.0.1:{port}"
    return Api(configuration)
