#!/bin/sh
# plane-webhook shim: stands first on PATH as `gunicorn` and `celery`, and becomes the real one with the settings.
# When anything is amiss, that one runs as it was called. Works under -e and -u, which SHELLOPTS may set, and sets no variable
# outside of a subshell that Plane could have by the same name.
if [ "${1-}" = plane-webhook-self-test ]; then echo ok; exit 0; fi

plane_webhook_environment() {
    [ "${DJANGO_SETTINGS_MODULE-}" = plane_webhook_settings ] ||  # started by what was started by us
        export PLANE_WEBHOOK_BASE_SETTINGS="${DJANGO_SETTINGS_MODULE:-plane.settings.production}"
    export DJANGO_SETTINGS_MODULE=plane_webhook_settings
    export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}/plane-webhook/lib"
}
# $1: the real program, the rest: its arguments. Prints the arguments to add; fails where the overlay can't be in effect.
plane_webhook_ask() (
    set +eu
    name=${1##*/}
    if [ -r "$1" ]; then { IFS= read -r line; IFS= read -r next; } <"$1"; fi
    # Asked is the interpreter that will run the real program: it has to find and understand our module.
    # -S: no site module, so no sitecustomize (tracing agents bring one), and a quick start.
    ask() { "$@" -S /plane-webhook/lib/plane_webhook_settings.py "$name" </dev/null 2>&1; }
    case "$* ${GUNICORN_CMD_ARGS-}" in *DJANGO_SETTINGS_MODULE=*) line=option ;; esac
    plane_webhook_environment
    case $line in
        option) answer='an option names another DJANGO_SETTINGS_MODULE'; false ;;
        '#!'*python* | '#!'*pypy*) answer=$(ask ${line#'#!'}) ;;
        '#!/bin/sh')  # what pip writes where the interpreter's path is too long: '''exec' /the/path "$0" "$@"
            next=${next#"'''exec' "}
            next=${next%%' "$0"'*}
            next=${next#[\"\']}
            answer=$(ask "${next%[\"\']}") ;;
        *) answer="$1 is no Python program"; false ;;
    esac
    status=$?
    # The answer is the last line; the lines before it are for the log.
    last=${answer##*'
'}
    if [ $status = 0 ] && [ "$last" != "${last#plane-webhook-add}" ]; then
        printf %s "${answer%"$last"}" >&2
        echo "${last#plane-webhook-add}"
        exit 0
    fi
    # As in the guard: no rotation that is off without confirms, unless the user's own variable says so.
    read -r settings </plane-webhook/settings.json
    case "$settings $* " in
        *'"kept": ['*'"GUNICORN_MAX_REQUESTS"'*) ;;
        *'"GUNICORN_MAX_REQUESTS": "0"'*' --max-requests'[\ =]'0 '*)
            echo "--max-requests 1200 --max-requests-jitter 1000"
            name="$name, with --max-requests 1200 in place of 0," ;;
    esac
    echo "plane-webhook: NOT IN EFFECT: ${last:-its Python does not answer}; $name runs as it was called" >&2
    exit 1
)

# The real one is the next on PATH.
plane_webhook=:${PATH-}:
while case $plane_webhook in *:/plane-webhook/bin:*) ;; *) false ;; esac; do
    plane_webhook=${plane_webhook%%:/plane-webhook/bin:*}:${plane_webhook#*:/plane-webhook/bin:}
done
plane_webhook=${plane_webhook#:}
export PATH="${plane_webhook%:}"
plane_webhook=$(command -v "${0##*/}") || exec "${0##*/}" "$@"
set -- "$plane_webhook" "$@"

if plane_webhook=$(plane_webhook_ask "$@"); then plane_webhook_environment; fi
set -- "$@" $plane_webhook
# As in the guard: variables whose names no shell variable can have.
plane_webhook=$(exec 2>/dev/null; tr '\0\n' '\n\1' <"/proc/$$/environ" | LC_ALL=C sed -n "
    /^[A-Za-z_][A-Za-z0-9_]*=/d
    s/'/'\\\\''/g
    s/^[^-=].*=.*/'&'/p" | tr '\n\1' ' \n') || :
if [ -n "$plane_webhook" ] && [ "$1" = "${1%%=*}" ] && command -v env >/dev/null; then
    eval "set -- env $plane_webhook \"\$@\""
fi
unset plane_webhook
exec "$@"
