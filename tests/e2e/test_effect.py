"""The container that was admitted, run as the API server stored its pod; and the same one without the webhook.

The load is more than the literal limit of Plane's entrypoint (1200 requests, up to 1000 more by chance), so without the
webhook a worker has to be replaced.
"""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from lab.container import Container
from lab.controlplane import CHART
from lab.pods import INJECT, Pod, injected, registered, unharmed
from lab.process import free_port, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from lab.broker import Broker
    from lab.controlplane import ControlPlane
    from lab.images import Image
    from lab.redis import Redis
    from lab.webhook import Webhook

pytestmark = pytest.mark.lab

RELEASE = "plane-app"
BEYOND_THE_LIMIT = 1200 + 1000 + 50
CALLERS = 4


class Answer(NamedTuple):
    status: int
    content: dict[str, Any]


class Api:
    """Plane's API in a container: the requests that its users send."""

    def __init__(self, container: Container, port: int) -> None:
        self.container, self.port = container, port

    def export(self) -> Answer:
        """Ask for an export, as Plane's own endpoint takes it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", "/api/exports/")
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return Answer(response.status, json.loads(text) if response.status == http.HTTPStatus.OK else {})

    def workers(self, requests: int) -> set[int]:
        """Send so many requests, or as many as it takes to see a second worker; return the workers' pids."""
        pids: set[int] = set()
        left = threading.Semaphore(requests)

        def call() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            while len(pids) < 2 and left.acquire(blocking=False):
                try:
                    connection.request("GET", "/api/whoami/")
                    pids.add(json.loads(connection.getresponse().read())["pid"])
                except (OSError, http.client.HTTPException):  # a worker that is replaced hangs up
                    connection.close()
            connection.close()

        threads = [threading.Thread(target=call) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return pids

    def proof(self) -> tuple[int, dict[str, Any]]:
        ran = self.container.exec(["/plane-webhook/proof"])
        return ran.returncode, json.loads(ran.stdout or "{}")


def stored(plane: ControlPlane, namespace: str, broker: Broker, redis: Redis, **values: str) -> Pod:
    """Install the release; return its API pod as the API server has it."""
    chosen = {"amqpUrl": broker.url, "redisUrl": redis.url, "shape": "community", **values}
    words = [word for name, value in chosen.items() for word in ("--set", f"{name}={value}")]
    plane.helm("install", RELEASE, CHART, "--namespace", namespace, *words)
    selector = f"app.name={namespace}-{RELEASE}-api"
    (pod,) = wait_for(lambda: plane.pods(namespace, selector), 30, "the API's pod")
    return pod


def objects(plane: ControlPlane, namespace: str, kind: str) -> dict[str, dict[str, bytes | str]]:
    """ConfigMaps or Secrets of the namespace: what a kubelet would fetch for the pod."""
    items = json.loads(plane.kubectl("-n", namespace, "get", kind, "-o", "json"))["items"]
    plain = base64.b64decode if kind == "secrets" else str
    return {
        item["metadata"]["name"]: {key: plain(value) for key, value in item.get("data", {}).items()} for item in items
    }


Run = Callable[[Pod], AbstractContextManager[Api]]


@pytest.fixture
def run(controlplane: ControlPlane, image: Image, tmp_path: Path) -> Run:
    """Runs a pod's API container, for a `with` block."""

    @contextmanager
    def running(pod: Pod) -> Iterator[Api]:
        namespace = pod["metadata"]["namespace"]
        port = free_port()
        tmp_path.chmod(0o1777)
        with Container.from_pod(  # noqa: S604 - `shell` is which one
            pod,
            image=image.with_env(PORT=str(port)),
            config_maps=objects(controlplane, namespace, "configmaps"),
            secrets=objects(controlplane, namespace, "secrets"),
            shell="busybox",  # as in Plane's image
            binds={"/tmp": tmp_path},  # an emptyDir of the operator's; without one, gunicorn needs a writable root
        ) as container:
            container.wait_ready(port)
            yield Api(container, port)

    return running


def confirming(broker: Broker) -> bool:
    """Tell whether the broker knows a channel in confirm mode."""
    return "true" in broker.rabbitmqctl("list_channels", "confirm").split()


@contextmanager
def no_queue(broker: Broker) -> Iterator[None]:
    """Take the queue away, behind the back of those who know that they declared it."""
    with broker.channel() as channel:
        channel.queue_delete("celery")
    yield
    broker.declare()


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({}, id="community"),
        pytest.param(
            {"shape": "enterprise", "appVars": "true", "restricted": "true", "readOnlyRoot": "true"},
            id="enterprise, restricted, read-only root",
        ),
    ],
)
def test_the_settings_are_in_effect(
    controlplane: ControlPlane, webhook: Webhook, broker: Broker, run: Run, *, redis: Redis, values: dict[str, str]
) -> None:
    namespace = controlplane.namespace(f"effect-{len(values)}", INJECT)
    with registered(controlplane, webhook), unharmed(controlplane):
        pod = stored(controlplane, namespace, broker, redis, **values)
    assert injected(pod)
    with run(pod) as api:
        assert "plane-webhook: in effect for gunicorn" in api.container.stderr
        assert "NOT IN EFFECT" not in api.container.stderr
        broker.take()
        answer = api.export()
        assert answer.status == 200
        assert broker.take() == answer.content["messages"], "what was answered has arrived"
        assert confirming(broker)
        with no_queue(broker):
            answer = api.export()
            assert answer.status == 200
            assert broker.take() == answer.content["messages"], "its queue was declared anew"
        assert api.export().status == 200
        if not values:  # as long as it takes, once is enough
            assert len(api.workers(BEYOND_THE_LIMIT)) == 1
        code, report = api.proof()
        assert (code, report["in_effect"]) == (0, True), report
        assert api.container.terminate() == 0


def test_without_the_webhook_workers_are_replaced_and_tasks_are_lost(
    controlplane: ControlPlane, broker: Broker, redis: Redis, run: Run
) -> None:
    pod = stored(controlplane, controlplane.namespace("effect-upstream"), broker, redis)
    assert not injected(pod)
    with run(pod) as api:
        assert "plane-webhook" not in api.container.stderr
        broker.take()
        assert api.export().content["messages"] == broker.take()
        assert not confirming(broker)
        with no_queue(broker):
            assert api.export().status == 200, "and nobody hears of it"
        assert broker.take() == []
        assert len(api.workers(BEYOND_THE_LIMIT)) == 2
        assert api.container.terminate() == 0
