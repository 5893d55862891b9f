"""Plane's wait_for_migrations. Plane's waits for the migrator job; this one migrates: one container can stand alone."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = 8_000  # any number, as long as all take the same


class Command(BaseCommand):
    """Return when the schema is there."""

    def handle(self, *_args: object, **_options: object) -> None:
        """Migrate, one process at a time: an API, a worker and beat may start together on one database."""
        with _in_a_file() if connection.vendor == "sqlite" else _in_postgres():
            call_command("migrate", verbosity=0)
        self.stdout.write("No migrations pending.")


@contextmanager
def _in_a_file() -> Iterator[None]:
    """Hold a lock beside the file."""
    with open(settings.DATABASES["default"]["NAME"] + ".lock", "w") as lock:  # noqa: PTH123
        fcntl.flock(lock, fcntl.LOCK_EX)
        with connection.cursor() as cursor:
            cursor.execute(
                "PRAGMA journal_mode=WAL"
            )  # kept in the file: readers and the writer don't wait for each other
        yield


@contextmanager
def _in_postgres() -> Iterator[None]:
    """Hold a lock of the database's; it goes with the connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    yield
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
