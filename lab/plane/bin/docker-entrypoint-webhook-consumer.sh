#!/bin/bash
# The enterprise edition's consumer of webhook events, which it hands on as tasks.
set -e

python manage.py wait_for_db
python manage.py wait_for_migrations

exec python manage.py run_webhook_consumer
