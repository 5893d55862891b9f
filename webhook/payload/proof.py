#!/usr/bin/env python3
"""Prints as JSON what is in effect against what plane-webhook was asked for; exits 1 where they differ.

Run it in Plane's container: kubectl exec POD -- /plane-webhook/proof. Python 3.8 and newer.
"""

import json
import os
import subprocess
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "lib"))
sys.dont_write_bytecode = True
import plane_webhook_settings as ours  # noqa: E402

celery_names = {
    "CELERY_TASK_PUBLISH_RETRY": "task_publish_retry",
    "CELERY_BROKER_POOL_LIMIT": "broker_pool_limit",
    "CELERY_TASK_PUBLISH_RETRY_POLICY": "task_publish_retry_policy",
    "CELERY_BROKER_CONNECTION_TIMEOUT": "broker_connection_timeout",
    "CELERY_BROKER_TRANSPORT_OPTIONS": "broker_transport_options",
}
resolve = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
from celery import current_app, signals
conf = {name: current_app.conf[name] for name in sys.argv[2:]}
conf["mandatory"] = any("plane-webhook" in str(key) for key, *_ in signals.before_task_publish.receivers or [])
print("\\nplane-webhook-proof " + json.dumps(conf, default=str))
"""


def slurp(path):
    with open(path, "rb") as file:
        return [part.decode(errors="replace") for part in file.read().split(b"\0")[:-1]]


def processes():
    """The live gunicorn and celery processes: (pid, program, argv, environment), oldest first."""
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            argv = slurp("/proc/%d/cmdline" % pid)
            environ = dict(item.split("=", 1) for item in slurp("/proc/%d/environ" % pid) if "=" in item)
        except OSError:  # gone meanwhile, or not ours to read
            continue
        # An interpreter and the program's path, or the title that setproctitle leaves: "gunicorn: worker [...]".
        for word in argv[:2]:
            program = os.path.basename(word).split(":")[0]
            if program in ("gunicorn", "celery"):
                yield pid, program, argv, environ
                break


def last(argv, option):
    """The value that argparse takes: the last one, as `--option N` or `--option=N`; None when absent."""
    found = None
    for index, word in enumerate(argv):
        if word == option and index + 1 < len(argv):
            found = argv[index + 1]
        elif word.startswith(option + "="):
            found = word[len(option) + 1 :]
    return int(found) if found and found.isdecimal() else found


def package(program, argv):
    """The package whose import makes the Celery app: of `plane.asgi:application` or `-A plane`."""
    for index, word in enumerate(argv):
        if program == "gunicorn" and ":" in word and word.split(":")[0].replace(".", "").isidentifier():
            return word.split(".")[0]
        if program == "celery" and word in ("-A", "--app") and index + 1 < len(argv):
            return argv[index + 1].split(".")[0].split(":")[0]
    return "plane"


def celery(pid, program, argv, environ):
    """Celery's configuration as a second process resolves it under the environment of the process `pid`."""
    command = [argv[0], "-c", resolve, package(program, argv)] + list(celery_names.values())
    run = subprocess.run(
        command, env=environ, cwd="/proc/%d/cwd" % pid, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120
    )
    for line in reversed(run.stdout.decode(errors="replace").splitlines()):
        if line.startswith("plane-webhook-proof "):
            return json.loads(line.split(" ", 1)[1])
    raise RuntimeError("Celery's configuration can't be resolved: " + run.stderr.decode(errors="replace")[-2000:])


def checks(settings):
    """One row a check: what, asked, found, how it was found."""
    running = list(processes())
    if not running:
        raise RuntimeError("no gunicorn or celery process is running here (or none that this user may read)")
    pid, program, argv, environ = running[0]
    values, problems = ours.read(environ, settings["env"])
    for problem in problems:
        yield "variable", "a usable value", problem, "read from /proc/%d/environ" % pid
    for each, _, _, its in running:
        how = "read from /proc/%d/environ" % each
        yield "settings module", "plane_webhook_settings", its.get("DJANGO_SETTINGS_MODULE"), how
        for name, asked in settings["env"].items():
            if name not in settings["kept"] and settings["precedence"] == "webhook":
                yield name, asked, its.get(name), how
    if program == "gunicorn":
        for name in ("GUNICORN_MAX_REQUESTS", "GUNICORN_MAX_REQUESTS_JITTER"):
            if name in values:
                option = "--" + name[9:].lower().replace("_", "-")
                yield "gunicorn " + option, values[name], last(argv, option), "read from /proc/%d/cmdline" % pid
    found = celery(*running[0])
    wanted, problems = ours.overrides({}, values, settings["publish"])
    how = "inferred: resolved by a second process under the environment of process %d" % pid
    for name, asked in wanted.items():
        value = found[celery_names[name]]
        if isinstance(asked, dict) and isinstance(value, dict):  # merged into Plane's own
            value = {key: value.get(key) for key in asked}
        yield "Celery " + celery_names[name], asked, value, how
    yield "Celery mandatory", settings["publish"]["mandatory"], found["mandatory"], how


def main():
    settings = ours.asked()
    report = {"version": settings["version"], "settings": settings["digest"], "kept": settings["kept"]}
    try:
        report["checks"] = [
            {"what": what, "asked": asked, "found": found, "agrees": asked == found, "how": how}
            for what, asked, found, how in checks(settings)
        ]
        agrees = all(row["agrees"] for row in report["checks"])
    except Exception as error:
        report["error"] = str(error)
        agrees = False
    print(json.dumps(dict({"in_effect": agrees}, **report), indent=2))
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
