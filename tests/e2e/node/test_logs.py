"""What is injected and not in effect, found in the logs of a real kubelet, where reading them is granted."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from lab.node import webhook as ours
from lab.operating import bind
from lab.pods import INJECT
from lab.process import wait_for
from webhook.cluster.api import Api
from webhook.cluster.doctor import examine

if TYPE_CHECKING:
    from lab.node import Node
    from lab.node.plane import Release

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.usefixtures("minutes_allowed")]

BAD = "worker-without-broker"
FOUND_WITHIN = 30.0


def deployment(namespace: str) -> dict[str, Any]:
    """A worker whose environment names no RabbitMQ: our shim says so, and celery runs as it was called."""
    container = {"name": "worker", "image": "makeplane/plane-backend:busybox", "command": ["celery"]}
    container["args"] = ["-A", "plane", "worker"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": BAD, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}},
        },
    }


def state(node: Node, namespace: str) -> str:
    """What `operate` says of a namespace."""
    words = ("get", "configmap", "plane-webhook-state", "-o", f"jsonpath={{.data.{namespace}}}")
    return node.kubectl("-n", ours.NAMESPACE, *words, check=False)


def events(node: Node, namespace: str) -> list[dict[str, Any]]:
    listed = ("get", "events", "-o", "json", "--field-selector", "reason=NotInEffect")
    return json.loads(node.kubectl("-n", namespace, *listed))["items"]


def test_a_pod_that_says_it_is_not_in_effect_is_found_where_logs_may_be_read(release: Release) -> None:
    """Beside it a release that is in effect; and the same pod where the right is not granted."""
    node = release.node
    heard, unheard = node.namespace("heard", INJECT), node.namespace("unheard", INJECT)
    for namespace in (heard, release.namespace):
        bind(node, namespace, "logs")
    began = time.monotonic()
    for namespace in (heard, unheard):
        node.apply(deployment(namespace))
    (event,) = wait_for(lambda: events(node, heard), 90, "it is said")
    took = time.monotonic() - began
    print(f"found {took:.1f} s after its Deployment was made")
    assert took < FOUND_WITHIN
    assert event["involvedObject"]["name"] == BAD
    assert "is not, or not all, in effect" in event["message"]
    look = event["message"].partition("Why: ")[2]
    why = subprocess.run(["sh", "-c", look], env=node.environment(), capture_output=True, text=True, check=True)
    assert "plane-webhook: NOT IN EFFECT: the environment names no RabbitMQ" in why.stdout
    problems = [
        each for each in examine(Api.connect(node.kubeconfig), ours.NAMESPACE, heard).findings if each.kind == "problem"
    ]
    assert [(each.code, each.where, each.fix) for each in problems] == [
        ("not-in-effect", f"{heard}/deployment/{BAD}", look)
    ]

    wait_for(lambda: "not-in-effect: 1" in state(node, heard), 20, "the state has it")
    assert f"not-in-effect deployment/{BAD}" in state(node, heard)
    wait_for(lambda: "not-in-effect: 0" in state(node, release.namespace), 90, "the release's logs are read")
    assert "not-in-effect deployment" not in state(node, release.namespace)
    assert events(node, release.namespace) == []
    assert state(node, unheard).startswith("injected: 1, ")
    assert "not-in-effect" not in state(node, unheard)
    assert events(node, unheard) == []
    for namespace in (heard, unheard):
        node.kubectl("delete", "namespace", namespace, "--wait=false")
    node.kubectl("-n", release.namespace, "delete", "rolebinding", "plane-webhook-logs")
