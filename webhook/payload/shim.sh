#!/bin/sh
# plane-webhook shim: stands first on PATH as `gunicorn` and `celery`, hands over to the real one with the settings.
# When anything is amiss, the real one runs as it was called.
if [ -n "$PLANE_WEBHOOK_SELF_TEST" ]; then echo ok; exit 0; fi
dir=/plane-webhook
name=${0##*/}

rest=
set -f
IFS=:
for part in $PATH; do
    [ "$part" = "$dir/bin" ] || rest=${rest:+$rest:}${part:-.}
done
unset IFS
set +f
PATH=$rest
export PATH

real=$(command -v "$name")
if [ ! -r "$real" ]; then exec "$name" "$@"; fi

# The interpreter that will run the real program has to find and understand our module: ask that one.
line=
IFS= read -r line <"$real" 2>/dev/null
case $line in
    '#!'*python*) python=${line#'#!'} ;;
    *) python=python3 ;;
esac
library=${PYTHONPATH:+$PYTHONPATH:}$dir/lib
# -S: no site module, so no sitecustomize (tracing agents bring one) and a quick start.
extra=$(PYTHONPATH=$library $python -S "$dir/lib/plane_webhook_settings.py" "$name")
status=$?
case $status:$extra in
    0:*[!a-z0-9\ -]*) status=1 ;;
esac
if [ $status -ne 0 ]; then
    echo "plane-webhook: NOT IN EFFECT: the check of $dir/lib failed; $name runs as it was called" >&2
    exec "$real" "$@"
fi

PYTHONPATH=$library
PLANE_WEBHOOK_BASE_SETTINGS=${DJANGO_SETTINGS_MODULE:-plane.settings.production}
DJANGO_SETTINGS_MODULE=plane_webhook_settings
export PYTHONPATH PLANE_WEBHOOK_BASE_SETTINGS DJANGO_SETTINGS_MODULE
# shellcheck disable=SC2086 # words of letters, digits and dashes, split on purpose
exec "$real" "$@" $extra
