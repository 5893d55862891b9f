"""Pods that the API server does not take: what a Deployment's own status says of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import msgspec

from webhook.admission import review
from webhook.admission.target import targets
from webhook.cluster.api import Api
from webhook.cluster.doctor.finding import Finding, harmless

_POD_SECURITY = re.compile(r'violates PodSecurity "([a-z]+):')
# What `baseline` refuses too; all else that `restricted` refuses, it takes.
_BASELINE = ("host namespaces", "hostPath", "hostPort", "privileged (", "procMount", "non-default capabilities")


def of_plane(images: Collection[str], deployment: Mapping[str, Any]) -> bool:
    """Whether the Deployment makes pods of Plane's; `images` are repositories of Plane's backend."""
    pod = review.parse_pod(msgspec.json.encode(deployment["spec"]["template"]))
    return pod is not None and any(targets(pod, images))


def refused(api: Api, namespace: str, concerns: Callable[[Mapping[str, Any]], bool]) -> Iterator[Finding]:
    """A finding for each Deployment that concerns us and whose pods are not made. Raises ApiError.

    Of others nothing is said: an admin should not loosen a namespace for what somebody else put there.
    """
    found = msgspec.json.decode(api.request("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments"))
    for each in filter(concerns, found["items"]):
        conditions = (each.get("status") or {}).get("conditions") or ()
        said = [
            one.get("message", "") for one in conditions if (one["type"], one["status"]) == ("ReplicaFailure", "True")
        ]
        if not said:
            continue
        name = each["metadata"]["name"]
        yield Finding(
            "pods-refused",
            f"{namespace}/deployment/{name}",
            f"its pods are refused: {harmless(said[0])}",
            "the Deployment has fewer pods than it should, or none",
            _fix(namespace, name, said[0]),
        )


def _fix(namespace: str, name: str, said: str) -> str:
    namespace, name = shlex.quote(namespace), shlex.quote(name)
    violated = _POD_SECURITY.search(said)
    # Never `privileged`: Plane and the webhook run without that, and whoever may make a Deployment could ask for it.
    if violated is None or violated[1] != "restricted" or any(word in said for word in _BASELINE):
        return f"kubectl -n {namespace} describe deployment {name}   # who refuses them is named in the message"
    return (
        f"kubectl label --overwrite namespace {namespace} pod-security.kubernetes.io/enforce=baseline && kubectl "
        f"-n {namespace} rollout restart deployment/{name}   # or have the pods keep to 'restricted'"
    )
