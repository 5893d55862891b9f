"""What the end-to-end tests do with pods: make them, have the webhook registered, tell what differs and why."""

from __future__ import annotations

import base64
import copy
import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lab.process import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import httpx

    from lab.controlplane import ControlPlane
    from lab.webhook import Webhook

Pod = dict[str, Any]

WEBHOOK = "inject.pods.plane-webhook"
INJECT = {"plane-webhook/inject": "enabled"}
PROVENANCE = "plane-webhook/provenance"
SHORT = "plane-webhook/injected"
ENTRYPOINT = "./bin/docker-entrypoint-api.sh"

# The words that stand before Plane's own: /bin/sh -c GUARD plane-webhook, and the guard's three texts.
_PREFIX = 7
_VOLUME = {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
# What differs between two pods of one template; by these the API server and its controllers tell them apart.
_OWN = ("name", "uid", "resourceVersion", "creationTimestamp", "managedFields", "namespace", "selfLink")


def api_pod(name: str = "api", **container: Any) -> Pod:
    """Return a pod that runs Plane's API; `container` adds to its one container or replaces what is there."""
    only = {"name": "api", "image": "makeplane/plane-backend:v1", "command": [ENTRYPOINT], **container}
    return {"metadata": {"name": name}, "spec": {"containers": [only]}}


def create(
    plane: ControlPlane, namespace: str, pod: Pod, *, dry_run: bool = False, body: str | bytes | None = None
) -> httpx.Response:
    """Ask the API server for a pod; `body` is its JSON where that matters to the byte."""
    return plane.api.post(
        f"/api/v1/namespaces/{namespace}/pods",
        params={"dryRun": "All"} if dry_run else {},
        content=body or json.dumps(pod),
        headers={"content-type": "application/json"},
    )


def containers(pod: Pod) -> list[dict[str, Any]]:
    """Return the pod's containers, then its init containers."""
    return [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]


def injected(pod: Pod) -> bool:
    """Tell whether the webhook has left its mark."""
    return PROVENANCE in pod["metadata"].get("annotations", {})


@contextmanager
def registered(plane: ControlPlane, webhook: Webhook, *words: str, called: bool = True) -> Iterator[None]:
    """Apply the registration exactly as it is printed, until the block ends; begin when the API server acts on it."""
    probed = plane.namespace("probed", INJECT)

    def calls() -> bool:
        before = webhook.reviews
        create(plane, probed, api_pod(), dry_run=True).raise_for_status()
        return webhook.reviews > before

    plane.kubectl("apply", "--server-side", "-f", "-", input=webhook.registration(*words))
    try:
        if called:
            wait_for(calls, 15, "the API server calls the webhook")
        yield
    finally:
        plane.kubectl("delete", "mutatingwebhookconfiguration", "plane-webhook", "--ignore-not-found")
        wait_for(lambda: not _acts(plane, probed), 15, "the API server has forgotten the webhook")


@contextmanager
def unharmed(plane: ControlPlane) -> Iterator[None]:
    """Assert that meanwhile no call failed and no match condition could not be evaluated, as the API server counts."""

    def trouble() -> dict[str, float]:
        names = (
            "apiserver_admission_webhook_rejection_count",
            "apiserver_admission_webhook_fail_open_count",
            "apiserver_admission_match_condition_evaluation_errors_total",
        )
        ours = (each for each in plane.metrics("apiserver_admission_") if each.labels.get("name") == WEBHOOK)
        return {f"{each.name} {each.labels}": each.value for each in ours if each.name in names}

    before = trouble()
    yield
    assert trouble() == before


@contextmanager
def apart(plane: ControlPlane, registration: dict[str, Any], names: Sequence[str]) -> Iterator[None]:
    """Register a webhook once more under each name, for the namespace of that name: the API server dials for it alone.

    It shares connections between registrations that trust the same bundle: here each has another number of copies.
    """
    registrations = []
    for copies, name in enumerate(names, 1):
        each = copy.deepcopy(registration)
        (webhook,) = each["webhooks"]
        each["metadata"]["name"] = name
        webhook["name"] = f"{name}.lab.test"
        webhook["namespaceSelector"] = {"matchLabels": {"lab": name}}
        bundle = base64.b64decode(webhook["clientConfig"]["caBundle"])
        webhook["clientConfig"]["caBundle"] = base64.b64encode(bundle * copies).decode()
        plane.namespace(name, {"lab": name})
        registrations.append(each)
    plane.apply(*registrations)
    try:
        yield
    finally:
        plane.kubectl("delete", "mutatingwebhookconfiguration", *(each["metadata"]["name"] for each in registrations))


def _acts(plane: ControlPlane, probed: str) -> bool:
    """Tell whether pods meet the webhook, or fail to."""
    before = plane.failed_calls(WEBHOOK)
    answer = create(plane, probed, api_pod(), dry_run=True)
    return not answer.is_success or injected(answer.json()) or plane.failed_calls(WEBHOOK) > before


def essence(pod: Pod) -> Pod:
    """Return what two pods of one template have in common: all fields but names, ids, times and places."""
    pod = copy.deepcopy(pod)
    metadata = pod["metadata"]
    for field in _OWN:
        metadata.pop(field, None)
    for owner in metadata.get("ownerReferences", []):
        owner.pop("uid")
    for label in [label for label in metadata.get("labels", {}) if label.endswith("controller-uid")]:
        metadata["labels"].pop(label)
    pod["status"] = {"qosClass": pod["status"]["qosClass"]}
    text = json.dumps(pod)
    return json.loads(re.sub(r"kube-api-access-\w{5}", "kube-api-access", text))


def without_injection(pod: Pod) -> Pod:
    """Return the pod as it would be had the webhook not been there, if all that it does is what it says it does."""
    pod = copy.deepcopy(pod)
    short = _pop(pod["metadata"], "annotations", SHORT)
    provenance = json.loads(_pop(pod["metadata"], "annotations", PROVENANCE))
    assert short.split(",") == list(dict.fromkeys(report["workload"] for report in provenance["containers"]))
    ours = {}
    for report in provenance["containers"]:
        container = next(each for each in containers(pod) if each["name"] == report["name"])
        head, container["command"] = container["command"][:_PREFIX], container["command"][_PREFIX:]
        assert [head[0], head[1], head[3]] == ["/bin/sh", "-c", "plane-webhook"]
        mount = _take(container, "volumeMounts", "mountPath", "/plane-webhook")
        assert mount.keys() == {"name", "mountPath"}
        ours[mount["name"]] = True
        for name in report["set"]:
            assert _take(container, "env", "name", name).keys() == {"name", "value"}
    for name in ours:
        assert _take(pod["spec"], "volumes", "name", name) == {"name": name, **_VOLUME}
    return pod


def _take(holder: dict[str, Any], field: str, key: str, value: str) -> dict[str, Any]:
    """Remove and return the only element of a list that has this value; an empty list goes too."""
    (found,) = [each for each in holder[field] if each[key] == value]
    holder[field].remove(found)
    if not holder[field]:
        del holder[field]
    return found


def _pop(holder: dict[str, Any], field: str, key: str) -> str:
    value = holder[field].pop(key)
    if not holder[field]:
        del holder[field]
    return value
