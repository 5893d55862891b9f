"""uvicorn's HTTP/1.1 with three bounds that it lacks: the size of what isn't body, the time that a request may take to
arrive, and the time that a connection may stay unused.

Decides about connections only, never about what a request means.
"""

import asyncio
import http
import json
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from webhook.server.limits import Limits


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `limits` is set by `bounded`."""

    limits: ClassVar[Limits] = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request as for any later one: clients dial ahead and pool what they don't need."""
        super().connection_made(transport)
        self._unfinished = False
        self._overhead = 0
        self._deadline: asyncio.TimerHandle | None = None
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._disarm()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then hold an unfinished request to its bounds; a finished one costs three assignments."""
        self._unfinished = True
        self._overhead += len(data)
        super().data_received(data)
        if not self._unfinished:
            self._disarm()
        elif self._overhead > self.limits.head:
            self._refuse(431, f"more than {self.limits.head} bytes of this request are not its body")
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.request_seconds, self._expire)

    def on_message_begin(self) -> None:
        """Parser: the first byte of a request."""
        self._unfinished = True
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        """Parser: bytes of the body, which the endpoint counts."""
        self._overhead -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Parser: the last byte of a request."""
        self._unfinished = False
        self._overhead = 0
        super().on_message_complete()

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._refuse(408, f"the request did not arrive within {self.limits.request_seconds:g} seconds")

    def _refuse(self, status: int, sentence: str) -> None:
        self._disarm()
        self.logger.warning("%s: connection closed", sentence)
        if self.cycle is None or not self.cycle.response_started:
            phrase = http.HTTPStatus(status).phrase
            ...
        self.transport.close()
