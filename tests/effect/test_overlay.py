"""The settings overlay: the same on every Python that Plane's images had, over whatever Plane's own settings are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab import images
from lab.cache import LabError
from tests.effect.injected import SETTINGS, Json, Ran, inject, pod, run, script, with_code
from webhook import payload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.images import Image

VERSIONS = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13"]
LIBRARY = Path(payload.__file__).parent
ASKED: Json = json.loads(inject(pod())["spec"]["containers"][0]["command"][SETTINGS])
PUBLISH: Json = ASKED["publish"]


@pytest.fixture(params=VERSIONS)
def python(request: pytest.FixtureRequest) -> Path:
    """An interpreter of each version; the tests of one that isn't here are skipped."""
    found = images.find_python(request.param)
    if not found.version.startswith(request.param + "."):
        pytest.skip(f"there is no python{request.param} here")
    return found.executable


def call(python: Path, function: str, cases: list[Any]) -> list[Any]:
    """Call a function of the overlay once for each list of arguments, under another Python."""
    text = "import json, sys, plane_webhook_settings as its; "
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


@pytest.mark.parametrize("name", ["plane_webhook_settings.py", "proof.py"])
def test_it_compiles_without_a_warning(python: Path, name: str) -> None:
    text = "import pathlib, sys; compile(pathlib.Path(sys.argv[1]).read_text(), sys.argv[1], 'exec')"
    run = subprocess.run(
        [python, "-W", "error", "-c", text, LIBRARY / name], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


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


OURS = {
    "CELERY_TASK_PUBLISH_RETRY_POLICY": PUBLISH["retry"],
    "CELERY_BROKER_CONNECTION_TIMEOUT": 5.0,
    "CELERY_BROKER_TRANSPORT_OPTIONS": {
        "confirm_publish": True,
        "read_timeout": 5.0,
        "write_timeout": 5.0,
        **PUBLISH["retry"],
        "connect_retries_timeout": 15.0,
    },
}
THEIRS: list[tuple[Json, Json, int]] = [  # Plane's settings, what their transport options become, sentences
    ({}, {}, 0),
    ({"CELERY_BROKER_TRANSPORT_OPTIONS": None}, {}, 0),
    ({"CELERY_BROKER_TRANSPORT_OPTIONS": {}}, {}, 0),
    (
        {"CELERY_BROKER_TRANSPORT_OPTIONS": {"confirm_publish": False, "login_method": "PLAIN"}},
        {"login_method": "PLAIN"},
        0,
    ),
    (
        {"CELERY_BROKER_TRANSPORT_OPTIONS": [["login_method", "PLAIN"]]},
        {"login_method": "PLAIN"},
        0,
    ),  # what dict() takes, Celery takes
    ({"CELERY_BROKER_TRANSPORT_OPTIONS": ["login_method"]}, {}, 1),
    ({"CELERY_BROKER_TRANSPORT_OPTIONS": "login_method"}, {}, 1),
    ({"CELERY_BROKER_TRANSPORT_OPTIONS": 9}, {}, 1),
    ({"CELERY_BROKER_URL": "amqps://u:p@h"}, {}, 0),
    ({"CELERY_BROKER_URL": "pyamqp://h"}, {}, 0),
    ({"CELERY_BROKER_URL": ["amqp://a", "amqp://b"]}, {}, 0),
    ({"CELERY_BROKER_URL": None}, {}, 0),
    ({"CELERY_BROKER_URL": "redis://:s3cret@h"}, {}, 1),
    ({"CELERY_BROKER_URL": "amqp://h", "CELERY_BROKER_WRITE_URL": "sqs://k:s3cret@h"}, {}, 1),
    ({"CELERY_BROKER_URL": 5}, {}, 1),
]


def test_settings_are_overridden_alike(python: Path) -> None:
    results = call(python, "overrides", [[base, CELERY, PUBLISH] for base, _, _ in THEIRS])
    for (base, options, count), (new, problems) in zip(THEIRS, results, strict=True):
        merged = {**options, **OURS["CELERY_BROKER_TRANSPORT_OPTIONS"]}
        assert new == {**CELERY, **OURS, "CELERY_BROKER_TRANSPORT_OPTIONS": merged}, base
        assert len(problems) == count, base
        assert "s3cret" not in str(problems)


def check(
    python: Path, folder: Path, *, program: str = "gunicorn", text: str = json.dumps(ASKED), **env: str
) -> tuple[int, list[str]]:
    """Ask the overlay as the shim does."""
    library = folder / "lib"
    library.mkdir(exist_ok=True)
    overlay = library / "plane_webhook_settings.py"
    overlay.write_text(payload.OVERLAY + "\n")
    (folder / "settings.json").write_text(text)
    run = subprocess.run(
        [python, "-S", overlay, program],
        env={"PYTHONPATH": str(library), "DJANGO_SETTINGS_MODULE": "plane_webhook_settings", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    return run.returncode, run.stdout.splitlines()


def test_the_check_answers_alike(python: Path, tmp_path: Path) -> None:
    code, lines = check(python, tmp_path)
    assert (code, lines[1:]) == (0, ["plane-webhook-add --max-requests 0 --max-requests-jitter 0"])
    assert lines[0].startswith("plane-webhook: in effect for gunicorn: ")
    assert check(python, tmp_path, program="celery")[1][-1] == "plane-webhook-add"
    code, lines = check(python, tmp_path, GUNICORN_MAX_REQUESTS="x", CELERY_BROKER_POOL_LIMIT="3")
    assert (code, lines[2:]) == (0, ["plane-webhook-add"])
    assert "GUNICORN_MAX_REQUESTS is not a whole number" in lines[0]
    assert "'CELERY_BROKER_POOL_LIMIT': 3" in lines[1]


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
WRONG += [json.dumps({**ASKED, "publish": {**PUBLISH, key: value}}) for key in PUBLISH for value in (None, "5", [], {})]
WRONG += [
    json.dumps({**ASKED, "publish": {**PUBLISH, "retry": {**PUBLISH["retry"], key: value}}})
    for key in PUBLISH["retry"]
    for value in (None, "5", True)
]


def test_settings_that_cannot_be_used_are_named_before_anything_is_changed(tmp_path: Path) -> None:
    python = images.find_python(images.PYTHON).executable
    for text in WRONG:
        code, lines = check(python, tmp_path, text=text)
        assert (code, len(lines)) == (1, 1), text
        assert lines[0].startswith("settings.json can't be used: "), text


# --- over the real settings of the small Plane, by Django and Celery

# Started as `celery` through the shim: says what Celery's configuration is then.
CONFIGURATION = """#!/usr/local/bin/python
import json, os, sys
sys.path.insert(0, "/code")
exec(os.environ.get("FIRST", ""))
import plane
from celery import current_app, signals
from django.conf import settings
names = ("task_publish_retry", "task_publish_retry_policy", "broker_pool_limit", "broker_connection_timeout",
         "broker_transport_options", "task_annotations", "timezone")
found = {name: current_app.conf[name] for name in names}
found["mandatory"] = len(signals.before_task_publish.receivers or [])
found["settings"] = [settings.SETTINGS_MODULE, settings.ROOT_URLCONF, settings.CELERY_BROKER_CONNECTION_TIMEOUT
                     if hasattr(settings, "CELERY_BROKER_CONNECTION_TIMEOUT") else None]
print(json.dumps(found, default=repr))
"""
IN_EFFECT = {
    "task_publish_retry": True,
    "task_publish_retry_policy": PUBLISH["retry"],
    "broker_pool_limit": 10,
    "broker_connection_timeout": 5.0,
    "broker_transport_options": OURS["CELERY_BROKER_TRANSPORT_OPTIONS"],
    "task_annotations": None,
    "timezone": "UTC",
    "mandatory": 1,
    "settings": ["plane_webhook_settings", "plane.urls", 5.0],
}
CONFIRMS = OURS["CELERY_BROKER_TRANSPORT_OPTIONS"]


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
    """Something in Plane's settings or in the container, and what differs from IN_EFFECT then."""

    production: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, Any] = field(default_factory=dict)
    says: str = ""


OPTIONS = "CELERY_BROKER_TRANSPORT_OPTIONS"
ASKS_FIRST = """
import os
if os.environ.get("DJANGO_SETTINGS_MODULE"):
    from django.conf import settings
    settings.MIDDLEWARE
"""
CASES = {
    "nothing of the kind": Case(),
    "transport options": Case(
        f"{OPTIONS} = {{'confirm_publish': False, 'login_method': 'PLAIN'}}",
        differs={"broker_transport_options": {"login_method": "PLAIN", **CONFIRMS}},
    ),
    "transport options None": Case(f"{OPTIONS} = None"),
    "transport options a list": Case(
        f"{OPTIONS} = ['x']", says="CELERY_BROKER_TRANSPORT_OPTIONS of Plane's settings is not a dict"
    ),
    "the other settings": Case(
        "CELERY_TASK_PUBLISH_RETRY = False\nCELERY_BROKER_POOL_LIMIT = None\nCELERY_TASK_PUBLISH_RETRY_POLICY = [1]\n"
        "CELERY_BROKER_CONNECTION_TIMEOUT = 'x'"
    ),
    "annotations": Case(
        "CELERY_TASK_ANNOTATIONS = {'*': {'rate_limit': '10/s'}}",
        differs={"task_annotations": {"*": {"rate_limit": "10/s"}}},
    ),
    "annotations as a list": Case("CELERY_TASK_ANNOTATIONS = [{'x': {}}]", differs={"task_annotations": [{"x": {}}]}),
    "another broker": Case(
        "CELERY_BROKER_URL = 'redis://:s3cret@127.0.0.1/0'", says="NOT IN EFFECT: the broker is not AMQP"
    ),
    "settings of the user's own": Case(
        files={"plane/settings/mine.py": "from .production import *\nCELERY_TIMEZONE = 'Asia/Tokyo'\n"},
        env={"DJANGO_SETTINGS_MODULE": "plane.settings.mine"},
        differs={"timezone": "Asia/Tokyo"},
    ),
    "settings outside of plane": Case(
        files={"mine.py": "from plane.settings.production import *\nCELERY_TIMEZONE = 'Asia/Tokyo'\n"},
        env={"DJANGO_SETTINGS_MODULE": "mine"},
        differs={"timezone": "Asia/Tokyo"},
    ),
    "settings wanted before plane is imported": Case(
        files={"site/sitecustomize.py": ASKS_FIRST}, env={"PYTHONPATH": "/code/site:/code"}
    ),
    "settings wanted before plane can be imported": Case(
        files={"site/sitecustomize.py": ASKS_FIRST}, env={"PYTHONPATH": "/code/site"}
    ),
    "our variable already names it": Case(env={"DJANGO_SETTINGS_MODULE": "plane_webhook_settings"}),
}


@pytest.mark.lab
@pytest.mark.parametrize("name", CASES)
def test_over_planes_settings(image: Image, name: str, tmp_path: Path) -> None:
    case = CASES[name]
    ran = configuration(image, plane(tmp_path / "code", production=case.production, files=case.files), **case.env)
    assert ran.code == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == {**IN_EFFECT, **case.differs}
    ours = [line for line in ran.stderr.splitlines() if line.startswith("plane-webhook: ")]
    assert len(ours) == (3 if case.says else 2), ran.stderr
    assert case.says in ours[-1]
    assert "s3cret" not in "".join(ours)


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
    assert json.loads(ran.stdout.splitlines()[-1]) == IN_EFFECT


@pytest.mark.lab
@pytest.mark.parametrize(
    "first", ["os.remove('/plane-webhook/settings.json')", "open('/plane-webhook/settings.json', 'w').close()"]
)
def test_settings_that_vanish_after_the_check_leave_plane_its_own(image: Image, first: str, tmp_path: Path) -> None:
    folder = plane(tmp_path / "code")
    plain = configuration(image, folder, injected=False)
    ours = configuration(image, folder, FIRST=first)
    before, after = (json.loads(ran.stdout.splitlines()[-1]) for ran in (plain, ours))
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
    assert json.loads(ours.stdout.splitlines()[-1]) == IN_EFFECT


def test_nothing_is_written_next_to_it(tmp_path: Path) -> None:
    """As the shim's check, whatever the environment says about byte code."""
    assert check(images.find_python(images.PYTHON).executable, tmp_path)[0] == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["lib", "plane_webhook_settings.py", "settings.json"]
    assert os.access(tmp_path, os.W_OK)
