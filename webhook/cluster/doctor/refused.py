"""Pods that the API server does not take: what a Deployment's own status says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from webhook.cluster.api import Api
from webhook.cluster.doctor.finding import Finding, harmless

_POD_SECURITY = re.compile(r'violates PodSecurity "([a-z]+):')
# What `baseline` refuses too; all else that `restricted` refuses, it takes.
_BASELINE = ("host namespaces", "hostPath", "hostPort", "privileged (", "procMount", "non-default capabilities")


def refused(api: Api, namespace: str) -> Iterator[Finding]:
    """A finding for each Deployment whose pods are not made. Raises ApiError."""
    found = msgspec.json.decode(api.request("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments"))
    for each in found["items"]:
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
    violated = _POD_SECURITY.search(said)
    if violated is None:
        return f"kubectl -n {namespace} describe deployment {name}   # who refuses them is named in the message"
    level = "privileged" if violated[1] == "baseline" or any(word in said for word in _BASELINE) else "baseline"
    return (
        f"kubectl label --overwrite namespace {namespace} pod-security.kubernetes.io/enforce={level} && kubectl "
        f"-n {namespace} rollout restart deployment/{name}   # or have the pods keep to {violated[1]!r}"
    )
