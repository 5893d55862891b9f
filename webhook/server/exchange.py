"""A request for /mutate and its answer on a connection: without ASGI, for there is nothing to wait for but bytes.

Reviews that came at the same time are answered together, when the event loop has read all of them. With a scope, a task
and messages, as uvicorn has them for everything else, each would take the processor a quarter more time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any, ClassVar

from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from webhook.admission import Answer
from webhook.server.limits import Limits
from webhook.server.mutate import PATH, Mutate
from webhook.server.protocol import BoundedProtocol
from webhook.server.refusal import Refused

# Bytes of a review that isn't kept waiting, and for which none is: it is parsed for longer than others are answered.
_LARGE = 64 << 10


class Exchange:
    """One request, where uvicorn has a `RequestResponseCycle`: what uvicorn looks at of one has the same name here."""

    message_event: ClassVar = asyncio.Event()  # by which uvicorn wakes an application; none waits for this one
    more_body = True
    response_started = response_complete = disconnected = False
    waits = False  # in a batch
    answer: Answer | None = None
    refused: Refused | None = None
    size = 0

    def __init__(self, mutate: Mutate, *, method: bytes, keep_alive: bool) -> None:
        self._mutate = mutate
        self.method = method
        self.keep_alive = keep_alive
        self._began = perf_counter()
        self._pieces: list[bytes] = []
        mutate.begin()

    @property
    def ready(self) -> bool:
        """Whether it can be answered."""
        return not self.more_body or self.refused is not None

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body, unless it is refused."""
        if self.refused:
            return
        self._pieces.append(piece)
        self.size += len(piece)
        try:
            self._mutate.take(len(piece), self.size)
        except Refused as refused:
            self.refuse(refused)

    def refuse(self, why: Refused) -> None:
        """Keep why there is no answer, without its traceback: its frames hold this request, and the whole connection.

        Such a ring is freed by the cyclic collector alone, which comes seldom, and a connection has large buffers.
        """
        self.refused = Refused(why.status, why.sentence)

    def decide(self) -> None:
        """Find the answer, unless it is refused."""
        if self.refused:
            return
        # Nearly all come in one piece, which is not copied.
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        try:
            self.answer = self._mutate.answer(body)
        except Refused as refused:
            self.refuse(refused)

    @property
    def response(self) -> tuple[int, Sequence[bytes], Sequence[bytes]]:
        """Status, parts of the body, and lines of headers."""
        if self.answer:
            return 200, self.answer.parts, ()
        assert self.refused  # noqa: S101 - one of the two was decided
        return self.refused.status, (b"" if self.method == b"HEAD" else self.refused.body,), self.refused.headers

    def end(self) -> None:
        """Give back what it held, when it is answered or its client has gone."""
        self._mutate.end(self.size)
        self._pieces.clear()
        self.response_complete = True
        self._seconds = perf_counter() - self._began

    def report(self) -> None:
        """Have it counted and logged, after its end."""
        if self.answer:
            self._mutate.report(self.answer, self.size, self._seconds)
        elif self.refused:
            self._mutate.report_refusal(self.refused)


class Batch:
    """Reviews that came while the event loop went round once, on several connections, answered in one go.

    Each step is made for all of them before the next one: what it needs stays in the processor's caches, which sending
    an answer of 50 kB empties. So 16 at a time take a third less of its time.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[ReviewProtocol, Exchange]] = []

    def add(self, protocol: ReviewProtocol, exchange: Exchange) -> None:
        """Have a request answered before the loop waits again."""
        if not self._waiting:
            protocol.loop.call_soon(self._answer)
        self._waiting.append((protocol, exchange))

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        here = []
        for protocol, exchange in waiting:
            if exchange.response_complete:  # it couldn't wait, or its client has gone
                continue
            if protocol.transport.is_closing():
                exchange.end()
            else:
                here.append((protocol, exchange))
        for _, exchange in here:
            exchange.decide()
        for protocol, exchange in here:
            protocol.respond(exchange)
        for _, exchange in here:
            exchange.report()


class ReviewProtocol(BoundedProtocol):
    """A connection on which reviews are answered here, and all else by the ASGI application."""

    mutate: ClassVar[Mutate]
    batch: ClassVar[Batch]

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

    def on_message_begin(self) -> None:
        """Take the first byte of a request. What ASGI needs is made when it is known to be for ASGI."""
        self._unfinished = True
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        """Take the head of a request."""
        if self.url.partition(b"?")[0] != PATH:
            url, headers, expecting = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expecting
            self.headers += headers
            super().on_headers_complete()
            return
        before = self.cycle
        method = self.parser.get_method()
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        self.cycle = exchange = Exchange(self.mutate, method=method, keep_alive=keep_alive)  # type: ignore[assignment]
        try:
            self.mutate.check_head(method, self.headers)
        except Refused as refused:
            exchange.refuse(refused)
        if before is None or before.response_complete:
            self._turn = exchange
            if exchange.refused:
                self._advance()
            elif self.expect_100_continue:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
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
            if self.cycle.refused:
                self._advance()

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        super().on_message_complete()
        self._advance()

    def eof_received(self) -> None:
        """Answer a client that has closed its half of the connection: it may still read."""
        self._hurry()
        super().eof_received()

    def send_400_response(self, msg: str) -> None:
        """Answer what came before it made no sense."""
        self._hurry()
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _refuse(self, status: int, sentence: str) -> None:
        self._hurry()
        if not self.transport.is_closing():
            super()._refuse(status, sentence)

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
        """Have the request answered whose turn it is, if all of it is there and the client takes what is written."""
        exchange = self._turn
        if exchange is None or not exchange.ready or exchange.waits:
            return
        if self.flow.write_paused or self.transport.is_closing():
            return
        if exchange.refused or exchange.size > _LARGE or len(self.connections) == 1:  # or nothing else can come
            self._answer(exchange)
        else:
            exchange.waits = True
            self.batch.add(self, exchange)

    def _hurry(self) -> None:
        """Answer now what could wait: the connection is about to end."""
        while (exchange := self._turn) and exchange.ready:
            if self.flow.write_paused or self.transport.is_closing():
                return
            self._answer(exchange)

    def _answer(self, exchange: Exchange) -> None:
        exchange.decide()
        self.respond(exchange)
        exchange.report()

    def respond(self, exchange: Exchange) -> None:
        """Write what was decided."""
        self._turn = None
        status, parts, headers = exchange.response
        always = self.server_state.default_headers
        # What is left of a refused body is of no use to anyone: hang up.
        close = exchange.refused is not None or not exchange.keep_alive or CLOSE_HEADER in always
        head = b"".join(
            (
                STATUS_LINE[status],
                *[b"%s: %s\r\n" % each for each in always if each != CLOSE_HEADER],
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
    return type("Protocol", (ReviewProtocol,), {"mutate": mutate, "batch": Batch(), "limits": limits})
