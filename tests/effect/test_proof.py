"""`proof` agrees with what is in effect and with nothing else; what it proves, with the small Plane run for real."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab import images
from lab.container import Container, Shell
from lab.injected import (
    DEFAULTS,
    NO_BROKER,
    OVERLAY,
    RESTRICTED,
    SETTINGS,
    SHELLS,
    Json,
    inject,
    pod,
    script,
    with_files,
    word,
)
from lab.process import free_port, wait_for
from lab.redis import Redis
from webhook import payload
from webhook.admission.injection import MOUNT_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lab.broker import Broker
    from lab.images import Image

pytestmark = pytest.mark.lab

every_shell = pytest.mark.parametrize("shell", SHELLS)
PROOF, SPOOL = f"{MOUNT_PATH}/proof", f"{MOUNT_PATH}/spool"
KEY = "s3cret of the lab" * 3  # SECRET_KEY
# A worker of the entrypoint's own ends somewhere between these numbers of requests.
ROTATION_FROM, ROTATION_AT_LAST = 1200, 1200 + 1000


def code(folder: Path, replaced: Mapping[str, str] | None = None) -> Path:
    """Copy the small Plane, with some files replaced; a text that begins with + is added to what the file has."""
    shutil.copytree(images.PLANE, folder)
    for name, text in (replaced or {}).items():
        path = folder / name
        script(path, path.read_text() + text[1:] if text.startswith("+") else text)
    return folder


def api(*command: str, **container: Any) -> Json:
    """The API's pod; its environment comes from envFrom, as Plane's does."""
    return pod(*(command or ("./bin/docker-entrypoint-api.sh",)), map_name="vars", **container)


@contextmanager
def serving(
    image: Image, what: Json, *, shell: Shell = "dash", url: str = NO_BROKER, **chart: str
) -> Iterator[tuple[Container, int]]:
    """Run an API container; give it and its port when it answers 200."""
    port = free_port()
    # Where there is no broker, nothing is published before gunicorn either.
    own = {"AMQP_URL": url, "PORT": str(port), "GUNICORN_WORKERS": "1", "INSTANCE_IS_REGISTERED": "1"}
    maps = {"vars": {**own, **chart}}
    with Container.from_pod(what, image=image, shell=shell, config_maps=maps) as container:
        container.wait_ready(port)
        yield container, port


@pytest.fixture(scope="module")
def image(image: Image, redis: Redis) -> Image:
    """The image, with what Plane's charts tell of its Redis; what a test's pod says goes before that."""
    return image.with_env(REDIS_URL=redis.url, SECRET_KEY=KEY)


def prove(container: Container, *, code: int) -> Json:
    """Run proof as `kubectl exec` does; it has to end with `code`, print JSON and nothing secret."""
    run = container.exec([PROOF])
    assert "s3cret" not in run.stdout + run.stderr
    report: Json = json.loads(run.stdout)
    assert run.returncode == code, report
    assert report["in_effect"] == (code == 0)
    return report


def differing(report: Json) -> set[str]:
    return {row["what"] for row in report["checks"] if not row["agrees"]}


def loud(container: Container) -> list[str]:
    ours = [line for line in container.stderr.splitlines() if "plane-webhook" in line]
    assert "s3cret" not in "".join(ours)
    return [line for line in ours if "NOT IN EFFECT" in line]


LIMITS = {"gunicorn --max-requests", "gunicorn --max-requests-jitter"}
SETTINGS_MODULE = {"DJANGO_SETTINGS_MODULE"}
CONFIRMED, TRANSPORT, SPOOLED = (
    {"tasks are published with confirmation"},
    {"Celery's transport"},
    {"the spool can be reached"},
)
SAME_BY_DEFAULT = {"Celery task_publish_retry", "Celery broker_pool_limit"}
EVERYTHING = {*DEFAULTS, *LIMITS, *SETTINGS_MODULE, *CONFIRMED, *TRANSPORT, *SPOOLED, *SAME_BY_DEFAULT}
EMPTY: Json = {"waiting": 0, "sent and not confirmed": 0, "bytes": 0, "oldest, seconds": None, "set aside": []}


@every_shell
def test_in_effect_it_agrees_row_by_row(image: Image, shell: Shell) -> None:
    with serving(image, inject(api()), shell=shell, GUNICORN_WORKERS="2") as (container, _):
        report = prove(container, code=0)
        pids = [each.argv for each in container.processes()]
        assert loud(container) == []
    assert {row["what"] for row in report["checks"]} == EVERYTHING
    by_what = {row["what"]: row for row in report["checks"]}
    assert by_what["gunicorn --max-requests"] | {"how": ""} == {
        "what": "gunicorn --max-requests", "asked": 0, "found": 0, "agrees": True, "how": ""
    }  # fmt: skip
    assert by_what["gunicorn --max-requests"]["how"] == "read from /proc/1/cmdline"
    assert [by_what[what]["found"] for what in (*TRANSPORT, *CONFIRMED, *SPOOLED)] == ["py-amqp", True, True]
    assert by_what["Celery's transport"]["how"].startswith("inferred: ")
    assert by_what["tasks are published with confirmation"]["how"].startswith("inferred: ")
    assert report["spool"] == EMPTY
    assert [each["state"] for each in report["processes"]] == ["healthy"] * 3
    assert report["processes"][0]["pid"] == 1
    assert by_what["DJANGO_SETTINGS_MODULE"]["how"].count(",") == len(pids) - 1 == 2  # the master and both workers
    assert report["kept"] == []
    assert len(report["settings"]) == 64


GUNICORN = (
    *("gunicorn", "--bind", "localhost:$(PORT)", "-w", "1", "-k", "uvicorn.workers.UvicornWorker"),
    "plane.asgi:application",
)


@pytest.mark.parametrize("before", [(), ("./bin/tini", "--")], ids=["alone", "behind a parent that waits"])
def test_gunicorn_itself_is_looked_at_and_its_application_is_no_address(
    image: Image, tmp_path: Path, before: tuple[str, ...]
) -> None:
    files = {"bin/tini": '#!/bin/bash\nshift\n"$@" &\nwait\n'}
    what = inject(api(*before, *GUNICORN, image="makeplane/plane-backend:v1"))
    with serving(replace(image, code=code(tmp_path / "code", files)), what) as (container, _):
        report = prove(container, code=0)
        assert loud(container) == []
    assert ({each["pid"] for each in report["processes"]} & {1} == set()) == bool(before)


def test_an_entrypoint_that_leaves_root_is_looked_into_all_the_same(image: Image, tmp_path: Path) -> None:
    drop = 'if [ "$(id -u)" = 0 ]; then exec setpriv --reuid 65534 --regid 65534 --clear-groups "$0" "$@"; fi\n'
    entrypoint = (images.PLANE / "bin/docker-entrypoint-api.sh").read_text().replace("set -e\n", "set -e\n" + drop, 1)
    assert drop in entrypoint
    files = {"bin/docker-entrypoint-api.sh": entrypoint}
    with serving(replace(image, code=code(tmp_path / "code", files)), inject(api())) as (container, _):
        assert container.exec(["stat", "-c", "%u", "/proc/1"]).stdout.strip() == "65534"
        report = prove(container, code=0)
        assert loud(container) == []
    assert {row["what"] for row in report["checks"]} == EVERYTHING


def test_restricted_and_read_only_it_agrees_too(image: Image) -> None:
    what = inject(api(securityContext=RESTRICTED))
    what["spec"]["volumes"].append({"name": "tmp", "emptyDir": {}})
    what["spec"]["containers"][0]["volumeMounts"].append({"name": "tmp", "mountPath": "/tmp"})
    with serving(image, what) as (container, _):
        prove(container, code=0)
        container.restart()
        container.wait_for_log("Application startup complete")
        prove(container, code=0)


def test_what_the_user_keeps_is_reported_and_held_to_what_runs(image: Image) -> None:
    with serving(image, inject(api(env={"GUNICORN_MAX_REQUESTS": "50"}))) as (container, _):
        report = prove(container, code=0)
    assert report["kept"] == ["GUNICORN_MAX_REQUESTS"]
    rows = {row["what"]: row["asked"] for row in report["checks"]}
    assert (rows["gunicorn --max-requests"], "GUNICORN_MAX_REQUESTS" in rows) == (50, False)


def test_limits_of_the_commands_own_are_no_rows(image: Image) -> None:
    command = "exec gunicorn -w 1 -k uvicorn.workers.UvicornWorker plane.asgi:application -b 127.0.0.1:$PORT"
    what = inject(api("sh", "-c", f"{command} --max-requests 500", image="makeplane/plane-backend"))
    with serving(image, what) as (container, _):
        report = prove(container, code=0)
    assert report["kept"] == ["GUNICORN_MAX_REQUESTS", "GUNICORN_MAX_REQUESTS_JITTER"]
    assert {row["what"] for row in report["checks"]} == EVERYTHING - LIMITS - set(report["kept"])


@pytest.mark.parametrize(("chart", "limit"), [({}, 0), ({"GUNICORN_MAX_REQUESTS": "1000"}, 1000)])
def test_with_the_charts_precedence_it_holds_to_the_charts_values(
    image: Image, chart: dict[str, str], limit: int
) -> None:
    with serving(image, inject(api(), "precedence: chart"), **chart) as (container, _):
        report = prove(container, code=0)
    assert {row["what"]: row["asked"] for row in report["checks"]}["gunicorn --max-requests"] == limit


# --- ways in which nothing of ours takes part, and nobody is told at the start: proof tells

ABSOLUTE = (
    images.PLANE.joinpath("bin/docker-entrypoint-api.sh")
    .read_text()
    .replace("exec gunicorn", "exec /usr/local/bin/gunicorn")
)
MODULE = ABSOLUTE.replace("/usr/local/bin/gunicorn", "python -m gunicorn")
OPTIONS = ABSOLUTE.replace("/usr/local/bin/gunicorn", "python -B -X utf8 /usr/local/bin/gunicorn")
NO_PATH = "export PATH=/usr/local/bin:/usr/bin:/bin\n"
KEPT = " ".join(f'{name}="${name}"' for name in ("PATH", "LANG", "AMQP_URL", "REDIS_URL", "SECRET_KEY"))
UNSET = ABSOLUTE.replace("/usr/local/bin/gunicorn", f"env -i {KEPT} gunicorn")
# What shows in the pod's own command gets no limits, so none are missed.
SILENT: dict[str, tuple[tuple[str, ...], dict[str, str], set[str]]] = {
    "PATH is reset": (
        ("/bin/bash", "-c", NO_PATH + "exec ./bin/docker-entrypoint-api.sh"),
        {},
        SETTINGS_MODULE | CONFIRMED,
    ),
    "a login shell resets PATH": (
        ("/bin/bash", "-lc", "export PATH=$PATH:/usr/local/bin; exec ./bin/docker-entrypoint-api.sh"),
        {},
        SETTINGS_MODULE | CONFIRMED,
    ),
    "gunicorn by its path": ((), {"bin/docker-entrypoint-api.sh": ABSOLUTE}, LIMITS | SETTINGS_MODULE | CONFIRMED),
    "gunicorn as a module": ((), {"bin/docker-entrypoint-api.sh": MODULE}, LIMITS | SETTINGS_MODULE | CONFIRMED),
    "gunicorn by a Python with options": (
        (),
        {"bin/docker-entrypoint-api.sh": OPTIONS},
        LIMITS | SETTINGS_MODULE | CONFIRMED,
    ),
    "code sets Celery after us": (
        (),
        {"plane/celery.py": "+\napp.conf.update(CELERY_BROKER_POOL_LIMIT=0)\n"},
        {"Celery broker_pool_limit"},
    ),
    "code sets another type": (
        (),
        {"plane/celery.py": "+\napp.conf.update(CELERY_BROKER_POOL_LIMIT='s3cret')\n"},
        {"Celery broker_pool_limit"},
    ),
    "code sets another broker after us": (
        (),
        {"plane/celery.py": "+\napp.conf.update(CELERY_BROKER_URL='redis://:s3cret@127.0.0.1:9/0')\n"},
        TRANSPORT,
    ),
    "code replaces what we have replaced": (
        (),
        {
            "plane/celery.py": "+\nfrom kombu import Producer\npublish = Producer.publish\n"
            "Producer.publish = lambda *args, **kwargs: publish(*args, **kwargs)\n"
        },
        CONFIRMED,
    ),
    "code names the settings module": (
        (),
        {
            "plane/__init__.py": "import os\nos.environ['DJANGO_SETTINGS_MODULE'] = 'plane.settings.production'\n"
            "from .celery import app as celery_app\n"
        },
        CONFIRMED,
    ),
    "the key that the spool is sealed with is made anew by each process": (
        (),
        {
            "plane/settings/common.py": images.PLANE.joinpath("plane/settings/common.py")
            .read_text()
            .replace('os.environ.get("SECRET_KEY", "a throw-away key of the lab")', "os.urandom(30).hex()")
        },
        SPOOLED,
    ),
    # Everything is in effect by the defaults; but the environment isn't what was asked for.
    "the environment is emptied": ((), {"bin/docker-entrypoint-api.sh": UNSET}, set(DEFAULTS)),
}


@pytest.mark.parametrize("how", SILENT)
def test_where_something_is_not_in_effect_it_names_the_rows(image: Image, how: str, tmp_path: Path) -> None:
    command, files, rows = SILENT[how]
    changed = images.replace(image, code=code(tmp_path / "code", files))
    with serving(changed, inject(api(*command))) as (container, _):
        assert differing(prove(container, code=1)) == rows
        assert loud(container) == []


def test_where_the_launcher_fell_back_it_says_so(image: Image) -> None:
    """The check failed; the files are there."""
    what = word(
        inject(api()), SETTINGS, inject(api())["spec"]["containers"][0]["command"][SETTINGS].replace('"digest"', '"x"')
    )
    with serving(image, what) as (container, _):
        assert "KeyError: 'digest'" in prove(container, code=1)["error"]
        assert len(loud(container)) == 1
    with serving(image, with_files(inject(api()), {"lib/plane_webhook/asked.py": "def\n"})) as (container, _):
        assert "SyntaxError" in prove(container, code=1)["error"]
        assert len(loud(container)) == 1


def test_where_the_guard_fell_back_it_is_not_there(image: Image) -> None:
    what = inject(api())
    del what["spec"]["containers"][0]["volumeMounts"]
    with serving(image, what) as (container, _):
        assert container.exec([PROOF]).returncode != 0
        assert len(loud(container)) == 1


@pytest.mark.parametrize(
    ("name", "url", "rows"),
    [
        ("AMQP_URL", "redis://:s3cret@127.0.0.1:9/0", TRANSPORT),
        ("CELERY_BROKER_URL", "redis://:s3cret@127.0.0.1:9/0", TRANSPORT),
        ("CELERY_BROKER_WRITE_URL", "REDIS://:s3cret@127.0.0.1:9/0", TRANSPORT),
        # Nothing named: then Plane's settings say amqp://guest@localhost, where Plane ran on Redis once.
        ("AMQP_URL", "", set()),
    ],
)
def test_a_broker_that_is_not_amqp_leaves_plane_as_it_was(image: Image, name: str, url: str, rows: set[str]) -> None:
    with serving(image, inject(api()), **{name: url}) as (container, _):
        assert differing(prove(container, code=1)) == LIMITS | SETTINGS_MODULE | CONFIRMED | rows
        said = "the environment names no RabbitMQ" if not url else f"{name} names no AMQP broker"
        assert [said in line for line in loud(container)] == [True]
        assert container.processes()[0].argv[-6:-2] == ("--max-requests", "1200", "--max-requests-jitter", "1000")


@pytest.mark.parametrize("url", ["AMQP://plane:s3cret@127.0.0.1:9//", "amqps://plane:s3cret@127.0.0.1:9//"])
def test_amqp_may_be_written_in_capitals_and_end_in_s(image: Image, url: str) -> None:
    with serving(image, inject(api()), url=url) as (container, _):
        prove(container, code=0)
        assert loud(container) == []


def test_a_value_that_could_not_be_used_is_a_row(image: Image) -> None:
    with serving(image, inject(api(env={"GUNICORN_MAX_REQUESTS": "s3cret"}))) as (container, _):
        assert differing(prove(container, code=1)) == {"GUNICORN_MAX_REQUESTS"}
        assert len(loud(container)) == 1


# --- what proof itself can meet


def test_without_a_running_process_it_says_so(image: Image) -> None:
    with Container.from_pod(
        inject(pod("sh", "-c", "exec sleep 100", "docker-entrypoint-api.sh")), image=image
    ) as container:
        container.wait_for_log("launcher in place")
        wait_for(lambda: container.exec(["test", "-x", PROOF]).returncode == 0, 10, "proof is there")
        assert "no gunicorn or celery process runs here" in prove(container, code=1)["error"]


def test_its_output_is_json_whatever_python_there_is(image: Image) -> None:
    noisy = {"sitecustomize.py": "print('noise')\n", "json.py": "raise SystemExit('not this one')\n"}
    what = inject(
        pod(
            "sh",
            "-c",
            "exec sleep 100",
            "docker-entrypoint-api.sh",
            env={"PYTHONPATH": MOUNT_PATH, "PYTHONVERBOSE": "1"},
        )
    )
    with Container.from_pod(what, image=image) as container:
        container.wait_for_log("launcher in place")
        for name, text in noisy.items():
            container.exec(["sh", "-c", f"cat >{MOUNT_PATH}/{name}"], stdin=text)
        prove(container, code=1)
        bare = container.exec(["/bin/sh", "-c", f"PATH=/nowhere; {PROOF}"])
        assert (bare.returncode, json.loads(bare.stdout)["error"]) == (1, "there is no python3 on PATH")
        container.exec(["sh", "-c", f"rm {MOUNT_PATH}/settings.json"])
        assert "settings.json can't be used: FileNotFoundError" in prove(container, code=1)["error"]
        container.exec(["sh", "-c", f"rm -r {MOUNT_PATH}/lib"])
        assert "ModuleNotFoundError" in prove(container, code=1)["error"]


def test_an_error_in_planes_code_is_named_by_its_place_only(image: Image, tmp_path: Path) -> None:
    text = "\nif os.path.exists('/tmp/broken'):\n    int(CELERY_BROKER_URL)\n"
    files = {
        "plane/settings/production.py": "import os\n"
        + images.PLANE.joinpath("plane/settings/production.py").read_text()
        + text
    }
    changed = images.replace(image, code=code(tmp_path / "code", files))
    with serving(changed, inject(api())) as (container, _):
        container.exec(["touch", "/tmp/broken"])
        report = prove(container, code=1)
        line = files["plane/settings/production.py"].splitlines().index("    int(CELERY_BROKER_URL)") + 1
        assert report["error"] == (
            f"Celery's configuration can't be resolved: ValueError in /code/plane/settings/production.py, line {line}"
        )
        assert {row["what"] for row in report["checks"]} >= LIMITS  # what was found before that is shown


def test_what_somebody_else_runs_in_the_container_is_not_planes(image: Image) -> None:
    """A probe's `celery inspect ping`, say: it never went through the shim."""
    with serving(image, inject(api())) as (container, _):
        probe = ["bash", "-c", "exec -a celery python -c 'import sys; sys.stdin.read()'"]
        thread = threading.Thread(
            target=lambda: container.exec(["bash", "-c", f"echo on >/tmp/on; sleep 20 | {probe[2]}"])
        )
        thread.start()
        wait_for(lambda: any(each.argv[:1] == ("celery",) for each in container.processes()), 10, "the probe runs")
        prove(container, code=0)
        for each in container.processes():
            if each.argv == ("sleep", "20"):
                subprocess.run(["kill", str(each.pid)], check=True)
        thread.join()


# --- the spool, and what the processes say


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("REDIS_URL", "Plane's settings name no REDIS_URL"),
        ("SECRET_KEY", "SECRET_KEY is not in the environment: each process has another one"),
    ],
)
def test_a_spool_that_there_can_not_be_is_a_row(image: Image, missing: str, said: str) -> None:
    without = {name: text for name, text in image.env.items() if name != missing}
    with serving(replace(image, env=without), inject(api())) as (container, _):
        report = prove(container, code=1)
        ran = container.exec([SPOOL])
    assert differing(report) == SPOOLED
    assert report["spool"] == {"error": said}
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"the spool can't be used: {said}\n")


def test_without_a_spool_asked_for_none_is_looked_for(image: Image) -> None:
    with serving(image, inject(api(), "publish: {spool: none}"), REDIS_URL="") as (container, _):
        report = prove(container, code=0)
        ran = container.exec([SPOOL])
    assert {row["what"] for row in report["checks"]} == EVERYTHING - SPOOLED
    assert (ran.returncode, ran.stderr) == (1, "the spool can't be used: publish.spool is none\n")


def test_a_task_that_waits_is_shown_and_a_redis_that_is_gone(image: Image) -> None:
    """Each by `proof` and by `spool`, in Plane's container; the broker is not there at all."""
    with Redis() as own, serving(image, inject(api()), REDIS_URL=own.url) as (container, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/api/exports/?id=s3cret")
        assert connection.getresponse().status == 200
        connection.close()
        report = prove(container, code=0)
        assert {**report["spool"], "bytes": 0, "oldest, seconds": None} == {**EMPTY, "waiting": 1}
        assert report["spool"]["bytes"] > 100
        assert 0 <= report["spool"]["oldest, seconds"] < 60
        (troubled,) = [each for each in report["processes"] if each["state"] != "healthy"]
        assert (troubled["state"], troubled["kept"] <= 1, "refused" in troubled["cause"]) == ("troubled", True, True)
        for words in ([], ["list"]):
            ran = container.exec([SPOOL, *words])
            assert (ran.returncode, json.loads(ran.stdout)["waiting"], ran.stderr) == (0, 1, "")
        own.stop()
        report = prove(container, code=1)
        assert differing(report) == SPOOLED
        assert "Redis: ConnectionError: " in report["spool"]["error"]
        ran = container.exec([SPOOL])
        assert (ran.returncode, "Redis: ConnectionError" in ran.stderr) == (1, True)


SET_ASIDE = """
import os
from plane_webhook.message import Message
from plane_webhook.spool import Spool
spool = Spool(os.environ["REDIS_URL"], os.environ["SECRET_KEY"], 10, 10 ** 6)
headers = {"task": "plane.its", "id": "one"}
prepared = dict(body=b"s3cret", priority=0, content_type=None, content_encoding=None, headers=headers, properties={})
spool.put(Message(prepared, "", "celery", True, []))
(entry,) = spool.first(0, 9)
spool.set_aside(entry, "NotFound: no queue")
"""


def test_what_was_set_aside_is_named_without_its_arguments_and_can_be_tried_again(image: Image) -> None:
    with Redis() as own, serving(image, inject(api()), REDIS_URL=own.url) as (container, _):
        done = container.exec(["env", f"PYTHONPATH={MOUNT_PATH}/lib", "python", "-c", SET_ASIDE])
        assert done.returncode == 0, done.stderr
        report = prove(container, code=0)
        assert report["spool"] | {"bytes": 0} == {**EMPTY, "set aside": ["plane.its[one]: NotFound: no queue"]}
        ran = container.exec([SPOOL, "retry"])
        assert ran.returncode == 0
        first, _, rest = ran.stdout.partition("\n")
        assert first == "1 tasks are tried again"
        assert (json.loads(rest)["waiting"], json.loads(rest)["set aside"]) == (1, [])
        for words in (["drop"], ["list", "retry"]):
            ran = container.exec([SPOOL, *words])
            assert (ran.returncode, ran.stderr) == (2, "usage: /plane-webhook/spool [list|retry]\n")


LARGE_ONES = """
import os
from plane_webhook.message import Message
from plane_webhook.spool import Spool
spool = Spool(os.environ["REDIS_URL"], os.environ["SECRET_KEY"], 100, 10 ** 8)
prepared = dict(body=b"", priority=0, content_type=None, content_encoding=None, headers={}, properties={})
for body in [b"."] * 9 + [b"." * 300000] * 20:
    spool.put(Message(dict(prepared, body=body), "", "celery", True, []))
print([len(spool.first(start, count)) for start, count in ((0, 64), (9, 64), (0, 5), (3, 7), (28, 64), (29, 64))])
print([len(entry.message.prepared["body"]) for entry in spool.first(7, 64)])
"""


def test_of_large_entries_few_are_fetched_at_a_time(image: Image) -> None:
    """64 of 16 MiB would be what a small pod has in all."""
    with Redis() as own, serving(image, inject(api()), REDIS_URL=own.url) as (container, _):
        done = container.exec(["env", f"PYTHONPATH={MOUNT_PATH}/lib", "python", "-c", LARGE_ONES])
        assert done.returncode == 0, done.stderr
        assert done.stdout == "[12, 3, 5, 7, 1, 0]\n[1, 1, 300000, 300000, 300000]\n"


def test_it_shows_the_files_that_it_is_made_of(image: Image) -> None:
    with serving(image, inject(api())) as (container, _):
        shown = container.exec([PROOF, "--show"])
        other = container.exec([PROOF, "--all"])
    texts = {f"{MOUNT_PATH}/{path}": text for path, text in payload.FILES.items()}
    for name in ("celery", "python", "python3"):
        texts[f"{MOUNT_PATH}/bin/{name}"] = payload.FILES["bin/gunicorn"]
    command = inject(api())["spec"]["containers"][0]["command"]
    texts[f"{MOUNT_PATH}/settings.json"] = command[SETTINGS].replace("$$", "$") + "\n"
    expected = "".join(f"==> {path}\n{texts[path]}\n" for path in sorted(texts, key=lambda p: p.rpartition("/")[::2]))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == expected
    assert (other.returncode, other.stdout, other.stderr) == (2, "", "usage: /plane-webhook/proof [--show]\n")


# --- the workloads of Celery

CELERY_WORKLOADS = "workloads: [api, worker, beat]"


@pytest.mark.parametrize(("queue", "shell"), [("celery", "busybox"), ("celery.importer", "dash")])
def test_a_worker_runs_with_it_and_still_does_when_it_was_idle(
    image: Image, broker: Broker, queue: str, shell: Shell
) -> None:
    """Idle for longer than the read timeout, with which an idle consumer must not lose its connection."""
    command = "exec ./bin/docker-entrypoint-worker.sh" + ("" if queue == "celery" else f" {queue}")
    what = inject(pod("/bin/bash", "-c", command, map_name="vars"), CELERY_WORKLOADS + "\npublish: {timeout: 1}")
    with Container.from_pod(
        what, image=image, shell=shell, config_maps={"vars": {"AMQP_URL": broker.url}}
    ) as container:
        container.wait_for_log(" ready.")
        assert container.processes()[0].argv[-2:] == (("-l", "info") if queue == "celery" else ("-Q", queue))
        report = prove(container, code=0)
        assert {row["what"] for row in report["checks"]} == EVERYTHING - LIMITS - {
            n for n in DEFAULTS if n.startswith("G")
        }
        threading.Event().wait(3)
        text = (
            "from plane.bgtasks.export_task import notify_exported as task; "
            f"task.apply_async(('idle',), queue='{queue}')"
        )
        published = container.exec(
            ["python", "manage.py", "shell", "-c", text]
        )  # without the launcher, as `kubectl exec` is
        assert published.returncode == 0, published.stderr
        container.wait_for_log("exported idle")
        assert "Connection to broker lost" not in container.stderr
        assert loud(container) == []
        assert container.stderr.count("in effect for celery") == 1
        assert container.terminate() == 0


def test_beat_publishes_with_it(image: Image, broker: Broker) -> None:
    what = inject(pod("./bin/docker-entrypoint-beat.sh", map_name="vars"), CELERY_WORKLOADS)
    maps = {"vars": {"AMQP_URL": broker.url, "BEAT_INTERVAL": "0.2"}}
    broker.take()
    with Container.from_pod(what, image=image, config_maps=maps) as container:
        wait_for(lambda: broker.queue_depth() > 1, 30, "beat publishes")
        prove(container, code=0)
        assert loud(container) == []
        assert container.terminate() == 0
    broker.take()


# --- rotation


def worker_pids(port: int, count: int) -> list[int]:
    """Ask which worker answers, on one connection at a time; a rotated worker drops its connections."""
    pids: list[int] = []
    while len(pids) < count:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            while len(pids) < count:
                connection.request("GET", "/api/whoami/")
                pids.append(json.load(connection.getresponse())["pid"])
        except (OSError, http.client.HTTPException):
            threading.Event().wait(0.05)  # nobody may listen just then
        finally:
            connection.close()
    return pids


def test_beyond_the_hard_coded_limit_no_worker_is_restarted(image: Image) -> None:
    """tests/effect/test_lab.py shows that upstream's is."""
    with serving(image, inject(api())) as (container, port):
        assert len(set(worker_pids(port, ROTATION_AT_LAST + 50))) == 1
        assert container.stderr.count("Booting worker with pid") == 1


def test_the_users_own_limit_rotates_there(image: Image) -> None:
    """Uvicorn looks ten times a second whether a worker has had its 50, so some have more."""
    with serving(image, inject(api(env={"GUNICORN_MAX_REQUESTS": "50"}))) as (container, port):
        seen: set[int] = set()
        while len(seen) < 3 and container.stderr.count("Booting worker with pid") < ROTATION_FROM / 50:
            seen |= set(worker_pids(port, 50))
        assert len(seen) == 3


# --- the small Plane serves whatever is amiss; tests/effect/test_launcher.py has every way


@every_shell
@pytest.mark.parametrize("amiss", ["the mount", "the overlay"])
def test_plane_serves_with_its_own_limits_where_we_are_not_in_effect(image: Image, shell: Shell, amiss: str) -> None:
    what = inject(api())
    if amiss == "the mount":
        del what["spec"]["containers"][0]["volumeMounts"]
    else:
        what = with_files(what, {OVERLAY: "raise RuntimeError\n"})
    with serving(image, what, shell=shell) as (container, _):
        assert container.processes()[0].argv[-6:-2] == ("--max-requests", "1200", "--max-requests-jitter", "1000")
        assert len(loud(container)) == 1


def test_manage_py_by_kubectl_exec_runs_without_the_overlay(image: Image) -> None:
    """It has the container's PATH, not the launcher's."""
    with serving(image, inject(api())) as (container, _):
        text = "import os; print(os.environ.get('DJANGO_SETTINGS_MODULE'))"
        for argv in (["python", "manage.py", "check"], ["python", "manage.py", "shell", "-c", text]):
            run = container.exec(argv)
            assert run.returncode == 0, run.stderr
        assert run.stdout == "plane.settings.production\n"
