"""What `proof` and `spool` ask of Plane's Python: Celery's configuration as it resolves it, and what the spool holds.

A program: `python3 -m plane_webhook.console resolve PACKAGE NAME...`, or `... spool [list|retry]`. Its last line is JSON.
Of an error in Plane's own code it tells the place only: the text may hold an address with a password.
"""

import json
import sys
import traceback

from . import name_of
from .asked import asked
from .spool import Spool, SpoolError

MARK = "\nplane-webhook-proof "


def resolve(package, names):
    """Celery's options of these names, what publishes, by which transport, and what the spool holds: a dict."""
    import importlib

    importlib.import_module(package)
    from celery import current_app

    from .patches import replaced

    found = {name: current_app.conf[name] for name in names}
    # Of what is neither a number nor a switch the kind is enough: nobody knows what a text may hold.
    found = {
        name: value if isinstance(value, (int, type(None))) else type(value).__name__ for name, value in found.items()
    }
    found["transport"] = current_app.connection_for_write().transport.driver_name
    found["publisher"] = replaced()
    return found


def spool():
    """The spool of this Plane. Raises SpoolError."""
    from django.conf import settings

    publish = asked()["publish"]
    if publish["spool"] == "none":
        raise SpoolError("publish.spool is none")
    return Spool(settings.REDIS_URL, settings.SECRET_KEY, publish["spool_tasks"], publish["spool_bytes"])


def said():
    """What the spool holds, or why that can't be told: a dict."""
    try:
        return spool().says()
    except SpoolError as error:
        return {"error": str(error)}


def main(what, *words):
    if what == "resolve":
        try:
            found = resolve(words[0], words[1:])
            found["spool"] = said()
        except BaseException as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            found = {"error": "%s in %s, line %d" % (type(error).__name__, at.filename, at.lineno)}
        print(MARK + json.dumps(found, default=lambda value: type(value).__name__), flush=True)
        return 0
    if list(words) not in ([], ["list"], ["retry"]):
        print("usage: /plane-webhook/spool [list|retry]", file=sys.stderr)
        return 2
    try:
        its = spool()
        if "retry" in words:
            print("%d tasks are tried again" % its.retry())
        print(json.dumps(its.says(), indent=2))
    except (SpoolError, ValueError) as error:
        print("the spool can't be used: %s" % error, file=sys.stderr)
        return 1
    except Exception as error:
        print("Plane's settings can't be read: %s" % name_of(error).split(":")[0], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
