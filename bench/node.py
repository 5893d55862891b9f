"""`python -m bench.node`: what takes how long on the lab's node, and how many pods slip by while nothing answers.

Needs what `make node` needs. The figures are those of a machine that has nothing else to do.
"""

from __future__ import annotations

import statistics
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lab import images
from lab.broker import Broker
from lab.cache import LabError, say
from lab.load import Steady
from lab.node import Node, is_ready
from lab.node import images as layers
from lab.node import webhook as ours
from lab.node.plane import API, Release
from lab.pods import INJECT, api_pod, create, injected
from lab.postgres import Postgres
from lab.process import exit_on_sigterm, wait_for
from lab.redis import Redis

if TYPE_CHECKING:
    from collections.abc import Callable

RATE = 5  # pods created a second
AWAY = 30  # seconds for which the webhook is scaled to 0
ROUNDS = 5
KILLS = 6  # three for each replica: with more the kubelet would wait for a minute before it starts it again
# Seconds since the epoch at which the container's first process began, to the hundredth.
BEGAN = """
import os, time
stat = open("/proc/1/stat").read().rpartition(")")[2].split()
print(time.time() - float(open("/proc/uptime").read().split()[0]) + int(stat[19]) / os.sysconf("SC_CLK_TCK"))
"""
LABELS = {"without": "plane-webhook/inject-", "with": ours.LABEL}


def main() -> int:
    """Measure and print."""
    exit_on_sigterm()
    began = time.monotonic()
    print("| | |\n|-|-|", flush=True)
    try:
        with Node() as node:
            _row("the node is Ready after", f"{time.monotonic() - began:.1f} s")
            node.registry.add("lab/busybox:1", layers.busybox())
            _pods(node)
            began = time.monotonic()
            ours.install(node)
            _row("the webhook is installed and registered after", f"{time.monotonic() - began:.1f} s")
            _starts(node)
            _certificate(node)
            _slipped(node, "killed", "both replicas killed", lambda: ours.kill(node, *ours.replicas(node)))
            _slipped(node, "scaled", f"the webhook scaled to 0 for {AWAY} s", lambda: _away(node))
            _slipped(node, "one", f"one replica killed, {KILLS} times, in turn", lambda: _kill_in_turn(node))
    except LabError as error:
        say(str(error))
        return 2
    return 0


def _row(what: str, value: str) -> None:
    print(f"| {what} | {value} |", flush=True)


def _spread(values: list[float], digits: int = 1) -> str:
    return f"{statistics.median(values):.{digits}f} s ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _pods(node: Node) -> None:
    """Print how long a pod takes from its creation until it is ready, its image there from the second one on."""
    took = []
    for number in range(ROUNDS + 1):
        container = {"name": "x", "image": "lab/busybox:1", "command": ["sleep", "1000"]}
        took.append(_ready(node, "default", f"x{number}", {"spec": {"containers": [container]}}))
    _row("a pod is ready after, with its image there", _spread(took[1:]))


def _ready(node: Node, namespace: str, name: str, pod: dict[str, Any]) -> float:
    pod = {**pod, "metadata": {"name": name}}
    began = time.monotonic()
    create(node, namespace, pod).raise_for_status()
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    wait_for(lambda: is_ready(node.api.get(path).json()), 60, "the pod is ready")
    return time.monotonic() - began


def _starts(node: Node) -> None:
    """Print how long Plane's API, which has half a core, takes from its first process until gunicorn listens."""
    took: dict[str, list[float]] = {kind: [] for kind in LABELS}
    with Broker() as broker, Redis() as redis, Postgres() as postgres:
        release = Release(node, node.namespace("plane"), broker, redis, postgres)
        release.prepare(images.build())
        release.upgrade("dash")
        for number in range(2 * ROUNDS):
            for kind in LABELS if number % 2 else reversed(LABELS):
                node.kubectl("label", "namespace", release.namespace, LABELS[kind])
                release.kubectl("delete", "pod", release.pod(API)["metadata"]["name"], "--now")
                release.wait_ready(API, timeout=90)
                pod = release.pod(API)
                if injected(pod) != (kind == "with"):
                    raise LabError(f"the pod {kind} this webhook isn't what it should be")
                lines = release.logs(pod, "--timestamps").splitlines()
                listens = next(line.split()[0] for line in lines if "Listening at" in line)
                at = datetime.fromisoformat(listens[: len("2026-11-26T22:00:00.000000")]).replace(tzinfo=UTC)
                took[kind].append(at.timestamp() - float(release.execute(pod, "python3", "-Sc", BEGAN)))
    for kind, values in took.items():
        _row(f"Plane's API with `cpu: 500m` listens {kind} us after", _spread(values, 2))


def _certificate(node: Node) -> None:
    """Print how long after the Secret was replaced each replica serves the new certificate."""
    took = []
    for _ in range(ROUNDS):
        node.kubectl("-n", ours.NAMESPACE, "delete", "secret", ours.SECRET)
        new = wait_for(lambda: ours.certificate(node), 60, "operate makes another")
        began = time.monotonic()
        ports = [node.forward((pod["status"]["podIP"], 8443)) for pod in ours.replicas(node)]
        wait_for(lambda: {ours.served(port) for port in ports} == {new}, 180, "each replica serves it")  # noqa: B023
        took.append(time.monotonic() - began)
    _row("a replaced Secret is served by both replicas after", _spread(took))


def _away(node: Node) -> None:
    scale = ("-n", ours.NAMESPACE, "scale", "deployment/plane-webhook")
    node.kubectl(*scale, "--replicas=0")
    time.sleep(AWAY)
    node.kubectl(*scale, "--replicas=2")
    node.kubectl("-n", ours.NAMESPACE, "rollout", "status", "deployment/plane-webhook", "--timeout=120s")


def _kill_in_turn(node: Node) -> None:
    for number in range(KILLS):
        ours.kill(node, ours.replicas(node)[number % 2])


def _slipped(node: Node, name: str, what: str, harm: Callable[[], None]) -> None:
    """Print how many pods slip by meanwhile and until all is well again, and that `operate` names each."""
    namespace = node.namespace(name, INJECT)
    missed = []

    def make() -> None:
        pod = {**api_pod(), "metadata": {"generateName": "api-"}}
        pod["spec"]["nodeSelector"] = {"lab": "nowhere"}
        made = create(node, namespace, pod).raise_for_status().json()
        if not injected(made):
            missed.append(made["metadata"]["name"])

    with Steady(make, RATE) as pods:
        time.sleep(2)
        began = time.monotonic()
        harm()
        took = time.monotonic() - began
        time.sleep(2)
    if pods.failures:
        raise LabError(pods.failures[0])
    state = ("-n", ours.NAMESPACE, "get", "configmap", "plane-webhook-state", "-o", f"jsonpath={{.data.{namespace}}}")
    numbers = f"injected: {pods.calls - len(missed)}, missed: {len(missed)}, "
    wait_for(lambda: numbers in node.kubectl(*state, check=False), 90, f"operate says {numbers}")
    _row(f"{what}: ready again after {took:.0f} s; slipped by, and found and named", f"{len(missed)} of {pods.calls}")
    node.kubectl("delete", "namespace", namespace, "--wait=false")


if __name__ == "__main__":
    sys.exit(main())
