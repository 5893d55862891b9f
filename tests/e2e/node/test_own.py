"""Our own Deployment on the node, through what a Deployment lives through while pods are created."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

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
        ours.kill(node, *ours.replicas(node))
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


def test_replicas_that_are_evicted_in_turn_miss_no_pod(node: Node) -> None:
    """As a drain of node after node does it; the one that holds both can't be drained, and says why."""
    with pods_are_made(node):
        for pod in ours.replicas(node):
            name = pod["metadata"]["name"]
            evict = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
            path = f"/api/v1/namespaces/{ours.NAMESPACE}/pods/{name}/eviction"
            node.api.post(path, json=evict).raise_for_status()
            node.kubectl("-n", ours.NAMESPACE, "rollout", "status", "deployment/plane-webhook", "--timeout=90s")
        time.sleep(10)  # the old replicas drain
        ours_alone = ("--pod-selector", "app.kubernetes.io/name=plane-webhook", "--timeout=15s")
        said = node.kubectl("drain", "node", *ours_alone, check=False)
        node.kubectl("uncordon", "node")
        node.wait_ready(ours.NAMESPACE, "app.kubernetes.io/name=plane-webhook", timeout=90)
        assert "Cannot evict pod as it would violate the pod's disruption budget" in said


def test_a_killed_replica_costs_the_pods_of_a_second_at_the_most(node: Node) -> None:
    for pod in ours.replicas(node):  # until kube-proxy knows, a new connection may be led to it
        with pods_are_made(node, missed_at_most=RATE):
            time.sleep(2)
            ours.kill(node, pod)
            time.sleep(2)


def test_a_replaced_certificate_misses_no_pod_and_is_served_within_a_minute(node: Node) -> None:
    old = ours.certificate(node)
    with pods_are_made(node):
        node.kubectl("-n", ours.NAMESPACE, "delete", "secret", ours.SECRET)
        new = wait_for(lambda: ours.certificate(node), 60, "operate makes another")
        assert new != old
        ports = [node.forward((pod["status"]["podIP"], 8443)) for pod in ours.replicas(node)]
        assert len(ports) == 2
        wait_for(lambda: {ours.served(port) for port in ports} == {new}, 60, "each replica serves it")
        time.sleep(5)
