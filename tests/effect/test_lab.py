"""The small Plane in its materialised container behaves as Plane does: the lab without the webhook is upstream."""

from __future__ import annotations

import http.client
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from lab.container import Container, Shell
from lab.faults import SWALLOW, Proxy
from lab.process import free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.broker import Broker
    from lab.images import Image
    from lab.postgres import Postgres
    from lab.redis import Redis

pytestmark = pytest.mark.lab

# What the entrypoint asks gunicorn for: a worker ends somewhere between these numbers of requests.
ROTATION_FROM, ROTATION_AT_LAST = 1200, 1200 + 1000

# The overlay that anybody would write first.
NAIVE = "from plane.settings.production import *\nCELERY_BROKER_POOL_LIMIT = 10\n"


def pod(*command: str, **container: Any) -> dict[str, Any]:
    """A pod with the shape that Plane's charts give theirs: everything comes from envFrom."""
    only = {
        "name": "plane-app-api",
        "command": list(command),
        "envFrom": [{"configMapRef": {"name": "app-vars"}}],
        **container,
    }
    return {
        "metadata": {"name": "plane-app-api-wl-0", "namespace": "plane"},
        "spec": {
            "containers": [only],
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "naive", "configMap": {"name": "naive"}}],
        },
    }


def named(what: dict[str, Any], name: str) -> dict[str, Any]:
    """The pod by another name."""
    return {**what, "metadata": {**what["metadata"], "name": name}}


def maps(url: str, port: int = 0, **more: str) -> dict[str, dict[str, str]]:
    """The ConfigMaps that the pod names."""
    return {
        "app-vars": {"AMQP_URL": url, "PORT": str(port), "GUNICORN_WORKERS": "1", **more},
        "naive": {"naive.py": NAIVE},
    }


@contextmanager
def serving(
    image: Image, what: dict[str, Any], url: str, *, shell: Shell = "dash", **more: str
) -> Iterator[tuple[Container, int]]:
    """Run an API container; give it and its port."""
    port = free_port()
    with Container.from_pod(what, image=image, config_maps=maps(url, port, **more), shell=shell) as container:
        container.wait_ready(port)
        yield container, port


def post(port: int, query: str = "") -> dict[str, Any]:
    """Ask for an export."""
    with urlopen(Request(f"http://127.0.0.1:{port}/api/exports/?{query}", method="POST"), timeout=60) as response:
        return json.load(response)


def status(port: int, token: str) -> str:
    """Say what a user sees of an export."""
    with urlopen(f"http://127.0.0.1:{port}/api/exports/{token}/", timeout=60) as response:
        return json.load(response)["status"]


@pytest.fixture(scope="module")
def api(image: Image, broker: Broker) -> Iterator[tuple[Container, int]]:
    with serving(image, pod("./bin/docker-entrypoint-api.sh"), broker.url) as running:
        yield running


@pytest.mark.parametrize(
    ("way", "messages"), [("delay", 1), ("apply_async", 1), ("send_task", 1), ("chain", 1), ("group", 2)]
)
def test_a_published_task_is_in_the_broker(api: tuple[Container, int], broker: Broker, way: str, messages: int) -> None:
    broker.take()
    answer = post(api[1], f"via={way}&id=by-{way}")
    assert answer["id"] == f"by-{way}"
    assert len(answer["messages"]) == messages
    assert broker.take() == answer["messages"]
    assert status(api[1], f"by-{way}") == "queued"


def test_each_request_with_an_api_token_publishes_a_task_and_a_sessions_does_not(
    api: tuple[Container, int], broker: Broker
) -> None:
    broker.take()
    assert get(api[1], "api/v1/projects/", token="one") == 200
    assert len(broker.take()) == 1
    assert get(api[1], "api/users/me/") == 200
    assert get(api[1], "api/v1/projects/") == 403
    assert broker.take() == []


def test_a_container_of_the_api_registers_clears_the_cache_and_then_serves(
    image: Image, broker: Broker, redis: Redis
) -> None:
    broker.take()
    asked = ("redis-cli", "-u", redis.url)
    for database in ("0", "1"):
        subprocess.run([*asked, "-n", database, "set", "kept", database], check=True, capture_output=True)
    with serving(image, pod("./bin/docker-entrypoint-api-ee.sh"), broker.url, REDIS_URL=redis.url) as (container, _):
        assert container.stdout.split("Instance registered")[1].strip().startswith("Cache Cleared")
    assert len(broker.take()) == 1
    left = [
        subprocess.run([*asked, "-n", n, "get", "kept"], capture_output=True, text=True, check=True).stdout
        for n in "01"
    ]
    assert [each.strip() for each in left] == ["", "1"]


def test_upstream_a_container_that_finds_no_broker_ends_before_it_serves(image: Image) -> None:
    """Plane's best-known complaint about RabbitMQ: the API crash-loops."""
    nowhere = maps(f"amqp://guest:guest@127.0.0.1:{free_port()}//")
    what = pod("./bin/docker-entrypoint-api.sh")
    with Container.from_pod(what, image=image, config_maps=nowhere) as container:
        assert container.wait() == 1
        assert "Connection refused" in container.stderr


def test_while_its_publish_waits_a_read_by_token_holds_a_thread_and_a_connection_of_the_database(
    image: Image, broker: Broker, postgres: Postgres
) -> None:
    """The publish that nobody asked for, which fails at last, and is swallowed."""
    what = pod("./bin/docker-entrypoint-api.sh")
    with (
        Proxy(broker.port) as proxy,
        serving(image, what, broker.url.replace(str(broker.port), str(proxy.port)), DATABASE_URL=postgres.url) as it,
        ThreadPoolExecutor() as pool,
    ):
        container, port = it
        assert get(port, "api/v1/projects/", token="before") == 200
        wait_for(lambda: postgres.connections() == 0, 10, "the connection goes with its request")
        before = threads(container)
        proxy.door("refuse")
        proxy.flow(up=SWALLOW, down=SWALLOW)
        proxy.cut()
        waiting = [pool.submit(get, port, "api/v1/projects/", token=f"one-{number}") for number in range(4)]
        wait_for(lambda: postgres.connections() == 4, 10, "each holds one")
        assert threads(container) >= before + 4
        assert get(port, "api/users/me/") == 200
        assert [each.result(60) for each in waiting] == [200] * 4
        assert container.stderr.count("Connection refused") >= 4


def get(port: int, path: str, *, token: str = "") -> int:
    """Read something, with an API token or as a browser; the status of the answer."""
    headers = {"X-Api-Key": token} if token else {}
    request = Request(f"http://127.0.0.1:{port}/{path}", headers=headers)
    try:
        with urlopen(request, timeout=60) as response:  # noqa: S310 - our own loopback URL
            return response.status
    except HTTPError as error:
        return error.code


def threads(container: Container) -> int:
    """How many threads gunicorn's worker has."""
    status = Path(f"/proc/{container.processes()[-1].pid}/status").read_text()
    return int(status.split("Threads:")[1].split()[0])


def test_the_servers_arguments_are_planes(api: tuple[Container, int]) -> None:
    argv = api[0].processes()[0].argv
    assert argv[:2] == ("/usr/local/bin/python", "/usr/local/bin/gunicorn")
    words = " ".join(argv[2:])
    assert words.startswith("-w 1 -k uvicorn.workers.UvicornWorker plane.asgi:application --bind 127.0.0.1:")
    assert words.endswith("--max-requests 1200 --max-requests-jitter 1000 --access-logfile -")


def test_a_publish_that_fails_is_a_500_with_its_cause_in_the_log_and_the_row_is_written_already(image: Image) -> None:
    nowhere = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
    what = pod("./bin/docker-entrypoint-api.sh")
    with serving(image, what, nowhere, INSTANCE_IS_REGISTERED="1") as (container, port):
        with pytest.raises(HTTPError) as error:
            post(port, "id=lost")
        assert error.value.code == 500
        container.wait_for_log("Connection refused")
        assert status(port, "lost") == "queued"


def test_upstream_a_worker_is_rotated_even_where_the_variable_switches_that_off(image: Image, broker: Broker) -> None:
    """The limits are literals in the entrypoint, and a variable alone changes nothing."""
    what = pod("./bin/docker-entrypoint-api-ee.sh")
    off = {"GUNICORN_MAX_REQUESTS": "0", "GUNICORN_MAX_REQUESTS_JITTER": "0"}
    with serving(image, what, broker.url, **off) as (container, port):
        seen: list[int] = []
        while len(seen) <= ROTATION_AT_LAST and len(set(seen)) < 2:
            seen += _worker_pids(port, 100)
        assert len(set(seen)) == 2, f"one worker answered all {len(seen)} requests"
        # The readiness probes were requests too, and one request is lost with its connection.
        assert seen.count(seen[0]) in range(ROTATION_FROM - 10, ROTATION_AT_LAST + 1)
        assert container.stderr.count("Booting worker with pid") == 2


def _worker_pids(port: int, count: int) -> list[int]:
    """Ask, on one connection, which worker answers; less than `count` times where the connection is cut meanwhile."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    pids = []
    try:
        for _ in range(count):
            connection.request("GET", "/api/whoami/")
            pids.append(json.load(connection.getresponse())["pid"])
    except (
        OSError,
        http.client.HTTPException,
    ):  # a rotated worker drops its connections, and nobody may listen just then
        pass
    finally:
        connection.close()
    return pids


@pytest.mark.parametrize("settings", ["plane.settings.production", "naive"])
def test_an_overlay_that_just_imports_planes_settings_cannot_be_imported(
    image: Image, broker: Broker, settings: str
) -> None:
    """`plane` imports its Celery app, which reads the settings that are being imported: hence our overlay's shape."""
    env = [{"name": "PYTHONPATH", "value": "/naive"}, {"name": "DJANGO_SETTINGS_MODULE", "value": settings}]
    what = pod("python", "manage.py", "check", env=env, volumeMounts=[{"name": "naive", "mountPath": "/naive"}])
    with Container.from_pod(what, image=image, config_maps=maps(broker.url)) as container:
        code, stderr = container.wait(), container.stderr
    if settings == "naive":
        assert (code, "has no attribute 'REDIS_URL'" in stderr) == (1, True)
    else:
        assert (code, stderr) == (0, "")


@pytest.mark.parametrize("shell", ["dash", "busybox"])
def test_it_serves_with_a_read_only_root_as_nobody(image: Image, broker: Broker, shell: Shell) -> None:
    what = pod(
        "/bin/bash",
        "-c",
        "set -e\n\n# Start the API\nexec ./bin/docker-entrypoint-api-ee.sh\n",
        securityContext={
            "runAsUser": 65534,
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        volumeMounts=[{"name": "tmp", "mountPath": "/tmp"}],
    )
    with serving(image, what, broker.url, shell=shell) as (container, port):
        broker.take()
        assert post(port)["messages"] == broker.take()
        assert container.exec(["id", "-u"]).stdout == "65534\n"
        assert container.terminate() == 0


def test_the_worker_runs_what_the_api_and_beat_published(image: Image, broker: Broker, tmp_path: Path) -> None:
    """API, two workers and beat as containers of their own, with one database."""
    tmp_path.chmod(0o777)
    port = free_port()
    config = maps(broker.url, port, DATABASE_PATH="/data/plane.sqlite3", BEAT_INTERVAL="0.5")
    api, worker, importers, beat = (
        Container.from_pod(
            named(pod("/bin/bash", "-c", f"exec ./bin/docker-entrypoint-{entry}"), f"plane-{number}"),
            image=image,
            config_maps=config,
            binds={"/data": tmp_path},
        )
        for number, entry in enumerate(("api.sh", "worker.sh", "worker.sh celery.importer", "beat.sh"))
    )
    with api, worker, importers, beat:
        api.wait_ready(port)
        worker.wait_for_log(" ready.")
        importers.wait_for_log("exchange=celery.importer(direct)")
        post(port, "via=chain&id=whole")
        worker.wait_for_log("ran issue_export_task whole")
        worker.wait_for_log("exported whole")  # the second of the chain, which the worker published
        worker.wait_for_log("stack_email_notification")
        assert status(port, "whole") == "completed"
        assert beat.terminate() == 0
        wait_for(lambda: broker.queue_depth() == 0, 10, "everything published was taken")
        assert worker.terminate() == 0
