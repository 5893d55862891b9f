#!/bin/bash
# The enterprise edition's API: more commands before the same last line.
set -e

python manage.py wait_for_db
python manage.py wait_for_migrations
export SKIP_ENV_VAR=1
python manage.py check

# Publishes a task: without a broker the container ends here, and is started again. A test that has none skips it.
[ -n "$INSTANCE_IS_REGISTERED" ] || python manage.py startup commercial --machine-signature lab
# FLUSHDB of REDIS_URL's database, at every start. There are containers in the lab without a Redis.
[ -z "$REDIS_URL" ] || python manage.py clear_cache

exec gunicorn -w "$GUNICORN_WORKERS" -k uvicorn.workers.UvicornWorker plane.asgi:application --bind "${BIND_HOST:-0.0.0.0}":"${PORT:-8000}" --max-requests 1200 --max-requests-jitter 1000 --access-logfile -
