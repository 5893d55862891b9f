"""Requests that get no review back: an HTTP status, and a sentence for whoever sent them."""

import http

import msgspec

from webhook.log import LONGEST_VALUE


class Refused(Exception):  # noqa: N818 - a verdict on a request, not an error of ours
    """What came is no review that can be answered."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status = http.HTTPStatus(status)
        self.sentence = sentence[: 2 * LONGEST_VALUE]  # it may quote what came

    @property
    def headers(self) -> tuple[bytes, ...]:
        """What HTTP demands with some of them, as lines."""
        return (b"allow: POST\r\n",) if self.status == http.HTTPStatus.METHOD_NOT_ALLOWED else ()

    @property
    def body(self) -> bytes:
        """A `Status` of Kubernetes: the one kind of error whose message an API server passes on."""
        return msgspec.json.encode(
            {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "message": self.sentence,
                "reason": self.status.phrase.replace(" ", ""),
                "code": self.status,
            }
        )
