"""Plane's periodic task that beat publishes most often."""

from celery import shared_task


@shared_task
def stack_email_notification() -> None:
    """Do nothing: what counts is that it was published."""
