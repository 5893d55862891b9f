#!/bin/bash
# The migration job. It publishes nothing and must not be injected.
set -e

python manage.py wait_for_db
python manage.py migrate
