#!/bin/bash
# The worker; an argument names the only queue that it takes.
set -e

python manage.py wait_for_db
python manage.py wait_for_migrations

if [ -n "$1" ]; then
    exec celery -A plane worker -l info -Q "$1"
fi
exec celery -A plane worker -l info
