"""uvicorn's HTTP/1.1 with the bounds that it lacks.

They are: how much of a request may be something else than its body, how long a request may take to arrive, and how
long a connection may stay without any. Decides about connections only, never about what a request means.
"""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from webhook.server.limits import Limits
from webhook.server.refusal import Refused


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A subclass names the limits."""

    limits: ClassVar[Limits]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request as long as for any other: clients dial ahead, and pool what they don't use."""
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
        """Feed the parser, then hold a request that is still arriving to its bounds."""
        self._unfinished = True  # also with bytes that begin no request, such as empty lines
        self._overhead += len(data)
        super().data_received(data)
        if not self._unfinished or self.transport.is_closing():
            self._disarm()
        elif self._overhead > self.limits.head:
            self._refuse(431, f"more than {self.limits.head} bytes of the request are not its body")
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.request_seconds, self._expire)

    def on_message_begin(self) -> None:
        """Take the first byte of a request."""
        self._unfinished = True
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        """Take bytes of the body; whoever reads it counts those."""
        self.count_body(body)
        super().on_body(body)

    def count_body(self, body: bytes) -> None:
        """Tell these bytes from what is no body."""
        self._overhead -= len(body)

    def on_message_complete(self) -> None:
        """Take the last byte of a request."""
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
        """Answer in place of the endpoint, if that has not begun to, and hang up."""
        self._disarm()
        refused = Refused(status, sentence)
        self.logger.warning("connection closed: %s", sentence)
        begun = self.cycle is not None and not self.cycle.response_complete
        if begun:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not (begun and self.cycle.response_started):
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (status, refused.status.phrase.encode(), len(refused.body), refused.body)
            )
        self.transport.close()


def bounded(limits: Limits) -> type[BoundedProtocol]:
    """Return the protocol with these limits: uvicorn makes its connections from a class."""
    return type("Protocol", (BoundedProtocol,), {"limits": limits})
