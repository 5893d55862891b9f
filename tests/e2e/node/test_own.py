"""Our own Deployment on the node, through what a Deployment lives through while pods are created."""

from __future__ import annotations

import base64
import os
import signal
import ssl
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from lab.load import Steady
from lab.node import webhook as ours
from lab.pods import INJECT, WEBHOOK, api_pod, create, injected
from lab.process import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.node import Node

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600), pytest.mark.usefixtures("webhook")]

RATE = 5  # pods created a second
SECRET = "plane-webhook-tls"


@contextmanager
def pods_are_made(node: Node, *, missed_at_most: int = 0) -> Iterator[None]:
    """Meanwhile, at RATE; each is injected but for those whose call failed by the API server's counters."""
    namespace = node.namespace("made-meanwhile", INJECT)
    missed = []

    def make() -> None:
        pod = create(node, namespace, api_pod(), dry_run=True).raise_for_status().json()
        if not injected(pod):
            missed.append(pod)

    failed = node.failed_calls(WEBHOOK)
    with Steady(make, RATE) as pods:
        yield
    assert pods.calls > 2 * RATE
    assert pods.failures == []
    assert len(missed) == node.failed_calls(WEBHOOK) - failed <= missed_at_most


def replicas(node: Node) -> list[dict[str, Any]]:
    return node.pods(ours.NAMESPACE, "app.kubernetes.io/name=plane-webhook")


def kill(node: Node, *pods: dict[str, Any]) -> None:
    """Kill their containers, and wait until they are there anew and ready."""
    for pid in [node.pid_1(pod) for pod in pods]:
        os.kill(pid, signal.SIGKILL)
    counts = {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}

    def back() -> bool:
        now = {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0] for pod in replicas(node)}
        return all(now[uid]["restartCount"] > count and now[uid]["ready"] for uid, count in counts.items())

    wait_for(back, 90, "the killed replicas are ready again")


def test_while_both_replicas_are_gone_pods_slip_by_and_operate_counts_them(node: Node) -> None:
    namespace = node.namespace("slipped-by", INJECT)
    missed = []

    def make() -> None:
        pod = api_pod()
        pod["metadata"] = {"generateName": "api-"}
        pod["spec"]["nodeSelector"] = {"lab": "nowhere"}  # it is only looked at
        made = create(node, namespace, pod).raise_for_status().json()
        if not injected(made):
            missed.append(made["metadata"]["name"])

    failed = node.failed_calls(WEBHOOK)
    with Steady(make, RATE) as pods:
        time.sleep(2)
        kill(node, *replicas(node))
        time.sleep(2)
    assert pods.failures == [], "none was refused"
    assert 0 < len(missed) == node.failed_calls(WEBHOOK) - failed
    state = partial(node.kubectl, "-n", ours.NAMESPACE, "get", "configmap", "plane-webhook-state", check=False)
    numbers = f"injected: {pods.calls - len(missed)}, missed: {len(missed)}, "
    wait_for(lambda: numbers in state("-o", f"jsonpath={{.data.{namespace}}}"), 60, f"operate says {numbers}")
    events = node.kubectl("-n", namespace, "get", "events", "-o", "jsonpath={range .items[*]}{.reason} {end}")
    assert "NotInjected" in events
    node.kubectl("delete", "namespace", namespace, "--wait=false")


def test_a_rolling_restart_misses_no_pod(node: Node) -> None:
    rollout = ("-n", ours.NAMESPACE, "rollout")
    with pods_are_made(node):
        node.kubectl(*rollout, "restart", "deployment/plane-webhook")
        node.kubectl(*rollout, "status", "deployment/plane-webhook", "--timeout=110s")
        time.sleep(10)  # the old replicas drain


def test_a_killed_replica_costs_the_pods_of_a_second_at_the_most(node: Node) -> None:
    for pod in replicas(node):  # until kube-proxy knows, a new connection may be led to it
        with pods_are_made(node, missed_at_most=RATE):
            time.sleep(2)
            kill(node, pod)
            time.sleep(2)


def test_a_replaced_certificate_misses_no_pod_and_is_served_within_a_minute(node: Node) -> None:
    old = certificate(node)
    with pods_are_made(node):
        node.kubectl("-n", ours.NAMESPACE, "delete", "secret", SECRET)
        new = wait_for(lambda: certificate(node), 60, "operate makes another")
        assert new != old
        ports = [node.forward((pod["status"]["podIP"], 8443)) for pod in replicas(node)]
        assert len(ports) == 2
        wait_for(lambda: {served(port) for port in ports} == {new}, 60, "each replica serves it")
        time.sleep(5)


def certificate(node: Node) -> bytes:
    """Return what the Secret has, as DER; nothing where there is none."""
    words = ("get", "secret", SECRET, "--ignore-not-found", "-o", r"jsonpath={.data.tls\.crt}")
    pem = base64.b64decode(node.kubectl("-n", ours.NAMESPACE, *words)).decode()
    return ssl.PEM_cert_to_DER_cert(pem[: pem.index("-----END") + len(ssl.PEM_FOOTER)]) if pem else b""


def served(port: int) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=5))
