"""What runs as `python manage.py`: register_instance before the API's gunicorn, and consumers. All else is left alone.

In the API and in consumers the launcher stands on PATH as python too, so each call of it passes through the shim.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import amqp
import pytest

from lab.container import Container, Shell
from lab.faults import SWALLOW, Proxy
from lab.injected import (
    DEFAULTS,
    OVERLAY,
    SETTINGS,
    SHELLS,
    SHELLS_OWN,
    SHIM,
    SHOW,
    Json,
    code,
    inject,
    pod,
    run,
    script,
    with_code,
    with_files,
    word,
)
from lab.process import free_port, wait_for
from lab.redis import Redis
from webhook import payload
from webhook.admission import target
from webhook.admission.injection import MOUNT_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.broker import Broker
    from lab.images import Image

lab = pytest.mark.lab
every_shell = pytest.mark.parametrize("shell", SHELLS)

PYTHON = "/usr/local/bin/python"
KEY = "s3cret of the lab" * 3  # SECRET_KEY
API, ENTERPRISE = "docker-entrypoint-api.sh", "docker-entrypoint-api-ee.sh"
CONSUMER = "docker-entrypoint-webhook-consumer.sh"
ODD_VARIABLES = {"LINES": "one\n'two'\n", "a.b": 'it\'s\n$(x) `y` \\ "z"', "some-name": "", "odd'name\"": "x=y"}
OVERLAID = {
    "DJANGO_SETTINGS_MODULE": "plane_webhook_settings",
    "PLANE_WEBHOOK_BASE_SETTINGS": "plane.settings.production",
    "PYTHONPATH": f"{MOUNT_PATH}/lib",
}
CELERYS = {name: value for name, value in DEFAULTS.items() if name.startswith("CELERY_")}


@pytest.fixture(scope="module")
def small(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image with a manage.py that says what it was given; its second argument says what it does."""
    folder = code(tmp_path_factory.mktemp("code") / "code")
    script(folder / "manage.py", "#!/usr/bin/env python\n" + SHOW.replace("argv[1]", "argv[2]").replace("> 1", "> 2"))
    return with_code(image, folder)


def calling(call: str, entrypoint: str = API, **container: Any) -> Json:
    """A pod whose bash becomes what is called, by PATH, as Plane's entrypoints do."""
    return pod("/bin/bash", "-c", f"{call}\n: # says what it is\n", f"./bin/{entrypoint}", **container)


def assert_environment(before: dict[str, str], after: dict[str, str], changed: dict[str, str]) -> None:
    before, after = ({k: v for k, v in each.items() if k not in SHELLS_OWN} for each in (before, after))
    assert after == {**before, **changed}


# --- what is left alone

LEFT_ALONE = (
    "exec python show.py 'a  b' '' '*' -c",
    "exec python3 show.py manage.py register_instance",
    "exec python -m show manage.py register_instance",
    "exec python -m manage register_instance",
    "exec python -c \"exec(open('show.py').read())\" manage.py register_instance",
    "exec python - manage.py register_instance <show.py",
    "exec python -B -X utf8 show.py",
    "exec python manage.py wait_for_db",
    "exec python /code/manage.py migrate --no-input",
    "exec python3 ./manage.py clear_cache",
    "exec ./manage.py check",
    "exec python manage.py --version register_instance",
    "exec python manage.py 'register_instance;id'",
    "exec python manage.py",
    f"exec {PYTHON} manage.py register_instance",
    "python show.py",
)


@lab
@every_shell
@pytest.mark.parametrize("call", LEFT_ALONE)
def test_any_other_call_of_python_is_as_without_us(small: Image, shell: Shell, call: str) -> None:
    what = calling(call, env=ODD_VARIABLES)
    plain, ours = run(small, what, shell=shell), run(small, inject(what), shell=shell)
    assert (plain.code, ours.code, ours.loud, ours.in_effect) == (0, 0, [], [])
    before, after = plain.shown, ours.shown
    # The one difference: a name without a path would have Python take our folder for its own.
    assert after["argv"][1:] == before["argv"][1:]
    assert after["argv"][0] in (before["argv"][0], f"/usr/local/bin/{before['argv'][0]}")
    # A child's number depends on how many processes there were before it.
    for name in ("cwd", "umask", "signals", "descriptors", "open", *(["pid"] if call.startswith("exec ") else [])):
        assert after[name] == before[name], name
    assert_environment(before["env"], after["env"], {**DEFAULTS, "PATH": f"{MOUNT_PATH}/bin:{before['env']['PATH']}"})


@lab
@every_shell
def test_python_finds_its_own_folders_and_what_it_calls_finds_ours(small: Image, shell: Shell) -> None:
    text = "import sys, shutil; print(sys.executable, sys.prefix, sys.path[1:], len(sys.flags)); "
    what = calling(
        f"python -c '{text}'; python3 -c '{text}'; python -c 'import shutil; print(shutil.which(\"celery\"))'"
    )
    plain, ours = run(small, what, shell=shell), run(small, inject(what), shell=shell)
    assert ours.stdout.splitlines()[:-1] == plain.stdout.splitlines()[:-1]
    assert plain.stdout.startswith("/usr/local/bin/python ")
    assert ours.stdout.splitlines()[-1] == f"{MOUNT_PATH}/bin/celery"
    assert ours.loud == []


@lab
@every_shell
@pytest.mark.parametrize("command", ["show.py", "manage.py wait_for_db", "manage.py register_instance"])
def test_exit_codes_and_signals_are_as_without_us(small: Image, shell: Shell, command: str) -> None:
    for number in (3, 255):
        assert run(small, inject(calling(f"exec python {command} 'exit {number}'")), shell=shell).code == number
    with Container.from_pod(inject(calling(f"exec python {command} handle")), image=small, shell=shell) as container:
        container.wait_for_log("STAYS\n")
        container.signal(15)
        assert container.wait() == 7


# --- what is taken up

TAKEN_UP = (
    (API, "exec python manage.py register_instance 'a  b' '*'", "register_instance"),
    (API, "exec python3 /code/manage.py register_instance", "register_instance"),
    (API, "exec ./manage.py register_instance", "register_instance"),
    (API, "exec python manage.py register_instance_ee 'a  b'", "register_instance_ee"),
    (API, "cd /; exec python code/manage.py startup commercial", "startup"),
    (CONSUMER, "exec python manage.py run_webhook_consumer --queue x", "run_webhook_consumer"),
    (CONSUMER, "python manage.py wait_for_db >/dev/null; python ./manage.py register_instance", "register_instance"),
)


@lab
@every_shell
@pytest.mark.parametrize(("entrypoint", "call", "command"), TAKEN_UP)
def test_a_command_that_publishes_gets_the_overlay_and_nothing_else(
    small: Image, shell: Shell, *, entrypoint: str, call: str, command: str
) -> None:
    what = calling(call, entrypoint, env=ODD_VARIABLES)
    plain, ours = run(small, what, shell=shell), run(small, inject(what), shell=shell)
    before, after = plain.shown, ours.shown
    assert after["argv"][1:] == before["argv"][1:]
    assert (after["pid"] == 1) == ("exec " in call)
    assert after["argv"][0] in (PYTHON, PYTHON + "3")
    for name in ("cwd", "umask", "signals", "descriptors", "open"):
        assert after[name] == before[name], name
    assert_environment(before["env"], after["env"], {**(DEFAULTS if entrypoint == API else CELERYS), **OVERLAID})
    assert (len(ours.in_effect), ours.loud) == (1, [])
    assert ours.in_effect[0].startswith(f"plane-webhook: in effect for manage.py {command}: ")


@lab
@every_shell
def test_a_consumer_whose_command_is_manage_py_itself_is_taken_up(small: Image, shell: Shell) -> None:
    what = pod("python", "manage.py", "sync", "docker-entrypoint-sync-consumer.sh", env=ODD_VARIABLES)
    ours = run(small, inject(what), shell=shell)
    assert (ours.shown["pid"], ours.shown["argv"][:3]) == (1, [PYTHON, "manage.py", "sync"])
    assert_environment(run(small, what, shell=shell).shown["env"], ours.shown["env"], {**CELERYS, **OVERLAID})
    assert (len(ours.in_effect), ours.loud) == (1, [])


@lab
@every_shell
@pytest.mark.parametrize("workload", ["worker", "beat"])
def test_other_workloads_have_no_python_of_ours(small: Image, shell: Shell, workload: str) -> None:
    what = inject(calling(f"ls {MOUNT_PATH}/bin; exec python manage.py sync", f"docker-entrypoint-{workload}.sh"))
    ours = run(small, what, shell=shell)
    assert ours.stdout.split()[:2] == ["celery", "gunicorn"]
    assert (ours.shown["argv"][0], ours.in_effect) == ("python", [])


@lab
@every_shell
def test_shell_options_from_the_environment_change_nothing(small: Image, shell: Shell) -> None:
    env = {"SHELLOPTS": "errexit:nounset:noclobber:noglob", **ODD_VARIABLES}
    for call, effect in (("manage.py register_instance", 1), ("manage.py wait_for_db", 0), ("show.py", 0)):
        what = calling(f"exec python {call}", env=env)
        plain, ours = run(small, what, shell=shell), run(small, inject(what), shell=shell)
        assert ours.shown["argv"][1:] == plain.shown["argv"][1:]
        assert (len(ours.in_effect), ours.loud) == (effect, [])
        assert ODD_VARIABLES.items() <= ours.shown["env"].items()


# --- PATH, and never ourselves again

PATHS = {
    "ours twice": f"{MOUNT_PATH}/bin:/usr/local/bin:/bin:{MOUNT_PATH}/bin",
    "ours by another spelling": f"{MOUNT_PATH}/bin/:{MOUNT_PATH}//bin:{MOUNT_PATH}/./bin/:/usr/local/bin:/bin",
    "ours by a link": "/code/link:/usr/local/bin:/bin",
    "with empty parts": ":/usr/local/bin::/bin:",
    "relative": "programs:../usr/local/bin:/bin",
    "without the tools": "/usr/local/bin",
}


@lab
@every_shell
@pytest.mark.parametrize("how", PATHS)
@pytest.mark.parametrize("command", ["show.py", "manage.py register_instance"])
def test_whatever_the_path_it_is_the_real_one_that_runs(small: Image, shell: Shell, how: str, command: str) -> None:
    link = Path(small.code, "link")
    if not link.is_symlink():
        link.symlink_to(f"{MOUNT_PATH}/bin")
    ours = run(small, inject(calling(f"exec python {command}", env={"PATH": PATHS[how]})), shell=shell)
    assert ours.shown["argv"][1:] == command.split()
    assert ours.shown["argv"][0].endswith("/usr/local/bin/python") or ours.shown["argv"][0] == PYTHON
    assert (len(ours.in_effect), ours.loud) == (command != "show.py", [])


@lab
@every_shell
def test_a_python_in_the_folder_itself_is_found_by_an_empty_part(image: Image, shell: Shell, tmp_path: Path) -> None:
    folder = code(tmp_path / "code")
    script(folder / "python", f'#!/bin/bash\necho by the folder >&2\nexec {PYTHON} "$@"\n')
    what = inject(calling("exec python show.py", env={"PATH": ":/usr/local/bin:/bin"}))
    ours = run(with_code(image, folder), what, shell=shell)
    assert "by the folder" in ours.stderr
    assert ours.shown["argv"] == [PYTHON, "show.py"]


@lab
@every_shell
@pytest.mark.parametrize("path", ["", "/nowhere", "/bin/nothing:/code", f"{MOUNT_PATH}/bin/"])
def test_where_there_is_no_python_it_ends_as_without_us(small: Image, shell: Shell, path: str) -> None:
    for words in (("python", "show.py"), ("python", "manage.py", "register_instance")):
        what = pod(*words, API, env={"PATH": path})
        plain, ours = run(small, what, shell=shell), run(small, inject(what), shell=shell)
        assert (plain.code, ours.code, ours.in_effect) == (127, 127, [])


# --- something is amiss


def broken(what: Json, how: str) -> Json:
    if how == "the overlay":
        return with_files(what, {OVERLAY: "def\n"})
    text = what["spec"]["containers"][0]["command"][SETTINGS]
    return word(what, SETTINGS, text.replace('"patience"', '"x"'))


AMISS = {"the overlay": "SyntaxError: .*", "the settings": "settings.json can't be used: KeyError: 'patience'"}


@lab
@every_shell
@pytest.mark.parametrize("how", AMISS)
def test_what_is_amiss_leaves_the_command_as_it_was_and_one_line_says_so(small: Image, shell: Shell, how: str) -> None:
    for entrypoint, command in ((API, "register_instance"), (CONSUMER, "sync")):
        # Not in the pod's own words, where they would be its operator's.
        what = calling(f"exec python manage.py {command} x $OPTIONS", entrypoint, env={"OPTIONS": "--max-requests 0"})
        plain, ours = run(small, what, shell=shell), run(small, broken(inject(what), how), shell=shell)
        assert ours.shown["argv"][1:] == plain.shown["argv"][1:]  # no rotation that a command could not take
        defaults = DEFAULTS if entrypoint == API else CELERYS
        assert_environment(plain.shown["env"], ours.shown["env"], defaults)
        (line,) = ours.loud
        said = f"plane-webhook: NOT IN EFFECT: .*{AMISS[how]}; manage.py {command} runs as it was called"
        assert re.fullmatch(said, line)
        assert ours.in_effect == []


@lab
@every_shell
@pytest.mark.parametrize("option", ["--settings=plane.settings.mine", "--settings plane.settings.mine"])
def test_an_option_that_names_settings_is_said(small: Image, shell: Shell, option: str) -> None:
    ours = run(small, inject(calling(f"exec python manage.py register_instance {option}")), shell=shell)
    (line,) = ours.loud
    assert "an option names another DJANGO_SETTINGS_MODULE; manage.py register_instance runs as" in line
    assert "DJANGO_SETTINGS_MODULE" not in ours.shown["env"]


@lab
@every_shell
def test_settings_that_vanished_are_said_where_a_consumer_starts(small: Image, shell: Shell) -> None:
    what = calling(f"rm {MOUNT_PATH}/settings.json; exec python manage.py sync", CONSUMER)
    ours = run(small, inject(what), shell=shell)
    (line,) = ours.loud
    assert "settings.json can't be used: FileNotFoundError" in line
    assert ours.shown["argv"][1:] == ["manage.py", "sync"]


@lab
@every_shell
def test_another_broker_leaves_a_command_alone(small: Image, shell: Shell) -> None:
    what = calling("exec python manage.py register_instance", env={"AMQP_URL": "redis://:s3cret@h/0"})
    (line,) = run(small, inject(what), shell=shell).loud
    assert "AMQP_URL names no AMQP broker" in line
    assert "s3cret" not in line


def test_the_commands_that_are_left_alone_are_the_same_everywhere() -> None:
    shim = re.search(r"^ +(migrate \|[^)]*)\) return 1", payload.FILES[SHIM], re.MULTILINE)
    proof = re.search(r"^IDLE = \(([^)]*)\)", payload.FILES["proof"], re.MULTILINE)
    assert shim
    assert proof
    assert set(shim[1].split(" | ")) == set(re.findall(r"\w+", proof[1])) == target._IDLE_COMMANDS  # noqa: SLF001


# --- register_instance of the small Plane, before gunicorn


@contextmanager
def starting(
    image: Image, broker: Broker, *, injected: bool, redis: Redis | None, door: Any = "refuse", entrypoint: str = API
) -> Iterator[Any]:
    """Start the API, which registers itself; yield it, its port and the proxy that is its broker's door."""
    port = free_port()
    variables = {"PORT": str(port), "GUNICORN_WORKERS": "1", "SECRET_KEY": KEY}
    variables["REDIS_URL"] = redis.url if redis else "redis://127.0.0.1:9/"
    with Proxy(broker.port) as proxy:
        proxy.door(door)
        variables["AMQP_URL"] = f"amqp://guest:guest@127.0.0.1:{proxy.port}//"
        what = pod(f"./bin/{entrypoint}", map_name="vars")
        what = inject(what) if injected else what
        with Container.from_pod(what, image=image, config_maps={"vars": variables}) as container:
            yield container, port, proxy


def seconds_of_register_instance(container: Container) -> float:
    """From the end of the command before it to its own end, or the container's."""
    container.wait_for_log("No migrations pending")
    start = time.monotonic()
    wait_for(lambda: "Instance registered" in container.stdout or not container.process.alive(), 60, "it has ended")
    return time.monotonic() - start


@lab
@pytest.mark.parametrize(("entrypoint", "command"), [(API, "register_instance"), (ENTERPRISE, "startup")])
def test_without_a_broker_the_api_starts_and_what_was_kept_is_delivered_later(
    image: Image, broker: Broker, redis: Redis, entrypoint: str, command: str
) -> None:
    broker.take()
    with starting(image, broker, injected=False, redis=redis, entrypoint=entrypoint) as (container, *_):
        upstream = seconds_of_register_instance(container)
        assert container.wait() == 1  # Plane's crash loop
    with starting(image, broker, injected=True, redis=redis, entrypoint=entrypoint) as (container, port, proxy):
        ours = seconds_of_register_instance(container)
        print(f"{command} without a broker, s: upstream {upstream:.2f} and fails, ours {ours:.2f} and goes on")
        container.wait_ready(port)
        assert f"in effect for manage.py {command}: " in container.stderr
        assert "NOT IN EFFECT" not in container.stderr
        spool = json.loads(container.exec([f"{MOUNT_PATH}/spool"]).stdout)
        assert spool["waiting"] == 1
        assert broker.queue_depth() == 0
        proxy.door("open")
        wait_for(lambda: broker.queue_depth() == 1, 60, "it is delivered")
        wait_for(lambda: json.loads(container.exec([f"{MOUNT_PATH}/spool"]).stdout)["waiting"] == 0, 30, "it is empty")
    assert len(broker.take()) == 1
    assert ours < upstream + 1.5  # the overlay's import; upstream's own tries take longer than our patience


@lab
def test_without_broker_and_redis_it_fails_as_upstreams_does_and_as_quickly(image: Image, broker: Broker) -> None:
    took = {}
    for injected in (False, True):
        with starting(image, broker, injected=injected, redis=None) as (container, *_):
            took[injected] = seconds_of_register_instance(container)
            assert container.wait() == 1
            assert "OperationalError" in container.stderr
    print(f"register_instance without broker and Redis, s: upstream {took[False]:.2f}, ours {took[True]:.2f}")
    assert took[True] < took[False] + 1.5


@lab
def test_a_broker_that_answers_nothing_holds_the_start_up_no_longer_than_upstreams(
    image: Image, broker: Broker, redis: Redis
) -> None:
    with starting(image, broker, injected=False, redis=redis, door="deaf") as (container, *_):
        upstream = seconds_of_register_instance(container)
        assert container.wait() == 1
    with starting(image, broker, injected=True, redis=redis, door="deaf") as (container, port, proxy):
        ours = seconds_of_register_instance(container)
        print(f"register_instance, no answer of the broker, s: upstream {upstream:.2f} and fails, ours {ours:.2f}")
        container.wait_ready(port)
        proxy.door("open")
        wait_for(lambda: broker.queue_depth() == 1, 60, "it is delivered")
    broker.take()
    assert ours < upstream + 1  # patience is 1 s, and upstream waits 4 for a connection


@lab
def test_with_a_broker_it_is_published_before_gunicorn_starts(image: Image, broker: Broker, redis: Redis) -> None:
    broker.take()
    with starting(image, broker, injected=True, redis=redis, door="open") as (container, port, _):
        container.wait_for_log("Instance registered")
        assert broker.queue_depth() == 1
        container.wait_ready(port)
        assert [line.split(":")[1] for line in container.stderr.splitlines() if "in effect for" in line] == [
            " in effect for manage.py register_instance",
            " in effect for gunicorn",
        ]
    assert len(broker.take()) == 1


# --- a consumer

QUEUE, EVENTS = "plane.events", 20


@contextmanager
def consuming(image: Image, broker: Broker, redis: Redis, *, injected: bool) -> Iterator[tuple[Container, Proxy]]:
    """Run the small Plane's consumer; the proxy's faults strike only connections that a task was published on."""
    with broker.channel() as channel:
        channel.queue_declare(QUEUE, durable=True, auto_delete=False)
        channel.queue_purge(QUEUE)
    broker.take()
    with Proxy(broker.port, tasks_only=True) as proxy:
        url = f"amqp://guest:guest@127.0.0.1:{proxy.port}//"
        maps = {"vars": {"AMQP_URL": url, "REDIS_URL": redis.url, "SECRET_KEY": KEY}}
        what = pod(f"./bin/{CONSUMER}", map_name="vars")
        what = inject(what) if injected else what
        with Container.from_pod(what, image=image, config_maps=maps) as container:
            container.wait_for_log("consuming")
            yield container, proxy


def put(broker: Broker, *events: str) -> None:
    with broker.channel() as channel:
        for each in events:
            channel.basic_publish_confirm(amqp.Message(each, content_encoding="utf-8"), routing_key=QUEUE)


@lab
def test_proof_finds_a_consumer(image: Image, broker: Broker, redis: Redis) -> None:
    with consuming(image, broker, redis, injected=True) as (container, _):
        ran = container.exec([f"{MOUNT_PATH}/proof"])
        report: Json = json.loads(ran.stdout)
        assert ran.returncode == 0, report
        assert report["in_effect"] is True
        assert [each["pid"] for each in report["processes"]] == [1]
        what = {row["what"]: row for row in report["checks"]}
        assert what["DJANGO_SETTINGS_MODULE"]["how"] == "read from /proc/PID/environ of 1"
        assert {"tasks are published with confirmation", "the spool can be reached"} <= what.keys()
        assert not [name for name in what if "gunicorn" in name.lower()]
        assert container.processes()[0].argv == (PYTHON, "manage.py", "run_webhook_consumer")
        # `kubectl exec` has the container's PATH, and so Plane's own Python and settings.
        text = "import os, sys; print(os.environ['DJANGO_SETTINGS_MODULE'], sys.executable, os.environ['PATH'])"
        shown = container.exec(["python", "manage.py", "shell", "-c", text])
        assert shown.stdout.split()[-3:] == ["plane.settings.production", PYTHON, image.env["PATH"]]
        assert "plane-webhook" not in shown.stderr


@lab
def test_a_consumer_without_the_overlay_is_shown_as_such(image: Image, tmp_path: Path, redis: Redis) -> None:
    folder = shutil.copytree(image.code, tmp_path / "code")
    script(folder / "bin" / CONSUMER, f"#!/bin/bash\nexec {PYTHON} manage.py run_webhook_consumer\n")
    script(
        folder / "plane/db/management/commands/run_webhook_consumer.py",
        "import time\nfrom django.core.management.base import BaseCommand\nclass Command(BaseCommand):\n"
        "    def handle(self, *args, **options):\n        print('consuming', flush=True)\n        time.sleep(100)\n",
    )
    maps = {"vars": {"AMQP_URL": "amqp://127.0.0.1:9//", "REDIS_URL": redis.url, "SECRET_KEY": KEY}}
    what = inject(pod(f"./bin/{CONSUMER}", map_name="vars"))
    with Container.from_pod(what, image=replace(image, code=folder), config_maps=maps) as container:
        container.wait_for_log("consuming")
        report = json.loads(container.exec([f"{MOUNT_PATH}/proof"]).stdout)
    assert report["in_effect"] is False
    assert {row["what"] for row in report["checks"] if not row["agrees"]} == {
        "DJANGO_SETTINGS_MODULE",
        "tasks are published with confirmation",
    }


@lab
@pytest.mark.parametrize("injected", [False, True])
def test_what_a_consumer_dispatches_after_its_connection_died_silently_arrives(
    image: Image, broker: Broker, redis: Redis, *, injected: bool
) -> None:
    with consuming(image, broker, redis, injected=injected) as (container, proxy):
        put(broker, "first")
        container.wait_for_log("dispatched first")
        wait_for(lambda: broker.queue_depth() == 1, 30, "it arrives")
        (own,) = [link for link in proxy.links if not link.task]
        (publishing,) = [link for link in proxy.links if link.task]
        broker.take()
        proxy.flow(up=SWALLOW, down=SWALLOW)
        put(broker, *(f"event-{number}" for number in range(EVENTS)))
        container.wait_for_log(f"dispatched event-{EVENTS - 1} ", timeout=120)
        assert container.stdout.count("\ndispatched event-") == EVENTS
        assert "not dispatched" not in container.stderr
        if injected:
            wait_for(lambda: broker.queue_depth() >= EVENTS, 60, "they arrive")
        else:
            time.sleep(3)
            assert publishing in proxy.links  # nobody has noticed
        assert own in proxy.links  # the connection that it consumes on is the one that it was
        assert own.task is False
        assert len([link for link in proxy.links if not link.task]) == 1
        arrived = broker.take()
        ids = re.findall(r"dispatched event-\d+ as ([\w-]+)", container.stdout)
    print(f"dispatched {EVENTS}, arrived {len(arrived)}")
    assert sorted(arrived) == (sorted(ids) if injected else [])
