"""The settings overlay: the same on every Python that Plane's images had, over whatever Plane's own settings are."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab import images
from lab.cache import LabError
from lab.injected import NO_BROKER, SETTINGS, Json, Ran, inject, pod, run, script, with_code
from webhook import payload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.images import Image

LIBRARY = Path(payload.__file__).parent / "lib"
ASKED: Json = json.loads(inject(pod())["spec"]["containers"][0]["command"][SETTINGS])
PUBLISH: Json = ASKED["publish"]


def call(python: Path, function: str, cases: list[Any]) -> list[Any]:
    """Call a function of `asked` once for each list of arguments, under another Python."""
    text = "import json, sys, plane_webhook.asked as its; "
    text += f"print(json.dumps([its.{function}(*case) for case in json.load(sys.stdin)]))"
    run = subprocess.run(
        [python, "-B", "-W", "error", "-c", text],
        input=json.dumps(cases),
        cwd=LIBRARY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)


WANTED = ASKED["env"]
LIMITS = {"GUNICORN_MAX_REQUESTS": 0, "GUNICORN_MAX_REQUESTS_JITTER": 0}
CELERY = {"CELERY_TASK_PUBLISH_RETRY": True, "CELERY_BROKER_POOL_LIMIT": 10}
READ = [
    ({}, {**LIMITS, **CELERY}, 0),
    ({"GUNICORN_MAX_REQUESTS": " 50\n", "UNKNOWN": "x"}, {**LIMITS, **CELERY, "GUNICORN_MAX_REQUESTS": 50}, 0),
    ({"CELERY_TASK_PUBLISH_RETRY": "1"}, {**LIMITS, **CELERY}, 0),
    ({"CELERY_TASK_PUBLISH_RETRY": "OFF"}, {**LIMITS, **CELERY, "CELERY_TASK_PUBLISH_RETRY": False}, 0),
    ({"CELERY_TASK_PUBLISH_RETRY": "2"}, {**LIMITS, "CELERY_BROKER_POOL_LIMIT": 10}, 1),
    ({"CELERY_BROKER_POOL_LIMIT": "None"}, {**LIMITS, "CELERY_TASK_PUBLISH_RETRY": True}, 1),
    ({"GUNICORN_MAX_REQUESTS_JITTER": "-1"}, CELERY, 1),
    ({"GUNICORN_MAX_REQUESTS": "²", "GUNICORN_MAX_REQUESTS_JITTER": "٣"}, CELERY, 2),
    (dict.fromkeys(WANTED, ""), {}, 4),
    (dict.fromkeys(WANTED, "9" * 5000), {}, 4),
]


def test_variables_are_read_alike(python: Path) -> None:
    results = call(python, "read", [[environ, WANTED] for environ, _, _ in READ])
    for (environ, values, count), (found, problems) in zip(READ, results, strict=True):
        assert (found, len(problems)) == (values, count), environ
        assert all(text.split()[0] in environ for text in problems)


TEXTS = ['{"a": [1, -2.5e3, true, false, null, "\\u00e9\\n", {}], "": ""}', " [] \n", "0", '"x"']


def test_json_is_read_alike(python: Path) -> None:
    """Without the json module, which is what it is checked against."""
    assert call(python, "decode", [[text] for text in TEXTS]) == [json.loads(text) for text in TEXTS]


def test_what_is_set_over_planes_settings_is_two_variables(python: Path) -> None:
    """Neither transport options nor timeouts nor a retry policy: consumers' connections are as upstream has them."""
    cases: list[Json] = [{**LIMITS, **CELERY}, {"CELERY_BROKER_POOL_LIMIT": 3}, LIMITS, {}]
    assert call(python, "overrides", [[values] for values in cases]) == [
        CELERY,
        {"CELERY_BROKER_POOL_LIMIT": 3},
        {},
        {},
    ]


# --- which broker it is: by Celery's own rule

AMQP, REDIS = "amqp://u:s3cret@h//", "redis://:s3cret@h/0"
NONE_NAMED = "the environment names no RabbitMQ: neither AMQP_URL nor RABBITMQ_HOST"
# The environment, Plane's settings (None: they aren't known yet), and what names another broker.
BROKERS: list[tuple[Json, Json | None, str]] = [
    # nothing named, and all the ways to name nothing
    ({}, None, NONE_NAMED),
    ({"AMQP_URL": ""}, None, NONE_NAMED),
    ({"AMQP_URL": "", "CELERY_BROKER_URL": "", "CELERY_BROKER_WRITE_URL": "", "REDIS_URL": REDIS}, None, NONE_NAMED),
    ({"CELERY_BROKER_READ_URL": AMQP}, None, NONE_NAMED),  # nothing is published there
    # what a chart names
    ({"AMQP_URL": AMQP}, None, ""),
    ({"RABBITMQ_HOST": "plane-mq"}, None, ""),
    ({"RABBITMQ_USER": "plane", "RABBITMQ_VHOST": "plane"}, None, ""),
    ({"AMQP_URL": AMQP, "REDIS_URL": REDIS}, None, ""),
    # schemes, and how they may be written
    *[
        ({"AMQP_URL": f"{scheme}://u:s3cret@h//"}, None, "")
        for scheme in ("amqp", "AMQP", "Amqp", "amqps", "AMQPS", "pyamqp", "PYAMQP")
    ],
    ({"AMQP_URL": "amqp://a;amqp://b"}, None, ""),
    ({"AMQP_URL": "amqps://u:s3cret@a;b;c"}, None, ""),
    ({"AMQP_URL": "plane-mq"}, None, ""),
    ({"AMQP_URL": "plane-mq:5672"}, None, ""),
    ({"AMQP_URL": "u:s3cret@plane-mq:5672/plane"}, None, ""),
    *[
        ({"AMQP_URL": f"{scheme}://u:s3cret@h/0"}, None, "AMQP_URL")
        for scheme in ("redis", "REDIS", "rediss", "sentinel", "sqs", "memory", "amqpx", "redis+socket")
    ],
    ({"AMQP_URL": "redis://a;redis://b"}, None, "AMQP_URL"),
    ({"AMQP_URL": REDIS, "RABBITMQ_HOST": "plane-mq"}, None, "AMQP_URL"),
    # Celery prefers its own variables to its settings, the one for writing to the other
    *[({name: REDIS, "AMQP_URL": AMQP}, None, name) for name in ("CELERY_BROKER_URL", "CELERY_BROKER_WRITE_URL")],
    *[({name: AMQP, "AMQP_URL": REDIS}, None, "") for name in ("CELERY_BROKER_URL", "CELERY_BROKER_WRITE_URL")],
    ({"CELERY_BROKER_READ_URL": REDIS, "AMQP_URL": AMQP}, None, ""),
    ({"CELERY_BROKER_WRITE_URL": AMQP, "CELERY_BROKER_URL": REDIS}, None, ""),
    ({"CELERY_BROKER_WRITE_URL": REDIS, "CELERY_BROKER_URL": AMQP}, None, "CELERY_BROKER_WRITE_URL"),
    # as the settings of Plane's process have it
    ({}, {"CELERY_BROKER_URL": AMQP}, ""),
    ({"AMQP_URL": AMQP}, {"CELERY_BROKER_URL": REDIS}, "CELERY_BROKER_URL of Plane's settings"),
    ({"AMQP_URL": REDIS}, {"CELERY_BROKER_URL": AMQP}, ""),
    ({"AMQP_URL": AMQP}, {"CELERY_BROKER_URL": AMQP, "CELERY_BROKER_WRITE_URL": REDIS}, "CELERY_BROKER_WRITE_URL of"),
    ({"AMQP_URL": AMQP}, {"CELERY_BROKER_URL": REDIS, "CELERY_BROKER_WRITE_URL": AMQP}, ""),
    ({"AMQP_URL": AMQP}, {"CELERY_BROKER_URL": AMQP, "CELERY_BROKER_READ_URL": REDIS}, ""),
    ({"CELERY_BROKER_URL": AMQP}, {"CELERY_BROKER_URL": REDIS}, ""),
    ({"CELERY_BROKER_URL": REDIS}, {"CELERY_BROKER_URL": AMQP}, "CELERY_BROKER_URL"),
    ({}, {"CELERY_BROKER_URL": ["amqp://a", "amqp://b"]}, ""),
    ({}, {"CELERY_BROKER_URL": ["redis://:s3cret@a", "redis://b"]}, "CELERY_BROKER_URL of Plane's settings"),
    ({}, {"CELERY_BROKER_URL": []}, ""),  # then, as with None, Celery takes amqp://guest@localhost
    ({}, {"CELERY_BROKER_URL": None}, ""),
    ({}, {}, ""),
]


def test_the_broker_is_known_alike(python: Path) -> None:
    results = call(python, "no_amqp", [[environ, base] for environ, base, _ in BROKERS])
    for (environ, base, named), problem in zip(BROKERS, results, strict=True):
        assert problem.startswith(named), (environ, base, problem)
        assert bool(problem) == bool(named), (environ, base, problem)
        assert "s3cret" not in problem


RESOLVED = """
import json, os, sys
from celery import Celery
for environ, base, _ in json.load(sys.stdin):
    for name in [name for name in os.environ if name.startswith("CELERY_")]:
        del os.environ[name]
    os.environ.update({name: text for name, text in environ.items() if name.startswith("CELERY_")})
    app = Celery("its", set_as_current=False)
    app.conf.update({name[7:].lower(): value for name, value in base.items()})
    try:
        print(app.connection_for_write().transport_cls)
    except (ImportError, KeyError) as error:  # a transport that is not installed, or not known
        print(type(error).__name__)
"""


@pytest.mark.lab
def test_the_broker_that_is_known_is_the_one_that_celery_publishes_to(image: Image) -> None:
    known = [(environ, base, named) for environ, base, named in BROKERS if base is not None]
    # What the environment names without Celery's own variables is what Plane's settings make of it.
    known += [
        (environ, {"CELERY_BROKER_URL": environ["AMQP_URL"]}, named)
        for environ, base, named in BROKERS
        if base is None and environ.get("AMQP_URL")
    ]
    run = subprocess.run(
        [image.root / "bin/python", "-c", RESOLVED],
        input=json.dumps(known),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for case, line in zip(known, run.stdout.splitlines(), strict=True):
        assert (line in ("amqp", "amqps", "pyamqp")) == (case[2] == ""), (case, line)


def check(
    python: Path, folder: Path, *, program: str = "gunicorn", text: str = json.dumps(ASKED), **env: str
) -> tuple[int, list[str]]:
    """Ask the overlay as the shim does."""
    for path, content in payload.FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    library = folder / "lib"
    overlay = library / "plane_webhook_settings.py"
    (folder / "settings.json").write_text(text)
    run = subprocess.run(
        [python, "-S", overlay, program, "."],
        env={
            "PYTHONPATH": str(library),
            "DJANGO_SETTINGS_MODULE": "plane_webhook_settings",
            "AMQP_URL": NO_BROKER,
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    return run.returncode, run.stdout.splitlines()


def test_nothing_of_ours_is_named_as_a_setting() -> None:
    tree = ast.parse(payload.FILES["lib/plane_webhook_settings.py"])
    stored = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    taken = [
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    assert not [name for name in stored + taken if name.isupper()]


def test_the_check_answers_alike(python: Path, tmp_path: Path) -> None:
    code, lines = check(python, tmp_path)
    assert (code, lines[1:]) == (0, ["plane-webhook-add --max-requests 0 --max-requests-jitter 0"])
    assert lines[0].startswith("plane-webhook: in effect for gunicorn: ")
    assert check(python, tmp_path, program="celery")[1][-1] == "plane-webhook-add"
    code, lines = check(python, tmp_path, GUNICORN_MAX_REQUESTS="x", CELERY_BROKER_POOL_LIMIT="3")
    assert (code, lines[2:]) == (0, ["plane-webhook-add"])
    assert "GUNICORN_MAX_REQUESTS is not a whole number" in lines[0]
    assert "'CELERY_BROKER_POOL_LIMIT': 3" in lines[1]
    assert "s3cret" not in lines[1]
    assert check(python, tmp_path, AMQP_URL="") == (1, [NONE_NAMED])
    assert check(python, tmp_path, AMQP_URL="", RABBITMQ_HOST="mq")[0] == 0
    assert check(python, tmp_path, CELERY_BROKER_URL=REDIS) == (
        1,
        ["CELERY_BROKER_URL names no AMQP broker, and others have no publisher confirms"],
    )


WRONG = [
    "",
    " ",
    "{",
    "{}{}",
    '{"a": tru}',
    json.dumps(ASKED) + "]",
    "[]",
    "null",
    "1",
    '"x"',
    "{}",
    json.dumps({**ASKED, "publish": []}),
    json.dumps({**ASKED, "env": []}),
]
WRONG += [json.dumps({key: value for key, value in ASKED.items() if key != missing}) for missing in ASKED]
WRONG += [json.dumps({**ASKED, key: None}) for key in ASKED]
WRONG += [json.dumps({**ASKED, "publish": {**PUBLISH, key: value}}) for key in PUBLISH for value in (None, [], {})]
WRONG += [json.dumps({**ASKED, "publish": {**PUBLISH, key: "5"}}) for key in PUBLISH if key != "spool"]
WRONG += [json.dumps({**ASKED, "publish": {**PUBLISH, key: True}}) for key in PUBLISH if PUBLISH[key] is not True]
WRONG += [json.dumps({**ASKED, "publish": {k: v for k, v in PUBLISH.items() if k != missing}}) for missing in PUBLISH]
WRONG += [json.dumps({**ASKED, "publish": {**PUBLISH, key: 0.5}}) for key in ("spool_tasks", "spool_bytes")]


@pytest.mark.parametrize("running", [False, True], ids=["the lab's Python", "this Python"])
def test_settings_that_cannot_be_used_are_named_before_anything_is_changed(tmp_path: Path, *, running: bool) -> None:
    python = Path(sys.executable) if running else images.find_python(images.PYTHON).executable
    for text in WRONG:
        code, lines = check(python, tmp_path, text=text)
        assert (code, len(lines)) == (1, 1), text
        assert lines[0].startswith("settings.json can't be used: "), text
        assert "SystemError" not in lines[0], text  # as Python 3.11 has it without the json module


# --- over the real settings of the small Plane, by Django and Celery

# Started as `celery` through the shim: says what Celery's configuration is then.
CONFIGURATION = """#!/usr/local/bin/python
import json, os, sys
sys.path.insert(0, "/code")
exec(os.environ.get("FIRST", ""))
import plane
from celery import current_app, signals
from celery.app.defaults import DEFAULTS
from django.conf import settings
from kombu import Producer
app = current_app._get_current_object()
found = {"conf": {name: app.conf[name] for name in sorted(DEFAULTS)}}
found["signals"] = sorted(name for name in dir(signals) if getattr(getattr(signals, name), "receivers", None))
found["connections"] = []
for connection in (app.connection_for_read(), app.connection_for_write(), app.pool.acquire()):
    info = {name: value for name, value in connection.info().items() if name != "password"}
    found["connections"].append([type(connection).__name__, info])
found["publisher"] = hasattr(Producer.publish, "plane_webhook")
# Whatever of other people's code is ours: functions, and classes' attributes, of every module.
ours = lambda value: str(getattr(value, "__module__", "")).split(".")[0] == "plane_webhook"
replaced = set()
for module in list(sys.modules.values()):
    if module is None or module.__name__.startswith("plane_webhook"):
        continue
    for name, value in list(vars(module).items()):
        if ours(value):
            replaced.add(module.__name__ + "." + name)
        if isinstance(value, type):
            replaced |= {"%s.%s" % (name, each) for each, part in list(vars(value).items()) if ours(part)}
found["replaced"] = sorted(replaced)
found["settings"] = [settings.SETTINGS_MODULE, settings.ROOT_URLCONF]
found["own"] = sorted(name for name in dir(settings) if name.startswith("CELERY_"))
print(json.dumps(found, default=repr))
"""


def plain(image: Image, folder: Path, **env: str) -> Json:
    """What it is without us."""
    ran = configuration(image, folder, injected=False, **env)
    assert ran.code == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


# On which the publisher looks at the spool; on the last one it gives back what it has not seen confirmed.
SIGNALS = ["beat_init", "worker_process_init", "worker_process_shutdown"]


def in_effect(before: Json, **differs: Any) -> Json:
    """What it is with us, if that is `before` without us: the whole of what differs."""
    settings = {"task_publish_retry": True, "broker_pool_limit": 10, **differs}
    connections = [[kind, dict(info)] for kind, info in before["connections"]]
    return {
        "conf": {**before["conf"], **settings},
        "signals": sorted({*before["signals"], *SIGNALS}),
        "connections": connections,
        "publisher": True,
        "replaced": ["Producer.publish"],
        "settings": ["plane_webhook_settings", "plane.urls"],
        "own": sorted({*before["own"], "CELERY_TASK_PUBLISH_RETRY", "CELERY_BROKER_POOL_LIMIT"}),
    }


def plane(folder: Path, *, production: str = "", files: Mapping[str, str] | None = None) -> Path:
    """Copy the small Plane; add lines to its production settings, and files."""
    shutil.copytree(images.PLANE, folder)
    with (folder / "plane/settings/production.py").open("a") as settings:
        settings.write(production + "\n")
    for name, text in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "programs").mkdir()
    script(folder / "programs/celery", CONFIGURATION)
    script(folder / "bin/docker-entrypoint-worker.sh", "#!/bin/bash\nexec celery -A plane worker\n")
    return folder


def configuration(image: Image, folder: Path, *, injected: bool = True, **env: str) -> Ran:
    what = pod("./bin/docker-entrypoint-worker.sh", env=env)
    return run(with_code(image, folder), inject(what, "workloads: [worker]") if injected else what)


@dataclass(frozen=True)
class Case:
    """Something in Plane's settings or in the container; it holds with us as it does without, but for `in_effect`."""

    production: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    holds: Mapping[str, Any] = field(default_factory=dict)
    says: str = ""  # that no task is confirmed


OPTIONS = "CELERY_BROKER_TRANSPORT_OPTIONS"
ASKS_FIRST = """
import os
if os.environ.get("DJANGO_SETTINGS_MODULE"):
    from django.conf import settings
    settings.MIDDLEWARE
"""
ANOTHER = "NOT IN EFFECT: CELERY_BROKER_URL of Plane's settings names no AMQP broker"
CASES = {
    "nothing of the kind": Case(),
    "transport options": Case(
        f"{OPTIONS} = {{'confirm_publish': False, 'login_method': 'PLAIN'}}",
        holds={"broker_transport_options": {"confirm_publish": False, "login_method": "PLAIN"}},
    ),
    "transport options of nothing": Case(f"{OPTIONS} = {{}}"),
    "the settings that we set": Case("CELERY_TASK_PUBLISH_RETRY = False\nCELERY_BROKER_POOL_LIMIT = None"),
    "the settings that we don't": Case(
        "CELERY_TASK_PUBLISH_RETRY_POLICY = {'max_retries': 1}\nCELERY_BROKER_CONNECTION_TIMEOUT = 7\n"
        "CELERY_BROKER_HEARTBEAT = 3",
        holds={"broker_connection_timeout": 7, "task_publish_retry_policy": {"max_retries": 1}, "broker_heartbeat": 3},
    ),
    "annotations": Case(
        "CELERY_TASK_ANNOTATIONS = {'*': {'rate_limit': '10/s'}}",
        holds={"task_annotations": {"*": {"rate_limit": "10/s"}}},
    ),
    "annotations as a list": Case("CELERY_TASK_ANNOTATIONS = [{'x': {}}]", holds={"task_annotations": [{"x": {}}]}),
    "another broker": Case("CELERY_BROKER_URL = 'redis://:s3cret@127.0.0.1/0'", says=ANOTHER),
    "another broker to write to": Case(
        "CELERY_BROKER_WRITE_URL = 'REDIS://:s3cret@127.0.0.1/0'",
        says=ANOTHER.replace("BROKER_URL", "BROKER_WRITE_URL"),
    ),
    "another broker to read from": Case("CELERY_BROKER_READ_URL = 'redis://:s3cret@127.0.0.1/0'"),
    "a list of brokers": Case("CELERY_BROKER_URL = ['amqp://a:s3cret@127.0.0.1:9', 'AMQP://b:s3cret@127.0.0.1:9']"),
    "settings of the user's own": Case(
        files={"plane/settings/mine.py": "from .production import *\nCELERY_TIMEZONE = 'Asia/Tokyo'\n"},
        env={"DJANGO_SETTINGS_MODULE": "plane.settings.mine"},
        holds={"timezone": "Asia/Tokyo"},
    ),
    "settings outside of plane": Case(
        files={"mine.py": "from plane.settings.production import *\nCELERY_TIMEZONE = 'Asia/Tokyo'\n"},
        env={"DJANGO_SETTINGS_MODULE": "mine"},
        holds={"timezone": "Asia/Tokyo"},
    ),
    "settings wanted before plane is imported": Case(
        files={"site/sitecustomize.py": ASKS_FIRST}, env={"PYTHONPATH": "/code/site:/code"}
    ),
    "settings wanted before plane can be imported": Case(
        files={"site/sitecustomize.py": ASKS_FIRST}, env={"PYTHONPATH": "/code/site"}
    ),
}


@pytest.mark.lab
@pytest.mark.parametrize("name", CASES)
def test_over_planes_settings(image: Image, name: str, tmp_path: Path) -> None:
    case = CASES[name]
    folder = plane(tmp_path / "code", production=case.production, files=case.files)
    before = plain(image, folder, **case.env)
    assert {key: before["conf"][key] for key in case.holds} == case.holds
    ran = configuration(image, folder, **case.env)
    assert ran.code == 0, ran.stderr
    expected = in_effect(before)
    if case.says:
        expected |= {"publisher": False, "replaced": [], "signals": before["signals"]}
    assert json.loads(ran.stdout.splitlines()[-1]) == expected
    ours = [line for line in ran.stderr.splitlines() if line.startswith("plane-webhook: ")]
    assert len(ours) == (3 if case.says else 2), ran.stderr
    assert case.says in ours[-1]
    assert "s3cret" not in "".join(ours)


@pytest.mark.lab
def test_our_own_module_named_by_a_variable_is_not_taken_for_planes(image: Image, tmp_path: Path) -> None:
    folder = plane(tmp_path / "code")
    ran = configuration(image, folder, DJANGO_SETTINGS_MODULE="plane_webhook_settings")
    assert json.loads(ran.stdout.splitlines()[-1]) == in_effect(plain(image, folder))
    assert ran.loud == []


@pytest.mark.lab
def test_without_confirmation_nothing_of_others_is_replaced(image: Image, tmp_path: Path) -> None:
    folder = plane(tmp_path / "code")
    what = inject(pod("./bin/docker-entrypoint-worker.sh"), "publish: {confirm: false}")
    ran = run(with_code(image, folder), what)
    before = plain(image, folder)
    without = {"publisher": False, "replaced": [], "signals": before["signals"]}
    assert json.loads(ran.stdout.splitlines()[-1]) == in_effect(before) | without
    assert (len(ran.in_effect), ran.loud) == (1, [])
    assert "'confirm': False" in ran.in_effect[0]


@pytest.mark.lab
@pytest.mark.parametrize(
    "env",
    [
        {"AMQP_URL": "", "CELERY_BROKER_URL": "redis://:s3cret@h/0"},
        {"CELERY_BROKER_URL": "redis://:s3cret@h/0"},
        {"CELERY_BROKER_WRITE_URL": "redis://:s3cret@h/0"},
        {"AMQP_URL": "redis://:s3cret@h/0"},
        {"AMQP_URL": ""},
    ],
    ids=str,
)
def test_with_another_broker_all_of_it_is_as_plane_had_it(image: Image, env: dict[str, str], tmp_path: Path) -> None:
    """Not only confirms: neither are Celery's settings ours, and with the API's rotation it is the same."""
    folder = plane(tmp_path / "code")
    ran = configuration(image, folder, **env)
    assert json.loads(ran.stdout.splitlines()[-1]) == plain(image, folder, **env)
    assert (len(ran.loud), ran.in_effect) == (1, [])
    assert "s3cret" not in ran.stderr


@pytest.mark.lab
@pytest.mark.parametrize(("lock", "version"), [("requirements-oldest", "3.8"), ("requirements-newest", "3.13")])
def test_on_the_oldest_and_the_newest(lock: images.Lock, version: str, tmp_path: Path) -> None:
    try:
        image = images.build(lock, version)
    except LabError as error:
        pytest.skip(str(error))
    if not image.interpreter.version.startswith(version + "."):
        pytest.skip(f"there is no python{version} here")
    ran = configuration(image, plane(tmp_path / "code"))
    assert (ran.code, len(ran.in_effect), ran.loud) == (0, 1, []), ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == in_effect(plain(image, tmp_path / "code"))


@pytest.mark.lab
@pytest.mark.parametrize(
    "first", ["os.remove('/plane-webhook/settings.json')", "open('/plane-webhook/settings.json', 'w').close()"]
)
def test_settings_that_vanish_after_the_check_leave_plane_its_own(image: Image, first: str, tmp_path: Path) -> None:
    folder = plane(tmp_path / "code")
    ours = configuration(image, folder, FIRST=first)
    before, after = plain(image, folder), json.loads(ours.stdout.splitlines()[-1])
    assert after == {**before, "settings": ["plane_webhook_settings", *before["settings"][1:]]}
    assert len(ours.loud) == 1
    assert "ValueError in line " in ours.loud[0]


@pytest.mark.lab
@pytest.mark.parametrize("injected", [True, False])
def test_an_error_in_planes_own_settings_is_planes_error(image: Image, *, injected: bool, tmp_path: Path) -> None:
    ran = configuration(image, plane(tmp_path / "code", production="raise LookupError('of Plane')"), injected=injected)
    assert ran.code == 1
    assert ran.stderr.rstrip().endswith("LookupError: of Plane")
    assert ran.loud == []


# A tracing agent's order: Django's settings before the package of Plane. manage.py's too.
SETTINGS_FIRST = "from django.conf import settings; settings.MIDDLEWARE"


@pytest.mark.lab
def test_the_overlay_that_anybody_would_write_first_breaks_plane(image: Image, tmp_path: Path) -> None:
    """`from plane.settings.production import *`: plane's import wants the settings that are being imported."""
    folder = plane(tmp_path / "code", files={"naive.py": "from plane.settings.production import *\n"})
    naive = configuration(image, folder, injected=False, DJANGO_SETTINGS_MODULE="naive", FIRST=SETTINGS_FIRST)
    assert naive.code == 1
    assert "has no attribute 'REDIS_URL'" in naive.stderr
    ours = configuration(image, folder, FIRST=SETTINGS_FIRST)
    assert json.loads(ours.stdout.splitlines()[-1]) == in_effect(plain(image, folder))


def test_nothing_is_written_next_to_it(tmp_path: Path) -> None:
    """As the shim's check, whatever the environment says about byte code."""
    assert check(images.find_python(images.PYTHON).executable, tmp_path)[0] == 0
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"settings.json", *payload.FILES}
    assert os.access(tmp_path, os.W_OK)
