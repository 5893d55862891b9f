"""Plane's export endpoint, in every way in which Plane's code publishes. The views are sync, as Plane's are.

POST /api/exports/?via=WAY&id=TOKEN: the row is inserted and committed, then the task is published, then 200 with the
ids of the messages that must now be in the broker. An error of the publish is Django's 500, logged with its cause.

The two reads hold a connection of the database until their request has ended, as any of Plane's: one is for API tokens,
after which the middleware publishes; the other is a browser's, and publishes nothing.
"""

import os
from uuid import uuid4

from celery import chain, current_app, group
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_POST

from plane.bgtasks.export_task import issue_export_task, notify_exported
from plane.db.models import ExporterHistory

LARGE = 200_000  # bytes of an argument: tasks of Plane carry whole issues


def _delay(token: str) -> list:
    return [issue_export_task.delay(token)]


def _apply_async(token: str) -> list:
    return [issue_export_task.apply_async((token,))]


def _send_task(token: str) -> list:
    return [current_app.send_task("plane.bgtasks.export_task.issue_export_task", args=(token,))]


def _chain(token: str) -> list:
    last = chain(issue_export_task.si(token), notify_exported.si(token)).apply_async()
    return [last.parent]  # the worker that runs the first publishes the second


def _group(token: str) -> list:
    return group(issue_export_task.si(token), notify_exported.si(token)).apply_async().results


def _large(token: str) -> list:
    return [issue_export_task.delay(token, padding="x" * LARGE)]


WAYS = {
    "delay": _delay,
    "apply_async": _apply_async,
    "send_task": _send_task,
    "chain": _chain,
    "group": _group,
    "large": _large,
}


def health(_request: HttpRequest) -> JsonResponse:
    """Answer the readiness probe."""
    return JsonResponse({"status": "OK"})


def whoami(_request: HttpRequest) -> JsonResponse:
    """Say which worker process answers."""
    return JsonResponse({"pid": os.getpid()})


@require_POST
def create_export(request: HttpRequest) -> JsonResponse:
    """Insert the row, publish the task, answer."""
    way = WAYS.get(request.GET.get("via", "delay"))
    if way is None:
        return JsonResponse({"error": f"via: one of {', '.join(WAYS)}"}, status=400)
    token = request.GET.get("id") or uuid4().hex
    ExporterHistory.objects.create(token=token, status="queued")
    return JsonResponse({"id": token, "messages": [result.id for result in way(token)]})


def read_export(_request: HttpRequest, token: str) -> JsonResponse:
    """Say what a user sees of an export."""
    row = ExporterHistory.objects.filter(token=token).first()
    if row is None:
        return JsonResponse({"error": f"no export {token}"}, status=404)
    return JsonResponse({"id": row.token, "status": row.status})


def list_projects(request: HttpRequest) -> JsonResponse:
    """List something for an API token."""
    if not request.headers.get("X-Api-Key"):
        return JsonResponse({"detail": "Given API token is not valid"}, status=403)
    return JsonResponse({"results": list(ExporterHistory.objects.order_by("-id").values("token", "status")[:20])})


def read_me(_request: HttpRequest) -> JsonResponse:
    """Answer a browser's session from the database."""
    return JsonResponse({"exports": ExporterHistory.objects.filter(status="queued").exists()})
