"""Plane's common settings, as far as publishing a task from a request depends on them.

Like Plane's, they read none of the variables that tune gunicorn or publishing; the rest comes from the environment.
"""

import os
from urllib.parse import unquote, urlsplit

SECRET_KEY = os.environ.get("SECRET_KEY", "a throw-away key of the lab")
DEBUG = False
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["plane.db"]
MIDDLEWARE = ["plane.middleware.logger.APITokenLogMiddleware"]
ROOT_URLCONF = "plane.urls"
USE_TZ = True
TIME_ZONE = "UTC"

# Plane's is PostgreSQL: a connection is a request's until it has ended (CONN_MAX_AGE is Django's 0), however long that
# waits. Without DATABASE_URL it is a file, for tests where only the row has to be there before the task is published.
if DATABASE_URL := os.environ.get("DATABASE_URL"):
    _url = urlsplit(DATABASE_URL)
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": _url.path[1:],
            "USER": unquote(_url.username or ""),
            "PASSWORD": unquote(_url.password or ""),
            "HOST": _url.hostname,
            "PORT": _url.port or 5432,
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("DATABASE_PATH", "/tmp/plane.sqlite3"),
            "OPTIONS": {"timeout": 30},  # seconds that a writer waits for another process's lock
        }
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REDIS_URL = os.environ.get("REDIS_URL", "")

AMQP_URL = os.environ.get("AMQP_URL")
CELERY_BROKER_URL = AMQP_URL or "amqp://{}:{}@{}:{}/{}".format(
    os.environ.get("RABBITMQ_USER", "guest"),
    os.environ.get("RABBITMQ_PASSWORD", "guest"),
    os.environ.get("RABBITMQ_HOST", "localhost"),
    os.environ.get("RABBITMQ_PORT", "5672"),
    os.environ.get("RABBITMQ_VHOST", "/"),
)
CELERY_TIMEZONE = TIME_ZONE
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["application/json"]
CELERY_IMPORTS = (
    "plane.bgtasks.export_task",
    "plane.bgtasks.email_notification_task",
    "plane.bgtasks.logger_task",
    "plane.bgtasks.tracer",
)
