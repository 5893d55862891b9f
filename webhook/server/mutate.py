"""POST /mutate: reads a review within bounds, has it decided, answers, then logs and counts.

The hot path: plain ASGI, nothing awaited but the body and the answer. Any review that can be read is answered with
`allowed: true`, even if a bug strikes: this webhook never keeps a pod from starting.
"""

import http
import traceback
from collections.abc import Callable
from time import perf_counter

from starlette.types import Receive, Scope, Send

from webhook import log
from webhook.admission import Answer, MalformedReview, Reason, review
from webhook.server.limits import Limits
from webhook.server.metrics import Metrics
from webhook.server.refusal import Refused

Decide = Callable[[bytes], Answer]


class _Gone(Exception):  # noqa: N818 - nobody's error
    """The client hung up before its request was complete."""


class Mutate:
    """The endpoint, and how much of what it is busy with."""

    def __init__(self, decide: Decide, metrics: Metrics, limits: Limits) -> None:
        self._decide = decide
        self._metrics = metrics
        self._limits = limits
        self.reviews = 0
        self._requests = 0
        self._bytes = 0
        metrics.requests_in_flight.set_function(lambda: self._requests)
        metrics.bytes_in_flight.set_function(lambda: self._bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = perf_counter()
        self.reviews += 1
        self._requests += 1
        try:
            body = await self._read(scope, receive)
            answer = self._answer(body)
        except Refused as refused:
            await self._refuse(refused, send)
        except _Gone:
            pass
        else:
            await _respond(send, 200, answer.body)
            self._report(answer, len(body), perf_counter() - began)
        finally:
            self._requests -= 1

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        self._check_head(scope)
        message = await receive()
        if message["type"] == "http.request" and not message["more_body"]:
            return message["body"]  # type: ignore[no-any-return]  # all there at once, as nearly all are
        pieces: list[bytes] = []
        size = 0
        try:
            while message["type"] == "http.request":
                piece = message["body"]
                pieces.append(piece)
                size += len(piece)
                self._bytes += len(piece)
                if size > self._limits.body:
                    raise Refused(413, f"the body is longer than {self._limits.body} bytes")
                if self._bytes > self._limits.bodies:
                    raise Refused(503, "too many large reviews at the same time: try again")
                if not message["more_body"]:
                    return b"".join(pieces)
                message = await receive()
        finally:
            self._bytes -= size
        raise _Gone

    def _check_head(self, scope: Scope) -> None:
        if scope["method"] != "POST":
            raise Refused(405, f"reviews come by POST, not {scope['method']}")
        content_type = b""
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = value
            elif name == b"content-length" and int(value) > self._limits.body:
                raise Refused(413, f"the body has {int(value)} bytes, and {self._limits.body} is the most")
        if content_type != b"application/json" and not content_type.lower().startswith(b"application/json;"):
            raise Refused(415, "reviews come as application/json")

    def _answer(self, body: bytes) -> Answer:
        try:
            return self._decide(body)
        except MalformedReview as malformed:
            raise Refused(400, str(malformed)) from malformed
        except Exception as bug:  # noqa: BLE001 - a bug of ours must not become the pod's
            # Without the exception's own text, which may quote the pod.
            frames = "".join(traceback.format_tb(bug.__traceback__))
            log.line("error", Reason.INTERNAL_ERROR.sentence, exception=type(bug).__name__, traceback=frames)
        try:
            return _let_through(review.parse(body))
        except Exception as error:  # the bug may be in the parser
            raise Refused(400, "the review can't be read far enough to find its uid") from error

    async def _refuse(self, refused: Refused, send: Send) -> None:
        self._metrics.malformed(int(refused.status)).inc()
        log.line("warning", refused.sentence, status=refused.status)
        # What is left of the body is of no use to anyone: hang up.
        headers = [(b"connection", b"close")]
        if refused.status == http.HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append((b"allow", b"POST"))
        await _respond(send, refused.status, refused.body, *headers)

    def _report(self, answer: Answer, received: int, seconds: float) -> None:
        self._metrics.received_bytes.inc(received)
        self._metrics.sent_bytes.inc(len(answer.body))
        self._metrics.duration.observe(seconds)
        self._metrics.decision(answer.reason, answer.workload).inc()
        for risk in answer.risks:
            self._metrics.risk(risk).inc()
        log.line(
            "info",
            answer.reason.sentence,
            reason=answer.reason,
            uid=answer.uid[: log.LONGEST_VALUE],
            namespace=answer.namespace[: log.LONGEST_VALUE],
            name=answer.name[: log.LONGEST_VALUE],
            workload=answer.workload,
            container=answer.container[: log.LONGEST_VALUE],
            dry_run=answer.dry_run,
            risks=answer.risks,
            milliseconds=round(seconds * 1000, 3),
        )


def _let_through(request: review.Request) -> Answer:
    return Answer(
        body=review.response(request.uid, reason=Reason.INTERNAL_ERROR),
        uid=request.uid,
        namespace=request.namespace or "",
        name=request.name or "",
        dry_run=bool(request.dry_run),
        reason=Reason.INTERNAL_ERROR,
        workload="",
        container="",
        warnings=(),
        risks=(),
    )


async def _respond(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
