"""Plane's wait_for_migrations. Plane's waits for the migrator job; this one migrates: one container can stand alone."""

import fcntl

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection


class Command(BaseCommand):
    """Return when the schema is there."""

    def handle(self, *_args: object, **_options: object) -> None:
        """Migrate, one process at a time: an API, a worker and beat may start together on one file."""
        with open(settings.DATABASES["default"]["NAME"] + ".lock", "w") as lock:  # noqa: PTH123
            fcntl.flock(lock, fcntl.LOCK_EX)
            with connection.cursor() as cursor:
                cursor.execute(
                    "PRAGMA journal_mode=WAL"
                )  # kept in the file: readers and the writer don't wait for each other
            call_command("migrate", verbosity=0)
        self.stdout.write("No migrations pending.")
