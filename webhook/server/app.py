"""What answers beside reviews: /livez and /readyz on the TLS port, /metrics on the other.

Wires endpoints; decides nothing.
"""

from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from webhook.server.metrics import Metrics


def probes_app(unready: Callable[[], str | None]) -> ASGIApp:
    """The probes. `unready` says why no review should be sent here."""
    probes = _fastapi()

    @probes.get("/livez")
    async def livez() -> PlainTextResponse:
        return PlainTextResponse("alive\n")

    @probes.get("/readyz")
    async def readyz() -> PlainTextResponse:
        reason = unready()
        return PlainTextResponse(f"{reason}\n" if reason else "ready\n", 503 if reason else 200)

    return probes


def metrics_app(metrics: Metrics) -> ASGIApp:
    """/metrics in the text formats of Prometheus."""
    app = _fastapi()

    @app.get("/metrics")
    async def exposition(request: Request) -> Response:
        content, content_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": content_type})

    return app


def _fastapi() -> FastAPI:
    return FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
