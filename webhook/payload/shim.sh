#!/bin/sh
# plane-webhook shim: stands first on PATH as `gunicorn` and `celery`, and becomes the real one with the settings.
# In the API and in consumers as `python` and `python3` too, where it does so for a command of manage.py that may publish.
# When anything is amiss, the real one runs as it was called. Works under -e and -u, which SHELLOPTS may set, and sets no
# variable outside of a subshell that Plane could have by the same name.
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
    name=${1##*/} folder=.
    case ${0##*/} in
        python*) name="manage.py $3" folder=${2%manage.py} line=python ;;
        *) if [ -r "$1" ]; then { IFS= read -r line; IFS= read -r next; } <"$1"; fi ;;
    esac
    # Asked is the interpreter that will run the real program: it has to find and understand our module.
    # -S: no site module, so no sitecustomize (tracing agents bring one), and a quick start.
    ask() { "$@" -S /plane-webhook/lib/plane_webhook_settings.py "$name" "$folder" </dev/null 2>&1; }
    case "$name $* ${GUNICORN_CMD_ARGS-} " in
        'manage.py '*' --settings'[\ =]*) line=option ;;
        'manage.py '*) ;;
        *DJANGO_SETTINGS_MODULE=*) line=option ;;
    esac
    case "$* ${GUNICORN_CMD_ARGS-} " in
        *' --chdir'[\ =]* | *' --workdir'[\ =]* | *' --pythonpath'[\ =]*) folder=- ;;
    esac
    plane_webhook_environment
    case $line in
        option) answer='an option names another DJANGO_SETTINGS_MODULE'; false ;;
        python) answer=$(ask "$1") ;;
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
    case "$name $settings $* " in
        *'"kept": ['*'"GUNICORN_MAX_REQUESTS"'*) ;;
        'gunicorn '*'"GUNICORN_MAX_REQUESTS": "0"'*' --max-requests'[\ =]'0 '*)
            echo "--max-requests 1200 --max-requests-jitter 1000"
            name="$name, with --max-requests 1200 in place of 0," ;;
    esac
    echo "plane-webhook: NOT IN EFFECT: ${last:-its Python does not answer}; $name runs as it was called" >&2
    exit 1
)

# Whether the overlay is for this call: $0 and its arguments. A python's must be a command of manage.py.
plane_webhook_wanted() {
    case ${0##*/} in python*) ;; *) return 0 ;; esac
    case ${1-} in manage.py | */manage.py) ;; *) return 1 ;; esac
    case ${2-} in
        '' | -* | *[!A-Za-z0-9_-]*) return 1 ;;  # no command's name
        # They publish nothing, and every entrypoint has some of them before what it is for: a start should not wait for us.
        migrate | wait_for_db | wait_for_migrations | collectstatic | check) return 1 ;;
        # Before the API's gunicorn: community's, enterprise's of older releases, and of newer ones, which calls either.
        register_instance | register_instance_ee | startup) return 0 ;;
    esac
    { read -r plane_webhook </plane-webhook/settings.json; } 2>/dev/null || return 0  # then the question is answered with why
    case $plane_webhook in *'"workload": "api"'*) return 1 ;; esac
}

# Whether there are variables whose names no shell variable can have. One process, for this is part of every call.
plane_webhook_odd_names() (
    exec 2>/dev/null
    set -f +eu
    LC_ALL=C
    IFS='
'
    for line in $(tr '\0\n' '\n\1' <"/proc/$$/environ"); do
        case ${line%%=*} in [!A-Za-z_]* | *[!A-Za-z0-9_]*) exit 0 ;; esac
    done
    exit 1
)

# The real one is the next on PATH that is not this file, however PATH spells our folder.
plane_webhook=/plane-webhook/bin
plane_webhook_path=:${PATH-}:
while
    while case $plane_webhook_path in *":$plane_webhook:"*) ;; *) false ;; esac; do
        plane_webhook_path=${plane_webhook_path%%":$plane_webhook:"*}:${plane_webhook_path#*":$plane_webhook:"}
    done
    plane_webhook_real=$(PATH=${plane_webhook_path#:}; PATH=${PATH%:}; command -v "${0##*/}") || plane_webhook_real=
    [ "$plane_webhook_real" -ef "$0" ]
do
    plane_webhook=${plane_webhook_real%/*}
    case $plane_webhook_path in
        *":$plane_webhook:"*) ;;
        *":$plane_webhook/:"*) plane_webhook=$plane_webhook/ ;;  # bash leaves that slash out
        *) echo "plane-webhook: PATH leads nowhere but here" >&2; exit 127 ;;
    esac
done
plane_webhook_path=${plane_webhook_path#:}
plane_webhook_path=${plane_webhook_path%:}
case $plane_webhook_real in
    '') PATH=$plane_webhook_path; exec "${0##*/}" "$@" ;;
    */*) ;;
    *) plane_webhook_real=./$plane_webhook_real ;;  # where PATH has an empty part
esac

if plane_webhook_wanted "$@"; then
    export PATH="$plane_webhook_path"
    set -- "$plane_webhook_real" "$@"
    if plane_webhook=$(plane_webhook_ask "$@"); then plane_webhook_environment; fi
    set -- "$@" $plane_webhook
else
    set -- "$plane_webhook_real" "$@"
fi
# As in the guard: variables whose names no shell variable can have, where there are any.
plane_webhook=
if plane_webhook_odd_names; then
    plane_webhook=$(exec 2>/dev/null; tr '\0\n' '\n\1' <"/proc/$$/environ" | LC_ALL=C sed -n "
        /^[A-Za-z_][A-Za-z0-9_]*=/d
        s/'/'\\\\''/g
        s/^[^-=].*=.*/'&'/p" | tr '\n\1' ' \n') || :
fi
if [ -n "$plane_webhook" ] && [ "$1" = "${1%%=*}" ] && command -v env >/dev/null; then
    eval "set -- env $plane_webhook \"\$@\""
fi
unset plane_webhook plane_webhook_path plane_webhook_real
exec "$@"
