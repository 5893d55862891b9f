"""Plane's access to Redis: reads a setting, at a time when settings may be half imported. Nothing is connected here."""

from __future__ import annotations

from django.conf import settings
from redis import Redis


def redis_instance() -> Redis | None:
    """Return a client of Redis; None where there is none."""
    return Redis.from_url(settings.REDIS_URL, db=0) if settings.REDIS_URL else None
