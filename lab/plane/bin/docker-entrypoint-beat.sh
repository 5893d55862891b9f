#!/bin/bash
# The scheduler, which publishes periodic tasks.
set -e

python manage.py wait_for_db
python manage.py wait_for_migrations

exec celery -A plane beat -l info
