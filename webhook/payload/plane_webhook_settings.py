"""Django settings: Plane's own, with what plane-webhook was asked to change. Python 3.8 and newer.

As a program (`plane_webhook_settings.py gunicorn|celery`) it is the shim's check: prints the arguments to add.
Neither use may raise for a reason of ours: what can't be applied is said on stderr and left as Plane has it.
Django takes upper-case names for settings, so nothing of ours has one.
"""

import importlib
import json
import os
import sys

home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
switches = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def say(text):
    sys.stderr.write("plane-webhook: " + text + "\n")
    sys.stderr.flush()


def asked():
    with open(os.path.join(home, "settings.json"), encoding="utf-8") as file:
        return json.load(file)


def read(environ, wanted):
    """The variables' values as Python, and the sentences about those that can't be used. Values are never shown."""
    values, problems = {}, []
    for name, default in wanted.items():
        text = environ.get(name, default).strip().lower()
        if name == "CELERY_TASK_PUBLISH_RETRY":
            if text in switches:
                values[name] = switches[text]
            else:
                problems.append(name + " is neither true nor false")
        elif text.isdecimal() and text.isascii() and len(text) < 10:
            values[name] = int(text)
        else:
            problems.append(name + " is not a whole number of 0 or more")
    return values, problems


def overrides(base, values, publish):
    """The Django settings to set over `base` (dict), and the sentences about what can't be set."""
    new, problems = {}, []
    for name in ("CELERY_TASK_PUBLISH_RETRY", "CELERY_BROKER_POOL_LIMIT"):
        if name in values:
            new[name] = values[name]
    new["CELERY_TASK_PUBLISH_RETRY_POLICY"] = dict(publish["retry"])
    new["CELERY_BROKER_CONNECTION_TIMEOUT"] = publish["timeout"]
    options = base.get("CELERY_BROKER_TRANSPORT_OPTIONS") or {}
    url = base.get("CELERY_BROKER_WRITE_URL") or base.get("CELERY_BROKER_URL") or "amqp://"
    url = url if isinstance(url, str) else url[0]
    if not url.startswith(("amqp", "pyamqp")):
        problems.append("the broker is not AMQP: no publisher confirms, no timeouts")
    elif not isinstance(options, dict):
        problems.append("CELERY_BROKER_TRANSPORT_OPTIONS is not a dict: no publisher confirms, no timeouts")
    else:
        new["CELERY_BROKER_TRANSPORT_OPTIONS"] = dict(
            options,
            confirm_publish=publish["confirm"],
            read_timeout=publish["timeout"],
            write_timeout=publish["timeout"],
        )
    return new, problems


def demand_route(properties=None, **_):
    """Each task's message has to reach a queue; send_task(name) too, which no task annotation reaches."""
    properties["mandatory"] = True


def check(program):
    settings = asked()
    values, problems = read(os.environ, settings["env"])
    for problem in problems:
        say("NOT IN EFFECT: " + problem + "; it stays as Plane has it")
    if sys.flags.ignore_environment or sys.version_info < (3, 8):
        say("NOT IN EFFECT: this Python ignores PYTHONPATH or is older than 3.8")
        return 1
    limits = ("GUNICORN_MAX_REQUESTS", "GUNICORN_MAX_REQUESTS_JITTER") if program == "gunicorn" else ()
    sys.stdout.write(
        " ".join("--%s %d" % (name[9:].lower().replace("_", "-"), values[name]) for name in limits if name in values)
    )
    shown = {name: value for name, value in sorted(values.items()) if program == "gunicorn" or name[0] == "C"}
    say(
        "in effect for %s: %s, publish %s (version %s, settings %s)"
        % (program, json.dumps(shown), json.dumps(settings["publish"]), settings["version"], settings["digest"][:12])
    )
    return 0


def overlay():
    """Everything upper-case of Plane's settings module, then the overrides."""
    name = os.environ.get("PLANE_WEBHOOK_BASE_SETTINGS") or "plane.settings.production"
    # plane.celery reads the settings while Plane's settings module is being imported: until that is done,
    # the variable has to name Plane's own module, or Python would meet this one half made.
    os.environ["DJANGO_SETTINGS_MODULE"] = name
    try:
        module = importlib.import_module(name)
    finally:
        os.environ["DJANGO_SETTINGS_MODULE"] = __name__
    base = {key: value for key, value in vars(module).items() if key.isupper()}
    new, problems = {}, []
    try:
        settings = asked()
        values, _ = read(os.environ, settings["env"])
        new, problems = overrides(base, values, settings["publish"])
        if settings["publish"]["mandatory"]:
            from celery.signals import before_task_publish

            before_task_publish.connect(demand_route, weak=False, dispatch_uid="plane-webhook")
    except Exception as error:  # ours must not keep Plane from starting
        problems.append("%s: %s" % (type(error).__name__, error))
    for problem in problems:
        say("NOT IN EFFECT: " + problem)
    return dict(base, **new)


if __name__ == "__main__":
    sys.exit(check(sys.argv[1]))
elif __name__ == "plane_webhook_settings" and os.environ.get("DJANGO_SETTINGS_MODULE") == __name__:
    globals().update(overlay())
