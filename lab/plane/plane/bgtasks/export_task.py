"""Plane's export task, a second task to build canvas with, and one that publishes, as many of Plane's do."""

from celery import shared_task

from plane.db.models import ExporterHistory


@shared_task
def issue_export_task(token: str, padding: str = "") -> None:  # noqa: ARG001 - what makes a message large
    """Do the export: the row is `completed`, which is how a user sees that the task ran."""
    ExporterHistory.objects.filter(token=token).update(status="completed")
    print(f"ran issue_export_task {token}", flush=True)


@shared_task
def relay_export(token: str) -> str:
    """Have another task do it; return its id, which the worker's log then shows."""
    return issue_export_task.delay(token).id


@shared_task
def notify_exported(token: str) -> None:
    """Tell somebody about an export."""
    print(f"exported {token}", flush=True)
