"""POST /mutate: what of a request is taken, within which bounds; has it decided, then logs and counts.

The hot path, and one that waits for nothing: how bytes come and go is `exchange`'s. Any review that can be read is
answered with `allowed: true`, even if a bug strikes: this webhook never keeps a pod from starting.
"""

import traceback
from collections.abc import Callable, Iterable

from webhook import log
from webhook.admission import Answer, MalformedReview, Reason, Risk, review
from webhook.server.limits import Limits
from webhook.server.metrics import Metrics
from webhook.server.refusal import Refused

PATH = b"/mutate"

Decide = Callable[[bytes], Answer]


class _Reviewed(log.Entry):
    """What the log says of an answer."""

    reason: Reason
    uid: str
    namespace: str
    name: str
    workload: str
    container: str
    dry_run: bool
    risks: tuple[Risk, ...]
    milliseconds: float


class Mutate:
    """The endpoint, and how much of what it is busy with."""

    def __init__(self, decide: Decide, metrics: Metrics, limits: Limits) -> None:
        self._decide = decide
        self._metrics = metrics
        self._limits = limits
        self.begun = 0  # requests so far
        self._requests = 0
        self._bytes = 0
        metrics.requests_in_flight.set_function(lambda: self._requests)
        metrics.bytes_in_flight.set_function(lambda: self._bytes)

    def begin(self) -> None:
        """Count a request."""
        self.begun += 1
        self._requests += 1

    def check_head(self, method: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise Refused unless a review may follow; `headers` have names in lower case."""
        if method != b"POST":
            raise Refused(405, f"reviews come by POST, not {method.decode()}")
        content_type = b""
        for name, value in headers:
            if name == b"content-type":
                content_type = value
            elif name == b"content-length" and int(value) > self._limits.body:
                raise Refused(413, f"the body has {int(value)} bytes, and {self._limits.body} is the most")
        if content_type != b"application/json" and not content_type.lower().startswith(b"application/json;"):
            raise Refused(415, "reviews come as application/json")

    def take(self, received: int, size: int) -> None:
        """Count bytes of a body that has `size` by now. Raises Refused if that, or what is read in all, is too much."""
        self._bytes += received
        if size > self._limits.body:
            raise Refused(413, f"the body is longer than {self._limits.body} bytes")
        if self._bytes > self._limits.bodies:
            raise Refused(503, "too many large reviews at the same time: try again")

    def end(self, size: int) -> None:
        """Count a request as done, and the bytes that were taken of its body as given back."""
        self._requests -= 1
        self._bytes -= size

    def answer(self, body: bytes) -> Answer:
        """Answer a review. Raises Refused for what is none."""
        try:
            return self._decide(body)
        except MalformedReview as malformed:
            raise Refused(400, str(malformed)) from malformed
        except Exception as bug:  # noqa: BLE001 - a bug of ours must not become the pod's
            # Without the exception's own text, which may quote the pod.
            frames = "".join(traceback.format_tb(bug.__traceback__))
            said = {"exception": type(bug).__name__, "traceback": frames}
        try:
            through = _let_through(review.envelope(body))
        except Exception as error:  # the bug may be in the parser
            log.line("error", "a bug in plane-webhook: the review was refused", **said)
            raise Refused(400, "the review can't be read far enough to find its uid") from error
        log.line("error", Reason.INTERNAL_ERROR.sentence, **said)
        return through

    def report(self, answer: Answer, received: int, seconds: float) -> None:
        """Count and log an answer that was sent, to a request with `received` bytes."""
        self._metrics.reviews.add(answer, received, seconds)
        most = log.LONGEST_VALUE
        log.write(
            _Reviewed(
                log.now(),
                "info",
                answer.reason.sentence,
                reason=answer.reason,
                uid=answer.uid[:most],
                namespace=answer.namespace[:most],
                name=answer.name[:most],
                workload=answer.workload,
                container=answer.container[:most],
                dry_run=answer.dry_run,
                risks=answer.risks,
                milliseconds=int(seconds * 1e6) / 1000,
            )
        )

    def report_refusal(self, refused: Refused) -> None:
        """Count and log what was turned away."""
        self._metrics.malformed(int(refused.status)).inc()
        log.line("warning", refused.sentence, status=refused.status)


def _let_through(request: review.Request) -> Answer:
    return Answer(
        parts=review.response(request.uid, reason=Reason.INTERNAL_ERROR),
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
