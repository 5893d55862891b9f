"""What of a pod decides: the same for all pods of a workload, and never so much that it fills the memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from webhook import admission
from webhook.admission.facts import facts
from webhook.admission.review import Pod, parse_pod
from webhook.settings import Profile


def pod(drawn: str = "x7k2p", **more: Any) -> Pod:
    token = f"kube-api-access-{drawn}"
    container = {
        "name": "api",
        "image": "makeplane/plane-backend:v1",
        "command": ["./bin/docker-entrypoint-api.sh"],
        "env": [{"name": "SECRET", "value": drawn}],
        "volumeMounts": [{"name": token, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
        "resources": {"limits": {"memory": "1Gi", "cpu": drawn}},
        **more,
    }
    metadata = {"generateName": f"api-{drawn}-", "labels": {"apps.kubernetes.io/pod-index": drawn}}
    tree = {"metadata": metadata, "spec": {"containers": [container], "volumes": [{"name": token, "projected": {}}]}}
    parsed = parse_pod(json.dumps(tree).encode())
    assert parsed is not None
    return parsed


def test_pods_of_one_workload_are_decided_once() -> None:
    assert facts(pod()) == facts(pod("b8zqm"))
    assert admission.decide(pod(), Profile()) is admission.decide(pod("b8zqm"), Profile())


@pytest.mark.parametrize(
    "more",
    [
        {"command": ["./bin/docker-entrypoint-worker.sh"]},
        {"env": [{"name": "GUNICORN_MAX_REQUESTS", "value": "5"}]},
        {"env": None},
        {"volumeMounts": [{"name": "x", "mountPath": "/a/..//plane-webhook/bin"}]},
        {"resources": {"limits": {"cpu": "1"}}},
    ],
    ids=str,
)
def test_what_decides_is_told_apart(more: dict[str, Any]) -> None:
    assert facts(pod()) != facts(pod(**more))
    assert admission.decide(pod(), Profile()) != admission.decide(pod(**more), Profile())


def test_long_facts_are_not_kept() -> None:
    kept = len(admission._seen)  # noqa: SLF001 - there is nothing else to see it by
    for number in range(5):
        admission.decide(pod(command=["./bin/docker-entrypoint-api.sh", f"{number}" * 9000]), Profile())
    assert len(admission._seen) == kept  # noqa: SLF001


def test_no_more_than_so_many_are_kept() -> None:
    first = admission.decide(pod(image="makeplane/plane-backend:first"), Profile())
    assert admission.decide(pod(image="makeplane/plane-backend:first"), Profile()) is first
    for number in range(300):
        admission.decide(pod(image=f"makeplane/plane-backend:v{number}"), Profile())
    assert len(admission._seen) == 256  # noqa: SLF001
    again = admission.decide(pod(image="makeplane/plane-backend:first"), Profile())
    assert again == first
    assert again is not first
