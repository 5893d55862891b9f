"""A request for /mutate and its answer on a connection: without ASGI, for there is nothing to wait for but bytes.

The answer is made and written in the call that brings the review's last byte. With a scope, a task and messages, as
uvicorn has them for everything else, each review would take the processor a quarter more time.
"""

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any, ClassVar

from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from webhook.server.limits import Limits
from webhook.server.mutate import PATH, Mutate
from webhook.server.protocol import BoundedProtocol
from webhook.server.refusal import Refused


class Exchange:
    """One request, where uvicorn has a `RequestResponseCycle`: what uvicorn looks at of one has the same name here."""

    message_event: ClassVar = asyncio.Event()  # by which uvicorn wakes an application; none waits for this one

    def __init__(self, mutate: Mutate, *, method: bytes, keep_alive: bool) -> None:
        self._mutate = mutate
        self.method = method
        self.keep_alive = keep_alive
        self.more_body = True
        self.response_started = self.response_complete = self.disconnected = False
        self.began = perf_counter()
        self.refused: Refused | None = None
        self.size = 0
        self._pieces: list[bytes] = []
        mutate.begin()

    @property
    def ready(self) -> bool:
        """Whether it can be answered."""
        return not self.more_body or self.refused is not None

    @property
    def body(self) -> bytes:
        """All of it. Nearly all come in one piece, which is not copied."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body, unless it is refused."""
        if self.refused:
            return
        self._pieces.append(piece)
        self.size += len(piece)
        try:
            self._mutate.take(len(piece), self.size)
        except Refused as refused:
            self.refused = refused

    def end(self) -> None:
        """Give back what it held, when it is answered or its client has gone."""
        self._mutate.end(self.size)
        self._pieces.clear()
        self.response_complete = True


class ReviewProtocol(BoundedProtocol):
    """A connection on which reviews are answered here, and all else by the ASGI application."""

    mutate: ClassVar[Mutate]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turn: Exchange | None = None  # of the requests on this connection, the one that is to be answered next

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what its requests held."""
        for each in {self._turn, self.cycle, *(cycle for cycle, _ in self.pipeline)}:
            if isinstance(each, Exchange) and not each.response_complete:
                each.end()
        self._turn = None
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Take the head of a request."""
        if self.url.partition(b"?")[0] != PATH:
            super().on_headers_complete()
            return
        before = self.cycle
        method = self.parser.get_method()
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        self.cycle = exchange = Exchange(self.mutate, method=method, keep_alive=keep_alive)  # type: ignore[assignment]
        try:
            self.mutate.check_head(method, self.headers)
        except Refused as refused:
            exchange.refused = refused
        if before is None or before.response_complete:
            self._turn = exchange
            if self.expect_100_continue and not exchange.refused:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._advance()
        else:  # sent without waiting for the answer to the one before
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if not isinstance(self.cycle, Exchange):
            super().on_body(body)
            return
        self.count_body(body)
        if not self.cycle.response_complete:
            self.cycle.feed(body)
            self._advance()

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        super().on_message_complete()
        self._advance()

    def resume_writing(self) -> None:
        """Go on when the client has taken enough of what was written."""
        super().resume_writing()
        self._advance()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Begin with a request that waited for the one before: not here and now, for thousands may wait."""
        if isinstance(cycle, Exchange):
            self._turn = cycle
            self.loop.call_soon(self._advance)
        else:
            super()._start_asgi_task(cycle, app)

    def _advance(self) -> None:
        """Answer the request whose turn it is, if all of it is there and the client takes what is written."""
        exchange = self._turn
        if exchange is None or not exchange.ready or self.flow.write_paused or self.transport.is_closing():
            return
        self._turn = None
        try:
            if exchange.refused:
                raise exchange.refused
            answer = self.mutate.answer(exchange.body)
        except Refused as refused:
            self.mutate.report_refusal(refused)
            # What is left of the body is of no use to anyone: hang up.
            exchange.keep_alive = False
            body = b"" if exchange.method == b"HEAD" else refused.body
            self._respond(exchange, refused.status, (body,), *refused.headers)
        else:
            self._respond(exchange, 200, answer.parts)
            self.mutate.report(answer, exchange.size, perf_counter() - exchange.began)

    def _respond(self, exchange: Exchange, status: int, parts: Sequence[bytes], *headers: bytes) -> None:
        always = self.server_state.default_headers
        close = not exchange.keep_alive or CLOSE_HEADER in always
        head = b"".join(
            (
                STATUS_LINE[status],
                *(b"%s: %s\r\n" % each for each in always if each != CLOSE_HEADER),
                b"content-type: application/json\r\ncontent-length: %d\r\n" % sum(map(len, parts)),
                *headers,
                b"connection: close\r\n\r\n" if close else b"\r\n",
                parts[0],
            )
        )
        self.transport.writelines((head, *parts[1:]))
        exchange.end()
        if close:
            self.transport.close()
        self.on_response_complete()


def answering(mutate: Mutate, limits: Limits) -> type[ReviewProtocol]:
    """Return the protocol with this endpoint and these limits: uvicorn makes its connections from a class."""
    return type("Protocol", (ReviewProtocol,), {"mutate": mutate, "limits": limits})
