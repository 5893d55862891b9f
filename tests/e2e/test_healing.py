"""Healing by `plane-webhook operate` on the real control plane, as its own service account."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from lab.operating import ACCOUNT, HEAL, Operate, as_account, bind, healed, kubelet, released
from lab.pods import INJECT, api_pod, create
from lab.process import wait_for
from lab.webhook import Webhook
from webhook.cluster.api import Api
from webhook.cluster.evictions import COURSES, Notebook
from webhook.cluster.healing import Course

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.controlplane import ControlPlane

pytestmark = pytest.mark.lab


def events(plane: ControlPlane, namespace: str, reason: str) -> list[str]:
    listed = ("-n", namespace, "get", "events", "-o", "json", "--field-selector", f"reason={reason}")
    return [each["message"] for each in json.loads(plane.kubectl(*listed))["items"]]


def spec(plane: ControlPlane, namespace: str, kind: str = "Deployment") -> tuple[Any, ...]:
    found = plane.api.get(f"/apis/apps/v1/namespaces/{namespace}/{kind.lower()}s/plane-app-api-wl").json()
    managers = [each for each in found["metadata"]["managedFields"] if each.get("subresource") != "status"]
    return found["metadata"]["generation"], found["spec"], managers


def uids(plane: ControlPlane, namespace: str) -> set[str]:
    return {each["metadata"]["uid"] for each in plane.pods(namespace)}


@pytest.mark.usefixtures("serving")
def test_where_it_is_asked_for_and_granted_pods_are_evicted_one_by_one_and_nothing_else_is_touched(
    controlplane: ControlPlane, operate: Operate
) -> None:
    """Three namespaces: one asks and grants, one asks only, one doesn't ask."""
    mended, asks, granted = "mended", "asks", "granted"
    for name in (mended, asks, granted):
        released(controlplane, name, 2)
    for name in (mended, granted):
        bind(controlplane, name)
    before = {name: (uids(controlplane, name), spec(controlplane, name)) for name in (mended, asks, granted)}
    for name, labels in ((mended, HEAL), (asks, HEAL), (granted, INJECT)):
        controlplane.namespace(name, labels)

    with kubelet(controlplane, mended) as counts:
        wait_for(lambda: healed(controlplane, mended, 2), 60, "both are injected", need=[operate.process])
    assert min(counts) >= 1  # of two
    assert uids(controlplane, mended).isdisjoint(before[mended][0])
    assert spec(controlplane, mended) == before[mended][1]
    wait_for(lambda: len(events(controlplane, mended, "Evicted")) == 2, 5, "that is said")

    said = wait_for(lambda: events(controlplane, asks, "NotHealed"), 15, "the right is missing")
    assert uids(controlplane, asks) == before[asks][0]
    assert uids(controlplane, granted) == before[granted][0]
    assert len(said) == 1
    controlplane.kubectl(*said[0].partition(": kubectl ")[2].split())  # the command that it names
    with kubelet(controlplane, asks):
        wait_for(lambda: healed(controlplane, asks, 2), 60, "they are healed too", need=[operate.process])
    assert uids(controlplane, granted) == before[granted][0]


@contextmanager
def node(plane: ControlPlane, *names: str) -> Iterator[None]:
    """Nodes for a DaemonSet. Nobody schedules, and `kubelet` says what a kubelet would."""
    for name in names:
        plane.api.post("/api/v1/nodes", json={"metadata": {"name": name}}).raise_for_status()
        untainted = {"content-type": "application/merge-patch+json"}
        plane.api.patch(f"/api/v1/nodes/{name}", json={"spec": {"taints": None}}, headers=untainted).raise_for_status()
    try:
        yield
    finally:
        for name in names:
            plane.api.delete(f"/api/v1/nodes/{name}")


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_pods_of_other_controllers_are_evicted_one_by_one_too(
    controlplane: ControlPlane, operate: Operate, kind: str
) -> None:
    name = kind.lower()
    with node(controlplane, "one", "two"):
        released(controlplane, name, 2, kind)
        before = uids(controlplane, name), spec(controlplane, name, kind)
        bind(controlplane, name)
        controlplane.namespace(name, HEAL)
        with kubelet(controlplane, name) as counts:
            wait_for(lambda: healed(controlplane, name, 2), 60, "both are injected", need=[operate.process])
        assert min(counts) >= 1  # of two
        assert uids(controlplane, name).isdisjoint(before[0])
        assert spec(controlplane, name, kind) == before[1]
        wait_for(lambda: len(events(controlplane, name, "Evicted")) == 2, 5, "that is said")
        controlplane.api.delete(f"/apis/apps/v1/namespaces/{name}/{name}s/plane-app-api-wl").raise_for_status()


@pytest.mark.usefixtures("serving")
def test_a_budget_is_respected_asked_four_times_and_that_is_said(controlplane: ControlPlane, operate: Operate) -> None:
    name = "budgeted"
    released(controlplane, name, 1)
    bind(controlplane, name)
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}
    metadata = {"name": "b", "namespace": name}
    controlplane.apply({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": budget})
    before = uids(controlplane, name)
    controlplane.namespace(name, HEAL)
    with kubelet(controlplane, name):
        wait_for(
            lambda: any("left as it is" in each for each in events(controlplane, name, "NotHealed")),
            90,
            "it gives up",
            need=[operate.process],
        )
    refused, given_up = sorted(events(controlplane, name, "NotHealed"), key=lambda each: "left as it is" in each)
    assert "violate the pod's disruption budget" in refused
    assert "4 attempts in a row" in given_up
    assert uids(controlplane, name) == before
    controlplane.api.delete(f"/api/v1/namespaces/{name}")


def test_while_nothing_answers_no_pod_is_evicted_for_a_pod_like_it_would_not_come_out_right(
    controlplane: ControlPlane, operate: Operate, serving: Webhook
) -> None:
    name = "unanswered"
    released(controlplane, name, 2)
    bind(controlplane, name)
    before = uids(controlplane, name)
    serving.process.kill()
    controlplane.namespace(name, HEAL)
    try:
        (said,) = wait_for(lambda: events(controlplane, name, "NotHealed"), 30, "it is said", need=[operate.process])
        assert "a pod like it would not come out right now" in said
        assert uids(controlplane, name) == before
    finally:
        serving.start()
    with kubelet(controlplane, name):
        wait_for(lambda: healed(controlplane, name, 2), 60, "they are healed", need=[operate.process])


@pytest.mark.usefixtures("operate")
def test_the_right_holds_where_it_is_bound_and_makes_no_pod(controlplane: ControlPlane) -> None:
    """As the account itself: a dry run and an eviction where it is bound; nothing that is kept, nothing elsewhere."""
    bound, other = controlplane.namespace("bound"), controlplane.namespace("other")
    bind(controlplane, bound)
    for name in (bound, other):
        wait_for(
            lambda name=name: create(controlplane, name, api_pod(), dry_run=True).is_success, 15, "pods can be made"
        )
        create(controlplane, name, api_pod()).raise_for_status()
    with as_account(controlplane, ACCOUNT) as account:

        def made(namespace: str, query: str = "") -> int:
            return account.post(f"/api/v1/namespaces/{namespace}/pods{query}", json=api_pod("another")).status_code

        def evicted(namespace: str) -> int:
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "api"}}
            return account.post(f"/api/v1/namespaces/{namespace}/pods/api/eviction", json=body).status_code

        assert wait_for(lambda: (answer := made(bound, "?dryRun=All")) == 201 and answer, 10, "the right is there")
        kept = account.post(f"/api/v1/namespaces/{bound}/pods", json=api_pod("another"))
        assert kept.status_code == 422
        assert "by a dry run only" in kept.text
        assert (made(other), made(other, "?dryRun=All"), evicted(other)) == (403, 403, 403)
        for method, path in (
            ("DELETE", "pods/api"),
            ("GET", "secrets"),
            ("POST", "pods/api/exec?command=true"),
            ("GET", "pods/api/log"),
        ):
            assert account.request(method, f"/api/v1/namespaces/{bound}/{path}").status_code == 403, (method, path)
        template = f"/apis/apps/v1/namespaces/{bound}/deployments/plane-app-api-wl"
        assert account.patch(template, json={}).status_code == 403
        assert evicted(bound) == 201


def test_of_namespaces_that_are_gone_nothing_stays_written_down(controlplane: ControlPlane) -> None:
    own = controlplane.namespace("notebook")
    api, courses = Api.connect(controlplane.kubeconfig), {"uid": Course("ReplicaSet", "api-1", "pod", ("pod",), 1)}
    Notebook(api, own, ["plane"]).write("plane", courses)
    for number in range(3):
        preview = f"preview-{number}"
        Notebook(api, own, ["plane", preview]).write(preview, courses)
    written = json.loads(controlplane.kubectl("-n", own, "get", "configmap", COURSES, "-o", "json"))["data"]
    assert written.keys() == {"plane", "preview-2"}
    controlplane.kubectl("delete", "namespace", own, "--wait=false")
