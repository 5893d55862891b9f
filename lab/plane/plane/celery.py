"""Plane's Celery app: reads the Django settings while it is being imported, and sets beat's schedule itself."""

import os
from datetime import timedelta

from celery import Celery
from celery.signals import after_task_publish, beat_init, before_task_publish

from plane.settings.redis import redis_instance

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "plane.settings.production")

redis = redis_instance()  # the line that makes the import cycle bite: it needs settings that aren't loaded yet

app = Celery("plane")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.beat_schedule = {
    "stack-email-notifications": {
        "task": "plane.bgtasks.email_notification_task.stack_email_notification",
        "schedule": timedelta(seconds=float(os.environ.get("BEAT_INTERVAL", "10"))),
    },
}
app.autodiscover_tasks()
# Plane's keeps the schedule in its database. This one keeps it in memory: a publish takes the same way from either.
app.conf.beat_scheduler = "celery.beat:Scheduler"


def _sending(headers: dict, **_: object) -> None:
    print(f"sending {headers['id']}", flush=True)


def _sent(headers: dict, **_: object) -> None:
    print(f"sent {headers['id']}", flush=True)


@beat_init.connect
def _name_messages(**_: object) -> None:
    """Beat's log doesn't name what it sends, and the fault lab has to find it again."""
    before_task_publish.connect(_sending)
    after_task_publish.connect(_sent)
