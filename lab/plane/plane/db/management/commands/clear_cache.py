"""Plane's clear_cache, run at every start of the API: its cache is Redis, and clearing that is FLUSHDB.

So whatever anybody keeps in that database of Redis is gone with the next container of the API.
"""

from django.core.management.base import BaseCommand

from plane.settings.redis import redis_instance


class Command(BaseCommand):
    """Empty the cache."""

    def handle(self, *_args: object, **_options: object) -> None:
        """Empty the database that REDIS_URL names: 0 where it names none."""
        redis_instance().flushdb()
        self.stdout.write("Cache Cleared")
