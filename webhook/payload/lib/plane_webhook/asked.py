"""What the webhook asked for (settings.json) and what the variables say: texts to values, each with what is wrong with it.

Quick to import, for it is part of every start; and without Celery, for the shim asks before there is any.
"""

import os

LIBRARY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIMITS = ("GUNICORN_MAX_REQUESTS", "GUNICORN_MAX_REQUESTS_JITTER")
SWITCHES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
PUBLISH = {
    "confirm": bool,
    "mandatory": bool,
    "timeout": (int, float),
    "patience": (int, float),
    "spool": str,
    "spool_tasks": int,
    "spool_bytes": int,
}


def decode(text):
    """json.loads without the json module: its import (of re, mostly) would be a third of what we add to a start."""
    try:
        from _json import make_scanner

        class plain:
            strict, memo, object_hook, object_pairs_hook, parse_constant = True, {}, None, None, None
            parse_float, parse_int = float, int

        value, end = make_scanner(plain)(text.strip(), 0)
        if end == len(text.strip()):
            return value
    except Exception:  # a Python that has no such thing or wants more of it; or this is no JSON
        pass
    from json import loads

    return loads(text)


def asked():
    """settings.json, if its values have the types that they need. Raises ValueError."""
    try:
        with open(os.path.join(os.path.dirname(LIBRARY), "settings.json"), encoding="utf-8") as file:
            settings = decode(file.read())
        texts = [settings[name] for name in ("version", "digest", "workload", "precedence")]
        texts += list(settings["env"].values())
        found = [(settings["kept"], list)] + [(text, str) for text in texts]
        found += [(settings["publish"][name], kind) for name, kind in PUBLISH.items()]
        for value, kind in found:
            if not isinstance(value, kind) or kind is not bool and isinstance(value, bool):
                raise TypeError("a value of a wrong type")
    except Exception as error:
        raise ValueError("settings.json can't be used: %s: %s" % (type(error).__name__, error))
    return settings


def read(environ, wanted):
    """The variables' values as Python, and the sentences about those that can't be used."""
    values, problems = {}, []
    for name, default in wanted.items():
        text = environ.get(name, default).strip().lower()
        if name == "CELERY_TASK_PUBLISH_RETRY":
            if text in SWITCHES:
                values[name] = SWITCHES[text]
            else:
                problems.append(name + " is neither true nor false")
        elif text.isdecimal() and text.isascii() and len(text) < 10:
            values[name] = int(text)
        else:
            problems.append(name + " is not a whole number of 0 to 999999999")
    if any(name in wanted and name not in values for name in LIMITS):  # one alone would mean something else
        for name in LIMITS:
            values.pop(name, None)
    return values, problems


def overrides(values):
    """The Django settings to set over Plane's own."""
    return {name: values[name] for name in ("CELERY_TASK_PUBLISH_RETRY", "CELERY_BROKER_POOL_LIMIT") if name in values}


def no_amqp(environ, base=None):
    """Why the broker that Celery will publish to has no publisher confirms; empty if it has.

    As Celery decides: its variables go before its settings. `base`: Plane's settings, None where they aren't known yet.
    """
    settings = base or {}
    for name in ("CELERY_BROKER_WRITE_URL", "CELERY_BROKER_URL"):
        if environ.get(name):
            return _not_amqp(environ[name], name)
        if name == "CELERY_BROKER_WRITE_URL" and settings.get(name):
            return _not_amqp(settings[name], name + " of Plane's settings")
    if base is not None:
        return _not_amqp(settings.get("CELERY_BROKER_URL"), "CELERY_BROKER_URL of Plane's settings")
    if environ.get("AMQP_URL"):
        return _not_amqp(environ["AMQP_URL"], "AMQP_URL")
    if not any(name.startswith("RABBITMQ_") for name in environ):
        return "the environment names no RabbitMQ: neither AMQP_URL nor RABBITMQ_HOST"
    return ""


def _not_amqp(url, name):
    if isinstance(url, (list, tuple)):
        url = url[0] if url else ""
    scheme, found, _ = str(url or "").partition("://")
    if found and scheme.split("+")[0].lower() not in ("amqp", "amqps", "pyamqp"):
        return "%s names no AMQP broker, and others have no publisher confirms" % name
    return ""
