"""Plane's register_instance: publishes a task before gunicorn starts.

With the broker absent it fails, the entrypoint with it, and the container ends: Plane's API crash-loops there.
"""

from django.core.management.base import BaseCommand

from plane.bgtasks.tracer import instance_traces


class Command(BaseCommand):
    """Say that this instance is there."""

    def handle(self, *_args: object, **_options: object) -> None:
        """Publish, and let an error pass, as Plane's does."""
        instance_traces.delay()
        self.stdout.write("Instance registered")
