"""Plane's wait_for_db: the first line of each entrypoint."""

import time

from django.core.management.base import BaseCommand
from django.db import connection
from django.db.utils import OperationalError


class Command(BaseCommand):
    """Return when the database answers."""

    def handle(self, *_args: object, **_options: object) -> None:
        """Try once a second."""
        while True:
            try:
                connection.ensure_connection()
            except OperationalError as error:
                self.stderr.write(f"Waiting for the database: {error}")
                time.sleep(1)
            else:
                self.stdout.write("Database available!")
                return
