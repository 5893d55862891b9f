#!/bin/sh
""":"
command -v python3 >/dev/null || { echo '{"in_effect": false, "error": "there is no python3 on PATH"}'; exit 1; }
exec python3 -IS "$0" "$@"
"""

"""Prints as JSON what is in effect against what plane-webhook was asked for; exits 1 where they differ.

Run it in Plane's container: kubectl exec POD -- /plane-webhook/proof (`--show` prints our files there). Python 3.8 and newer; -IS keeps out what others put
into environment and site-packages. It shows no setting and no variable but those that plane-webhook sets.
"""

import json
import os
import subprocess
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "lib"))
sys.dont_write_bytecode = True
# Commands of manage.py that publish nothing: the shim has the same list.
IDLE = ("migrate", "wait_for_db", "wait_for_migrations", "collectstatic", "check")


def slurp(pid, name):
    with open("/proc/%d/%s" % (pid, name), "rb") as file:
        return os.fsdecode(file.read())


def ancestor(pid):
    """The first process of the family: PID 1, or what `kubectl exec` started."""
    parent = int(slurp(pid, "stat").rpartition(")")[2].split()[1])
    return ancestor(parent) if parent else pid


def program_of(argv, workload):
    """A process's program and where in argv it stands: gunicorn, celery and, in a consumer, a manage.py command; else None.

    An interpreter with its options and the program's path, or the title that setproctitle leaves. Not what only starts
    such a process and waits for it, as `tini -- gunicorn` does.
    """
    interpreted = os.path.basename(argv[0] if argv else "").startswith(("python", "pypy"))
    for at, word in enumerate(argv[: 6 if interpreted else 1]):
        name = os.path.basename(word).split(":")[0]
        if name in ("gunicorn", "celery"):
            return name, at
        if name == "manage.py" and workload == "consumer" and argv[at + 1 :] and argv[at + 1] not in IDLE:
            return name, at
    return None


def become_owner(workload):
    """Become the user whom Plane runs as: its newer entrypoints leave root, whom the kernel then keeps from looking in."""
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()) if os.geteuid() == 0 else ():
        try:
            argv, owner = slurp(pid, "cmdline").split("\0")[:-1], os.stat("/proc/%d" % pid)
        except OSError:  # gone meanwhile
            continue
        if owner.st_uid and program_of(argv, workload):
            os.setgroups([])
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)
            return


def processes(workload):
    """The container's processes that publish: (pid, program, interpreter, argv, environment), oldest first."""
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            argv = slurp(pid, "cmdline").split("\0")[:-1]
            environ = dict(item.split("=", 1) for item in slurp(pid, "environ").split("\0") if "=" in item)
            family = ancestor(pid)
        except OSError:  # gone meanwhile, or not ours to read
            continue
        program = program_of(argv, workload)
        if program:
            interpreter = [part for part in argv[: program[1]] if part != "-m"] or ["python3"]
            found.append((family, (pid, program[0], interpreter, argv, environ)))
    return [process for family, process in found if family == found[0][0]]


def last(argv, option):
    """The value that argparse takes: the last one, as `--option N` or `--option=N`; None when absent."""
    pairs = [word.split("=", 1) if "=" in word else [word, after] for word, after in zip(argv, argv[1:] + [""])]
    words = [value for name, value in pairs if name == option]
    return int(words[-1]) if words and words[-1].isdecimal() else None


def package(program, argv):
    """The package whose import makes the Celery app: of `plane.asgi:application` or `-A plane`."""
    for word, after in zip(argv, argv[1:] + [""]):
        module, _, name = word.partition(":")
        # `localhost:8000` and `unix:/run/plane.sock` are addresses; an application's factory is written with brackets.
        if program == "gunicorn" and module.replace(".", "").isidentifier() and name.split("(")[0].isidentifier():
            return module.split(".")[0]
        if program == "celery" and word in ("-A", "--app"):
            return after.split(":")[0].split(".")[0]
    return "plane"


def configuration(names, pid, program, interpreter, argv, environ):
    """Celery's configuration as a second process resolves it under the environment of the process `pid`."""
    command = interpreter + ["-m", "plane_webhook.console", "resolve", package(program, argv)] + names
    where, pipe, null = "/proc/%d/cwd" % pid, subprocess.PIPE, subprocess.DEVNULL
    # Of ours it may have nothing, and that is to be seen from what it has.
    folders = [folder for folder in (environ.get("PYTHONPATH"), os.path.join(here, "lib")) if folder]
    environ = dict(environ, PYTHONPATH=os.pathsep.join(folders))
    try:
        run = subprocess.run(command, env=environ, cwd=where, stdin=null, stdout=pipe, stderr=null, timeout=120)
        found = json.loads(run.stdout.rpartition(b"\nplane-webhook-proof ")[2].split(b"\n")[0].decode())
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        found = {"error": "%s from %s" % (type(error).__name__, interpreter[0])}
    if "error" in found:
        raise ValueError("Celery's configuration can't be resolved: " + found["error"])
    return found


def fill(ours, settings, row):
    """Call `row(what, asked, found, how)` for each check; returns what the spool holds and what the processes say."""
    running = processes(settings["workload"])
    if not running:
        programs = "manage.py, gunicorn" if settings["workload"] == "consumer" else "gunicorn"
        raise ValueError("no %s or celery process runs here (or none that this user may read)" % programs)
    pid, program, _, argv, environ = running[0]
    how = "read from /proc/PID/environ of " + ", ".join(str(process[0]) for process in running)

    def same(name):
        values = {process[0]: process[4].get(name) for process in running}
        return environ.get(name) if len(set(values.values())) == 1 else values

    row("DJANGO_SETTINGS_MODULE", "plane_webhook_settings", same("DJANGO_SETTINGS_MODULE"), how)
    values, problems = ours.read(environ, settings["env"])
    for problem in problems:
        row(problem.split()[0], "a usable value", problem, how)
    for name, asked in settings["env"].items():
        if name not in settings["kept"] and settings["precedence"] == "webhook":
            row(name, asked, same(name), how)
    for name in ours.LIMITS if program == "gunicorn" else ():
        if name in values:
            option = "--" + name[9:].lower().replace("_", "-")
            row("gunicorn " + option, values[name], last(argv, option), "read from /proc/%d/cmdline" % pid)
    wanted = {name[7:].lower(): asked for name, asked in ours.overrides(values).items()}
    found = configuration(list(wanted), *running[0])
    how = "inferred: resolved by a second process under the environment of process %d" % pid
    for name, asked in wanted.items():
        row("Celery " + name, asked, found[name], how)
    row("Celery's transport", "py-amqp", found["transport"], how)
    row("tasks are published with confirmation", settings["publish"]["confirm"], found["publisher"], how)
    if settings["publish"]["confirm"] and settings["publish"]["spool"] != "none":
        row("the spool can be reached", True, found["spool"].get("error", True), "asked of Redis")
    return found["spool"], [state(process[0]) for process in running]


def state(pid):
    """What a process says of its broker: only one that has met trouble has said anything."""
    try:
        with open(os.path.join(here, "state", str(pid)), encoding="utf-8") as file:
            return dict(json.load(file), pid=pid)
    except (OSError, ValueError):
        return {"pid": pid, "state": "healthy"}


def show():
    """The files that the webhook's command brought, for people to read."""
    for folder, _, names in sorted(os.walk(here)):
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not path.startswith(os.path.join(here, "state")) and not path.endswith(".pyc"):
                with open(path, encoding="utf-8") as file:
                    print("==> %s\n%s" % (path, file.read()))


def main():
    if sys.argv[1:] == ["--show"]:
        return show()
    if sys.argv[1:]:
        print("usage: /plane-webhook/proof [--show]", file=sys.stderr)
        return 2
    report = {"in_effect": False, "checks": []}

    def row(what, asked, found, how):
        report["checks"].append({"what": what, "asked": asked, "found": found, "agrees": asked == found, "how": how})

    try:
        from plane_webhook import asked as ours

        settings = ours.asked()
        report.update(version=settings["version"], settings=settings["digest"], kept=settings["kept"])
        become_owner(settings["workload"])
        report["spool"], report["processes"] = fill(ours, settings, row)
        report["in_effect"] = all(each["agrees"] for each in report["checks"])
    except Exception as error:
        report["error"] = str(error) if type(error) is ValueError else repr(error)
    print(json.dumps(report, indent=2))
    return 0 if report["in_effect"] else 1


if __name__ == "__main__":
    sys.exit(main())
