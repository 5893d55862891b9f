"""Django settings: Plane's own, with what plane-webhook was asked to change. Python 3.8 and newer.

As a program it tells the shim whether that can be: the last line is `plane-webhook-add` and the arguments to add or, with
exit code 1, why not. As settings it may not raise for a reason of ours. It never shows a value that could be secret.
Django takes upper-case names for settings, so nothing of ours has one.
"""

import os
import sys

if __name__ == "__main__":  # -I keeps its own folder out, and is to be told from a folder that is not there
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    sys.dont_write_bytecode = True

from plane_webhook import say
from plane_webhook.asked import LIBRARY as library
from plane_webhook.asked import LIMITS as limits
from plane_webhook.asked import asked, no_amqp, overrides, read


default = "plane.settings.production"  # what Plane's own code takes where DJANGO_SETTINGS_MODULE is not set


def overlay():
    """Everything upper-case of Plane's settings module, then what was asked for."""
    import importlib

    name = os.environ.get("PLANE_WEBHOOK_BASE_SETTINGS") or default
    package = name.partition(".")[0]
    if package != name and package not in sys.modules:
        # Settings are wanted before Plane's package is imported (tracing agents do that). Its import wants them too, and
        # needs them whole: from another copy of this module.
        this = sys.modules.pop(__name__)
        importlib.import_module(package)
        sys.modules[__name__] = this
    # plane.celery reads the settings while Plane's settings module is being imported: until that is done,
    # the variable has to name Plane's own module, or Python would meet this one half made.
    os.environ["DJANGO_SETTINGS_MODULE"] = name
    try:
        module = importlib.import_module(name)
    finally:
        os.environ["DJANGO_SETTINGS_MODULE"] = __name__
    base = {key: value for key, value in vars(module).items() if key.isupper()}
    new = {}
    try:
        settings = asked()
        new = overrides(read(os.environ, settings["env"])[0])
        publish, problem = settings["publish"], no_amqp(os.environ, base)
        if problem:
            say("NOT IN EFFECT: " + problem)
        elif publish["confirm"]:
            from plane_webhook import patches

            patches.install(publish, base.get("REDIS_URL"), base.get("SECRET_KEY"))
    except Exception as error:  # ours must not keep Plane from starting
        say("NOT IN EFFECT: %s in line %d of the overlay" % (type(error).__name__, error.__traceback__.tb_lineno))
    return dict(base, **new)


def elsewhere(folder):
    """Whether this is another application, which names its settings in its own code and has no module by Plane's name.

    `folder` is where the program looks first; `-`: nobody can tell from here where that is.
    """
    if folder == "-" or os.environ.get("PLANE_WEBHOOK_BASE_SETTINGS") != default:
        return False
    places = [folder or "."] + os.environ.get("PYTHONPATH", "").split(os.pathsep) + sys.path[1:]
    ends = [os.path.join("plane", "settings", "production" + end) for end in (".py", ".pyc", "")]
    return not any(os.path.exists(os.path.join(place, end)) for place in places for end in ends)


def check(program, folder):
    """The lines for the log and the arguments to add. Raises ValueError with the reason why it can't be in effect.

    `folder`: where the program looks for modules first.
    """
    if sys.version_info < (3, 8):
        raise ValueError("its Python is older than 3.8")
    if sys.flags.ignore_environment or os.environ.get("PYTHONPATH", "").split(os.pathsep)[-1] != library:
        raise ValueError("its Python does not take the environment that it is given")
    if elsewhere(folder):
        raise ValueError("there is no %s here, and DJANGO_SETTINGS_MODULE names no other" % default)
    if no_amqp(os.environ):
        raise ValueError(no_amqp(os.environ))
    settings = asked()
    values, problems = read(os.environ, settings["env"])
    lines = ["NOT IN EFFECT: " + ", ".join(problems) + ": as Plane has it"] if problems else []
    shown = (program, values, settings["publish"], settings["version"], settings["digest"][:12])
    lines.append("in effect for %s: %s, publish %s (version %s, settings %s)" % shown)
    add = ["--%s %d" % (name[9:].lower().replace("_", "-"), values[name]) for name in limits if name in values]
    return lines, add if program == "gunicorn" else []


def main():
    try:
        lines, add = check(*sys.argv[1:])
        text, status = "".join("plane-webhook: %s\n" % each for each in lines), 0
        text += " ".join(["plane-webhook-add"] + add)
    except ValueError as error:
        text, status = str(error), 1
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    os._exit(status)  # at once: there is nothing to tidy up, and PYTHONINSPECT would ask for more


if __name__ == "__main__":
    main()
elif __name__ == "plane_webhook_settings" and os.environ.get("DJANGO_SETTINGS_MODULE") == __name__:
    globals().update(overlay())
