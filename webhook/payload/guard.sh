# plane-webhook guard 1
# Runs first in the container, then becomes Plane's own command. $1: variables to export where unset,
# $2 to $5: the files below, the rest: Plane's own command, which runs as it was whatever goes wrong here.
plane_webhook_install() (
    dir=$1 && shift
    umask 022
    if [ ! -d "$dir" ]; then echo "$dir is not mounted"; exit 1; fi
    rm -rf "$dir/bin" "$dir/lib" "$dir/proof" "$dir/settings.json"
    if ! mkdir "$dir/bin" "$dir/lib"; then echo "$dir is not writable"; exit 1; fi
    for file in settings.json lib/plane_webhook_settings.py bin/gunicorn proof; do
        if [ -z "$1" ]; then echo "the text of $file is empty"; exit 1; fi
        printf '%s\n' "$1" >"$dir/$file"
        if [ "$(cat "$dir/$file")" != "$1" ]; then echo "$dir/$file could not be written"; exit 1; fi
        shift
    done
    if ! cp "$dir/bin/gunicorn" "$dir/bin/celery" || ! chmod 0555 "$dir/bin/gunicorn" "$dir/bin/celery" "$dir/proof"; then
        echo "the programs in $dir could not be made executable"; exit 1
    fi
    for file in gunicorn celery; do
        if [ "$(PLANE_WEBHOOK_SELF_TEST=1 "$dir/bin/$file")" != ok ]; then echo "$dir/bin/$file does not run"; exit 1; fi
    done
)
if plane_webhook_word=$(plane_webhook_install /plane-webhook "$2" "$3" "$4" "$5" 2>/dev/null); then
    for plane_webhook_word in $1; do
        eval "[ -n \"\${${plane_webhook_word%%=*}+set}\" ]" || export "$plane_webhook_word"
    done
    export PATH="/plane-webhook/bin:$PATH"
    echo "plane-webhook: launcher in place; what is in effect is said when Plane starts gunicorn or celery" >&2
else
    echo "plane-webhook: NOT IN EFFECT: ${plane_webhook_word:-the guard failed}; Plane runs as its chart made it" >&2
fi
shift 5
unset plane_webhook_word
unset -f plane_webhook_install
exec "$@"
