#!/bin/sh
# What waits in the spool and what was set aside: kubectl exec POD -- /plane-webhook/spool [list|retry]
# In Plane's container, where Python, Plane's settings and its Redis are.
PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}/plane-webhook/lib"
DJANGO_SETTINGS_MODULE=${DJANGO_SETTINGS_MODULE:-plane.settings.production}
export PYTHONPATH DJANGO_SETTINGS_MODULE
exec python3 -m plane_webhook.console spool "$@"
