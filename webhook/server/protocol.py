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
        self._idle_since: float | None = self.loop.time()
        self._look_again_in(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._disarm()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
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

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for one.

        In place of uvicorn's, which makes a timer for each answer, and reads on while requests are waiting.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        following = self.pipeline.pop() if self.pipeline else None
        if not self.pipeline:
            self.flow.resume_reading()
        if following:
            self._start_asgi_task(*following)
        else:
            self._idle_since = self.loop.time()

    def timeout_keep_alive_handler(self) -> None:
        """Hang up if it is time, else come again when it may be: one timer serves a connection for all its requests."""
        now = self.loop.time()
        left = self.timeout_keep_alive if self._idle_since is None else self._idle_since + self.timeout_keep_alive - now
        if left > 0:
            self._look_again_in(left)
        else:
            super().timeout_keep_alive_handler()

    def _look_again_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """Called by uvicorn when bytes have come."""
        self._idle_since = None

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
