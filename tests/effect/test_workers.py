"""A worker that was injected does all of a worker's work as one that wasn't; each test runs both.

On the machine's RabbitMQ and on those of today, whose queues are quorum queues where nothing else is asked for.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import amqp
import pytest

from bench.effect.versions import COMBINATIONS, PLANES, Combination
from lab import images
from lab.container import Container
from lab.fixtures import need, of_kind
from lab.injected import Json, inject, pod
from lab.process import wait_for
from tests.effect.test_proof import CELERY_WORKLOADS, KEY, code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lab.broker import Broker
    from lab.images import Image
    from lab.redis import Redis

pytestmark = pytest.mark.lab

TASKS = """+

@shared_task
def slow(token: str) -> str:
    import os, time
    print(f"slow {token} begins", flush=True)
    time.sleep(3)
    issue_export_task.apply_async((token,), queue="relayed")
    return f"{token} in {os.getpid()}"


@shared_task(bind=True, max_retries=5)
def flaky(self, token: str) -> str:
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)
    return f"{token} after {self.request.retries}"
"""
QUEUE = "celery.importer"
IDLE = 4.0  # seconds: four of our timeouts, two of the worker's own heartbeat events


@dataclass(frozen=True)
class Where:
    """A kind of broker (none: the machine's), with its configuration, and the packages of Plane's image."""

    kind: str
    packages: Combination
    configuration: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind or 'own'}-{self.packages}"


# What RabbitMQ has announced. Celery 5.4's worker does not come to consume on such a broker, with or without us.
EXCLUSIVE = {"deprecated_features.permit.transient_nonexcl_queues": "false"}
WHERE = [
    Where("", PLANES),
    Where("", COMBINATIONS[-1]),
    Where("4.3-quorum", COMBINATIONS[-1], EXCLUSIVE),
]


@pytest.fixture(scope="module", params=WHERE, ids=str)
def where(request: pytest.FixtureRequest) -> Where:
    if missing := request.param.packages.missing():
        pytest.skip(missing)
    return request.param


@pytest.fixture(scope="module")
def broker(where: Where) -> Iterator[Broker]:
    need("rabbitmq-server", "bubblewrap")
    with of_kind(where.kind, where.configuration) as running:
        yield running


@pytest.fixture(scope="module")
def image(where: Where) -> Image:
    need("bubblewrap", "util-linux", "dash", "busybox-static")
    return images.build(where.packages.lock, where.packages.python)


@pytest.fixture(params=["upstream", "ours"])
def start(
    request: pytest.FixtureRequest, image: Image, broker: Broker, redis: Redis, tmp_path: Path
) -> Iterator[Callable[[str], Container]]:
    """Start a worker in a pod of that name."""
    command = f"set -e\n\nexec ./bin/docker-entrypoint-worker.sh {QUEUE}\n"
    what: Json = pod("/bin/bash", "-c", command, map_name="vars")
    if request.param == "ours":
        what = inject(what, CELERY_WORKLOADS + "\npublish: {timeout: 1}")
    changed = replace(image, code=code(tmp_path / "code", {"plane/bgtasks/export_task.py": TASKS}))
    maps = {"vars": {"AMQP_URL": broker.url, "REDIS_URL": redis.url, "SECRET_KEY": KEY}}
    with ExitStack() as running:

        def begin(name: str) -> Container:
            named = {**what, "metadata": {**what["metadata"], "name": name}}
            container = running.enter_context(Container.from_pod(named, image=changed, config_maps=maps))
            container.wait_for_log(" ready.")
            return container

        yield begin
    broker.take("relayed")
    broker.take(QUEUE)


@pytest.fixture
def worker(start: Callable[[str], Container]) -> Iterator[Container]:
    container = start("plane-worker-wl-0")
    yield container
    assert "Connection to broker lost" not in container.stderr
    assert "NOT IN EFFECT" not in container.stderr
    assert "there is no spool" not in container.stderr


def submit(broker: Broker, task: str, token: str) -> None:
    """Put a task into the worker's queue without Celery."""
    headers = {"lang": "py", "task": f"plane.bgtasks.export_task.{task}", "id": token, "root_id": token, "retries": 0}
    body = json.dumps([[token], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    kinds = {"content_type": "application/json", "content_encoding": "utf-8", "correlation_id": token}
    with broker.channel() as channel:
        message = amqp.Message(body, application_headers=headers, **kinds)
        channel.basic_publish_confirm(message, routing_key=QUEUE)


def ping(container: Container) -> None:
    """Remote control: its answer is published on the connection that the worker consumes on."""
    name = f"celery@{container.spec.env['HOSTNAME']}"  # asked for by name, its answer ends the waiting
    run = container.exec(["celery", "-A", "plane", "inspect", "ping", "--timeout", "10", "--destination", name])
    assert (run.returncode, "pong" in run.stdout) == (0, True), run.stdout + run.stderr


def test_it_consumes_retries_and_publishes_from_each_process(worker: Container, broker: Broker) -> None:
    submit(broker, "flaky", "again")
    worker.wait_for_log("'again after 2'")
    submit(broker, "slow", "one")
    submit(broker, "slow", "two")
    worker.wait_for_log("'one in ")
    worker.wait_for_log("'two in ")
    assert len(set(re.findall(r"(?:one|two) in (\d+)'", worker.stderr))) == min(2, len(worker.processes()) - 1)
    wait_for(lambda: broker.queue_depth("relayed") == 2, 10, "both have published")


def test_remote_control_and_events_go_on_when_it_was_idle(worker: Container, broker: Broker) -> None:
    ping(worker)
    with broker.channel() as channel:
        queue = channel.queue_declare(exclusive=True).queue
        channel.queue_bind(queue, "celeryev", "worker.#")
        time.sleep(IDLE)
        kinds = []
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            kinds.append(json.loads(message.body)["type"])
    assert kinds.count("worker-heartbeat") >= 1
    ping(worker)
    submit(broker, "flaky", "later")
    worker.wait_for_log("'later after 2'")


def test_workers_meet_and_one_that_is_killed_takes_up_its_work_again(
    worker: Container, start: Callable[[str], Container], broker: Broker
) -> None:
    other = start("plane-worker-wl-1")
    assert "mingle: sync with 1 nodes" in other.stderr
    assert "mingle: sync complete" in other.stderr
    other.signal(9)
    other.wait()
    worker.restart(kill=True)
    worker.wait_for_log(" ready.")
    submit(broker, "flaky", "again")
    worker.wait_for_log("'again after 2'")
    ping(worker)


def test_on_term_it_finishes_what_it_has_begun(worker: Container, broker: Broker) -> None:
    submit(broker, "slow", "last")
    worker.wait_for_log("slow last begins")
    assert worker.terminate() == 0
    assert "'last in " in worker.stderr
    assert broker.queue_depth("relayed") == 1
