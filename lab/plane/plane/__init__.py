"""Plane's package: whoever imports any part of it imports the Celery app first, settings included.

Of Plane this mirrors the import cycle plane -> plane.celery -> settings -> plane.settings.production -> plane.
"""

from .celery import app as celery_app

__all__ = ("celery_app",)
