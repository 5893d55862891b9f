"""Plane's task that an instance reports itself with."""

from celery import shared_task


@shared_task
def instance_traces() -> None:
    """Do nothing: what counts is that it was published before gunicorn starts."""
