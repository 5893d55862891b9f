"""Plane's ASGI application, which gunicorn's UvicornWorker serves."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "plane.settings.production")

application = get_asgi_application()
