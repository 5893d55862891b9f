"""Plane's access to Redis: reads a setting, at a time when settings may be half imported. Nothing is connected here."""

from django.conf import settings


def redis_instance() -> str:
    """Return where Redis is."""
    return settings.REDIS_URL
