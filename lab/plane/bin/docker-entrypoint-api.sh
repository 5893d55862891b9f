#!/bin/bash
# The community edition's API. Only the host is a variable here: the lab listens on loopback.
set -e

python manage.py wait_for_db
python manage.py wait_for_migrations

exec gunicorn -w "$GUNICORN_WORKERS" -k uvicorn.workers.UvicornWorker plane.asgi:application --bind "${BIND_HOST:-0.0.0.0}":"${PORT:-8000}" --max-requests 1200 --max-requests-jitter 1000 --access-logfile -
