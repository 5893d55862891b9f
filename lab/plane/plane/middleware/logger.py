"""Plane's APITokenLogMiddleware: after EACH request with an API token, reads too, it publishes a task.

Like Plane's it swallows what the publish raises. The thread that publishes still holds the database connection that
the view opened: Django lets go of it when the request has ended.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from plane.bgtasks.logger_task import process_logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

logger = logging.getLogger("plane.exception")


class APITokenLogMiddleware:
    """Publishes `process_logs` for what an API token asked."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        """Keep what answers the request."""
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, and publish what was asked."""
        response = self.get_response(request)
        token = request.headers.get("X-Api-Key")
        if token:
            try:
                process_logs.delay({"token_identifier": token, "path": request.path, "method": request.method})
            except Exception as error:
                logger.exception(error)  # noqa: TRY401 - as Plane's log_exception does
        return response
