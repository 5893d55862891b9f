"""A worker that was injected does all of a worker's work as one that wasn't; each test runs both."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import amqp
import pytest

from lab.container import Container
from lab.process import wait_for
from tests.effect.injected import Json, inject, pod
from tests.effect.test_proof import CELERY_WORKLOADS, code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.broker import Broker
    from lab.images import Image

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
IDLE = 4.0  # seconds: four of the read timeouts, two of the worker's own heartbeat events


@pytest.fixture(params=["upstream", "ours"])
def worker(request: pytest.FixtureRequest, image: Image, broker: Broker, tmp_path: Path) -> Iterator[Container]:
    command = f"set -e\n\nexec ./bin/docker-entrypoint-worker.sh {QUEUE}\n"
    what: Json = pod("/bin/bash", "-c", command, map_name="vars")
    if request.param == "ours":
        what = inject(what, CELERY_WORKLOADS + "\npublish: {timeout: 1}")
    changed = replace(image, code=code(tmp_path / "code", {"plane/bgtasks/export_task.py": TASKS}))
    maps = {"vars": {"AMQP_URL": broker.url}}
    with Container.from_pod(what, image=changed, config_maps=maps) as container:
        container.wait_for_log(" ready.")
        yield container
        assert "Connection to broker lost" not in container.stderr
        assert "NOT IN EFFECT" not in container.stderr
    broker.take("relayed")
    broker.take(QUEUE)


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


def test_on_term_it_finishes_what_it_has_begun(worker: Container, broker: Broker) -> None:
    submit(broker, "slow", "last")
    worker.wait_for_log("slow last begins")
    assert worker.terminate() == 0
    assert "'last in " in worker.stderr
    assert broker.queue_depth("relayed") == 1
