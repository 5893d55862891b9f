"""The chart's `hostNetwork` on the node: the webhook answers at ports of the node's own, and injects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lab.node import ADDRESS
from lab.node import webhook as ours
from lab.pods import INJECT, WEBHOOK, api_pod, create, injected
from lab.process import wait_for

if TYPE_CHECKING:
    from lab.node import Node

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600), pytest.mark.usefixtures("webhook")]

SCRAPE = "import urllib.request as r; print(r.urlopen('http://{}:{}/metrics').read().decode())"
PORTS = {"httpsPort": 18443, "metricsPort": 19090}


def test_in_the_nodes_network_it_injects_and_is_scraped(node: Node) -> None:
    """One replica: there is one node, whose ports are taken once."""
    namespace = node.namespace("host-network", INJECT)
    rolled = ("-n", ours.NAMESPACE, "rollout", "status", "deployment/plane-webhook", "--timeout=110s")
    ours.upgrade(node, replicas=1, hostNetwork={"enabled": True, **PORTS})
    try:
        node.kubectl(*rolled)
        (pod,) = wait_for(lambda: one(node), 60, "the others leave")
        assert pod["status"]["podIP"] == ADDRESS
        wait_for(lambda: injects(node, namespace), 60, "pods are injected")
        failed = node.failed_calls(WEBHOOK)
        assert all(injects(node, namespace) for _ in range(10))
        assert node.failed_calls(WEBHOOK) == failed
        metrics = node.inside("python3", "-c", SCRAPE.format(ADDRESS, PORTS["metricsPort"]))
        assert "plane_webhook_decisions_total" in metrics
    finally:
        ours.upgrade(node)
        node.kubectl(*rolled)
        wait_for(lambda: injects(node, namespace), 60, "pods are injected as before")


def one(node: Node) -> list[dict[str, Any]]:
    pods = ours.replicas(node)
    return pods if len(pods) == 1 else []


def injects(node: Node, namespace: str) -> bool:
    return injected(create(node, namespace, api_pod(), dry_run=True).raise_for_status().json())
