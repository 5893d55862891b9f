"""The story on a real node: what a person sees of the loss, and that it is over."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lab import images, ourimage
from lab.broker import Broker
from lab.cache import LabError
from lab.demo.screen import GREEN, RED, show, tell
from lab.faults import SWALLOW, Proxy
from lab.node import ADDRESS, Node
from lab.node import webhook as ours
from lab.node.plane import API, BEAT, QUICK, WORKER, Release
from lab.postgres import Postgres
from lab.process import wait_for
from lab.redis import Redis
from webhook.admission.injection import INJECTED

if TYPE_CHECKING:
    from contextlib import ExitStack

EXPORTS = 10
# Seconds. Ten exports take one, or three where each waits for a confirmation that doesn't come; those that are called
# lost are looked at again when the others have arrived.
SOON, PATIENCE = 5.0, 30.0
SHELL = "dash"


def story(stack: ExitStack) -> None:
    """Tell it; `stack` ends what was started."""
    ourimage.image()  # made first, where it isn't there: that takes a minute
    tell("Starting a Kubernetes node, RabbitMQ, Redis and PostgreSQL")
    parts = node, broker, redis, postgres = Node(), Broker(), Redis(), Postgres()
    # Entered first, for the threads have to last as long as what they started: that ends with its thread.
    beside = stack.enter_context(ThreadPoolExecutor(len(parts)))
    list(beside.map(stack.enter_context, parts))
    proxy = stack.enter_context(Proxy(broker.port, tasks_only=True))
    node.expose(proxy.port)

    tell("helm install plane-app: a release that is built like Plane, as its chart runs it")
    release = Release(node, node.namespace("plane"), broker, redis, postgres)
    release.prepare(images.build())
    url = f"amqp://guest:guest@{ADDRESS}:{proxy.port}//"
    release.upgrade(SHELL, amqpUrl=url, **QUICK)
    release.wait_completed([release.export()])
    show(f"{_described(release.pod(API))}. An export is done at once")

    tell(f"The API's connection to RabbitMQ goes silent, and {EXPORTS} people ask for an export")
    ours.pull(node)  # the node has nothing else to do now
    before = _fault(release, proxy, SOON)

    tell(f"helm install plane-webhook manifests/chart -n {ours.NAMESPACE} --create-namespace")
    ours.install(node)
    tell(f"kubectl label namespace {release.namespace} {ours.LABEL}; kubectl rollout restart of what publishes")
    node.kubectl("label", "namespace", release.namespace, ours.LABEL)
    release.kubectl("rollout", "restart", "deployment", *map(release.deployment, (API, WORKER, BEAT)))
    for workload in (API, WORKER):
        _rolled(release, workload)
    release.wait_completed([release.export()])
    show(_described(release.pod(API)))

    tell(f"The same again: the connection goes silent, and {EXPORTS} people ask for an export")
    _fault(release, proxy, PATIENCE)
    show(f"And those of before: {_counted(_states(release, before))}")

    tell("helm upgrade plane-app: nobody thinks of the webhook")
    release.upgrade(SHELL, amqpUrl=url, timestamp=True, wait=False, **QUICK)
    _rolled(release, API)
    known = node.helm("get", "manifest", release.name, "--namespace", release.namespace).count("plane-webhook")
    pod = release.pod(API)
    show(f"{_described(pod)}. `helm get manifest` names plane-webhook {known} times")

    tell(f"kubectl -n {release.namespace} exec {pod['metadata']['name']} -- /plane-webhook/proof")
    report = json.loads(release.execute(pod, "/plane-webhook/proof"))
    for row in report["checks"]:
        show(f"{'ok' if row['agrees'] else 'NO'} {row['what']}: {json.dumps(row['found'])}")
    show("exit code 0: what was asked for is what the processes have", GREEN)


def _fault(release: Release, proxy: Proxy, patience: float) -> list[str]:
    """Have the connections on which tasks were published go silent, show what becomes of exports, and return these."""
    proxy.flow(up=SWALLOW, down=SWALLOW)
    began = time.monotonic()
    exports = [release.export() for _ in range(EXPORTS)]  # an error unless each is answered with 200
    show(f"POST /api/exports/      {EXPORTS} x 200")
    with suppress(LabError):
        release.wait_completed(exports, patience)
    took = time.monotonic() - began
    proxy.heal()
    release.wait_completed([release.export()])  # the worker works
    states = _states(release, exports)
    show(f"GET /api/exports/ID/    {_counted(states)}")
    lost = EXPORTS - states["completed"]
    if lost:
        show(f"{lost} of {EXPORTS} lost, and no error: they stay `queued` for ever. (The next one arrived.)", RED)
    else:
        show(f"0 of {EXPORTS} lost: each has arrived, the last one {took:.1f} s after the first was asked for", GREEN)
    return exports


def _states(release: Release, exports: list[str]) -> Counter[str]:
    return Counter(release.status(each) for each in exports)


def _counted(states: Counter[str]) -> str:
    return ", ".join(f"{count} x {state}" for state, count in states.items())


def _rolled(release: Release, workload: str) -> None:
    release.kubectl("rollout", "status", "deployment", release.deployment(workload), "--timeout=100s")
    wait_for(lambda: len(release.pods(workload)) == 1, 30, "the old pod leaves")


def _described(pod: dict[str, Any]) -> str:
    said = pod["metadata"].get("annotations", {}).get(INJECTED)
    return f"{pod['metadata']['name']}: {f'injected as {said}' if said else 'not injected'}"
