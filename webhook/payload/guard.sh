# plane-webhook guard 2
# Runs first in the container, then becomes Plane's own command. $1: variables to export where unset, $2: settings.json,
# $3: all other files as tar, gzip, base64 (`/plane-webhook/proof --show` prints them); the rest: Plane's own command,
# which runs as it was whatever goes wrong here. Documented in plane-webhook's docs/explanation/delivery.md.
# Outside of the function nothing relies on the shell's options: SHELLOPTS in the environment may set -e and -u.
plane_webhook_install() (
    set +euC
    umask 022
    PATH=$PATH:/usr/bin:/bin
    dir=$1
    if [ ! -d "$dir" ]; then echo "$dir is not mounted"; exit 1; fi
    # The volume outlives the container: what an earlier run left in our places goes, links and locked folders too.
    for name in bin lib state proof spool settings.json; do
        file=$dir/$name
        if [ ! -e "$file" ] && [ ! -L "$file" ]; then continue; fi
        rm -rf "$file" && continue
        [ -L "$file" ] || chmod -R u+rwx "$file"
        rm -rf "$file" || { echo "what an earlier start left in $dir can't be cleared"; exit 1; }
    done
    if ! printf '' >"$dir/settings.json"; then echo "$dir is not writable"; exit 1; fi
    mkdir "$dir/state" && chmod 1777 "$dir/state" || { echo "a folder can't be made in $dir"; exit 1; }
    if [ -z "$2" ] || [ -z "$3" ]; then echo "the text of a file is empty"; exit 1; fi
    printf '%s\n' "$2" >"$dir/settings.json" || { echo "$dir/settings.json can't be written"; exit 1; }
    if [ "$(cat "$dir/settings.json")" != "$2" ] || ! printf %s "$3" | base64 -d | tar -xzof - -C "$dir"; then
        echo "the files can't be unpacked into $dir"; exit 1
    fi
    names=celery
    case $2 in *'"workload": "api"'* | *'"workload": "consumer"'*) names='celery python python3' ;; esac
    for name in $names; do
        if ! ln "$dir/bin/gunicorn" "$dir/bin/$name"; then echo "what was written to $dir is not there"; exit 1; fi
    done
    if [ "$("$dir/bin/celery" plane-webhook-self-test)" != ok ]; then echo "programs in $dir do not run"; exit 1; fi
)
if plane_webhook_word=$(plane_webhook_install /plane-webhook "$2" "$3" 2>/dev/null); then
    for plane_webhook_word in $1; do
        eval "[ -n \"\${${plane_webhook_word%%=*}+set}\" ]" || export "$plane_webhook_word"
    done
    export PATH="/plane-webhook/bin:${PATH-}"
    echo "plane-webhook: launcher in place; what is in effect is said when Plane starts gunicorn, celery or manage.py" >&2
else
    plane_webhook_word="${plane_webhook_word:-the guard failed}; Plane runs as its chart made it"
    # Rotation that is off without confirms loses tasks. Where Plane's entrypoint reads our variable, it gets the limits
    # that Plane had before it did. A 0 of the user's own stays.
    case "$2 $1 :${GUNICORN_MAX_REQUESTS-}" in
        *'"kept": ['*'"GUNICORN_MAX_REQUESTS"'*) ;;
        *' GUNICORN_MAX_REQUESTS=0 '*:0)
            export GUNICORN_MAX_REQUESTS=1200 GUNICORN_MAX_REQUESTS_JITTER=1000
            plane_webhook_word="$plane_webhook_word, with GUNICORN_MAX_REQUESTS=1200 in place of 0" ;;
    esac
    echo "plane-webhook: NOT IN EFFECT: $plane_webhook_word" >&2
fi
shift 3
# dash and busybox drop variables whose names no shell variable can have (a.b, a-b): env hands them on.
plane_webhook_word=$(exec 2>/dev/null; tr '\0\n' '\n\1' <"/proc/$$/environ" | LC_ALL=C sed -n "
    /^[A-Za-z_][A-Za-z0-9_]*=/d
    s/'/'\\\\''/g
    s/^[^-=].*=.*/'&'/p" | tr '\n\1' ' \n') || :
if [ -n "$plane_webhook_word" ] && [ "$1" = "${1%%=*}" ] && command -v env >/dev/null; then
    eval "set -- env $plane_webhook_word \"\$@\""
fi
unset plane_webhook_word
unset -f plane_webhook_install
exec "$@"
