"""Plane's production settings: the module that everything falls back to."""

from .common import *  # noqa: F403

# Errors of requests go to the container's log with their cause, as Plane's do.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
