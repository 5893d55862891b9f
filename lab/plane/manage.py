#!/usr/bin/env python
"""Plane's manage.py: its entrypoints call it several times before they start the server."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "plane.settings.production")
    execute_from_command_line(sys.argv)
