"""The API server's own path: a pod of Plane's that it makes and doesn't keep, and what came of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from webhook.admission import INJECT, Reason, decide, review
from webhook.admission.injection import PROVENANCE
from webhook.admission.target import WORKLOADS
from webhook.cluster.api import Api, ApiError
from webhook.cluster.doctor.finding import Finding, harmless
from webhook.cluster.endpoints import SERVICE
from webhook.cluster.installed import WEBHOOK, Installed
from webhook.cluster.pods import State, judge
from webhook.cluster.registration import NAME
from webhook.settings import Profile, Settings

_NAME = "plane-webhook-doctor"
_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER = {
    "name": "plane",
    "image": "makeplane/plane-backend:doctor",
    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
    "securityContext": _SECURITY,
}
# One of each workload's entrypoints.
_ENTRYPOINTS = {each: each for each in WORKLOADS} | {"consumer": "webhook-consumer"}
# How an API server says that its own connection to a pod did not come about.
_UNREACHED = "error trying to reach service"
_LOST = "tasks of pods that are created now can be lost"
_REFUSED = "pods of Plane's are refused now"  # under `Fail`


def findings(api: Api, installed: Installed, namespace: str, settings: Settings, *, clear: bool) -> Iterator[Finding]:
    """What is wrong with pods that are created in the namespace now. Raises ApiError.

    `clear`: nothing has been found so far that would explain it.
    """
    where = f"namespace/{namespace}"
    profile = settings.profile(namespace)
    for workload, tried in _tried(api, namespace, profile):
        try:
            made = _rehearsed(api, namespace, tried)
            break
        except ApiError as error:
            if WEBHOOK in str(error):
                yield _not_called(installed, where, workload, f": {harmless(str(error))}", clear=clear, causes=_REFUSED)
                yield from _blocked(api, installed, _REFUSED)
                return
            if not error.refuses:
                raise
            refusal = _refused(api, namespace, workload, tried, error)
    else:
        yield refusal
        return
    pod = review.parse_pod(made)
    judged = judge(pod, profile) if pod is not None else None
    annotations = msgspec.json.decode(made)["metadata"].get("annotations") or {}
    if PROVENANCE not in annotations:
        yield _not_called(installed, where, workload, "", clear=clear, causes=_LOST)
        yield from _blocked(api, installed, f"{_LOST}; each is created up to five seconds late")
    elif judged is None or judged.reason is not Reason.ALREADY_INJECTED:
        yield _undone(api, namespace, workload)
    elif judged.state is State.OUTDATED:
        yield Finding(
            "old-settings-served",
            where,
            f"a pod that is created there now gets other settings than configmap/{installed.configuration} has",
            "what the configuration says is not in effect there, and in no pod that such a replica makes",
            f"kubectl -n {shlex.quote(installed.namespace)} rollout restart deployment/{SERVICE}   # its replicas "
            "read the configuration when they start",
        )


def _tried(api: Api, namespace: str, profile: Profile) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pods to try, each with its workload: ours, and Plane's own, which keep to more of what is asked of pods there.

    All are to be injected, for the webhook leaves others alone. Raises ApiError.
    """
    workload = next(each for each in WORKLOADS if each in profile.workloads)
    command = [f"./bin/docker-entrypoint-{_ENTRYPOINTS[workload]}.sh"]
    yield workload, {"spec": {"containers": [{**_CONTAINER, "command": command}]}}
    found = msgspec.json.decode(api.request("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments"))
    for each in found["items"]:
        template = each["spec"]["template"]
        pod = review.parse_pod(msgspec.json.encode(template))
        decision = decide(pod, profile) if pod is not None else None
        if decision is not None and decision.reason is Reason.INJECTED:
            yield decision.workload, template
            return


def _rehearsed(api: Api, namespace: str, pod: Mapping[str, Any], **labels: str) -> bytes:
    """The pod as it would be made now. Raises ApiError."""
    metadata = {key: value for key, value in (pod.get("metadata") or {}).items() if key in ("labels", "annotations")}
    metadata |= {"name": _NAME, "labels": {**(metadata.get("labels") or {}), **labels}}
    return api.rehearse(namespace, metadata, pod["spec"])


def _refused(api: Api, namespace: str, workload: str, pod: Mapping[str, Any], error: ApiError) -> Finding:
    """That somebody refuses the pod, and whether it is for what we put into it. Raises ApiError."""
    what = f"a pod of Plane's ({workload}) that is created there now is refused"
    said = f"(tried by a server-side dry run): {harmless(str(error))}"
    kubectl, where = f"kubectl -n {shlex.quote(namespace)}", f"namespace/{namespace}"
    try:
        _rehearsed(api, namespace, pod, **{INJECT: "disabled"})
    except ApiError as without:
        if not without.refuses:
            raise
        return Finding(
            "pods-refused",
            where,
            f"{what}, also without the injection {said}",
            "it can't be told whether it would be injected; where Plane's own are refused too, there are fewer of them "
            "than there should be",
            f"{kubectl} get resourcequotas,limitranges   # who refuses it is named in the message",
        )
    return Finding(
        "pods-refused",
        where,
        f"{what}, and taken without the injection {said}",
        "Plane's pods can't be created there",
        f"kubectl label namespace {shlex.quote(namespace)} {INJECT}-   # then they are created without the injection; "
        "for both, let what refuses it, which the message names, take injected pods",
    )


def _not_called(installed: Installed, where: str, workload: str, said: str, *, clear: bool, causes: str) -> Finding:
    containers = installed.deployment["spec"]["template"]["spec"].get("containers") or ()
    return Finding(
        "not-called",
        where,
        f"a pod of Plane's ({workload}) that is created there now would not be injected (tried by a server-side dry "
        f"run){said}",
        causes + ("" if clear else ". What is found above may be why"),
        f"kubectl get --raw /metrics | grep 'admission_webhook_.*_count.*{WEBHOOK}'   # counts calls that failed: can "
        f"the API server reach port {_port(containers) or 8443} of the pods in {installed.namespace}, and does it "
        "trust them? Its own log says why a call failed",
    )


def _blocked(api: Api, installed: Installed, causes: str) -> Iterator[Finding]:
    """Whether the API server, as it stands in the network, reaches the webhook's pods; nothing where we may not ask."""
    own = installed.namespace
    query = {
        "labelSelector": f"app.kubernetes.io/name={SERVICE}",
        "fieldSelector": "status.phase=Running",
        "limit": "10",
    }
    found = msgspec.json.decode(api.request("GET", f"/api/v1/namespaces/{own}/pods", query=query))
    for pod in found["items"]:
        name = pod["metadata"]["name"]
        port = _port(pod["spec"]["containers"])
        if port is None:
            continue
        try:
            api.request("GET", f"/api/v1/namespaces/{own}/pods/https:{name}:{port}/proxy/livez")
        except ApiError as error:
            if error.status and _UNREACHED not in str(error):
                continue  # it answered something, or we may not ask
            yield Finding(
                "port-blocked",
                f"{own}/pod/{name}",
                f"the API server can't reach port {port} of it: {harmless(str(error))}",
                causes,
                f"echo {shlex.quote(json.dumps(_policy(own)))} | kubectl apply -f -   # where no NetworkPolicy keeps "
                f"it out: a firewall's rule from the control plane to the nodes, port {port}, or hostNetwork (README)",
            )


def _port(containers: Sequence[Mapping[str, Any]]) -> int | None:
    """Where the webhook listens: whatever a mesh puts beside it comes first or last."""
    ports = (each for container in containers for each in container.get("ports") or ())
    return next((each["containerPort"] for each in ports if each.get("name") == "https"), None)


def _policy(own: str) -> dict[str, Any]:
    """A NetworkPolicy that lets everybody reach the webhook's port: an API server is no pod that could be named."""
    spec = {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": SERVICE}},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": "https"}]}],
    }
    metadata = {"name": f"{SERVICE}-https", "namespace": own}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _undone(api: Api, namespace: str, workload: str) -> Finding:
    others = list(_others(api, namespace))
    names = ", ".join(name for name, _ in others) or "none that you may see"
    fix = "kubectl get mutatingwebhookconfigurations"
    if others:
        fix = f"{others[0][1]}   # keeps {others[0][0]} off this namespace; if that is not the one, try the next"
    return Finding(
        "undone",
        f"namespace/{namespace}",
        f"a pod of Plane's ({workload}) that is created there now is injected, and then something takes that away "
        f"again. Other webhooks that are asked about pods there: {names}",
        _LOST,
        fix,
    )


def _others(api: Api, namespace: str) -> Iterator[tuple[str, str]]:
    """Other webhooks that are asked about pods there, those after ours first, and what would keep each off."""
    try:
        raw = api.request("GET", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations")
    except ApiError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        return
    labels = msgspec.json.decode(api.request("GET", f"/api/v1/namespaces/{namespace}"))["metadata"].get("labels") or {}
    items = msgspec.json.decode(raw)["items"]
    for each in sorted(items, key=lambda each: (each["metadata"]["name"] < NAME, each["metadata"]["name"])):
        for at, webhook in enumerate(each.get("webhooks") or ()):
            selector = webhook.get("namespaceSelector") or {}
            if webhook["name"] == WEBHOOK or not _asked(webhook) or not _selects(selector, labels):
                continue
            name = each["metadata"]["name"]
            apart = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [namespace]}
            there = bool(selector.get("matchExpressions"))
            path = f"/webhooks/{at}/namespaceSelector/matchExpressions"
            patch = [{"op": "add", "path": f"{path}/-" if there else path, "value": apart if there else [apart]}]
            what = shlex.quote(f"mutatingwebhookconfiguration/{name}")
            yield name, f"kubectl patch {what} --type=json -p {shlex.quote(json.dumps(patch))}"


def _asked(webhook: Mapping[str, Any]) -> bool:
    return any(
        {"*", "CREATE"} & {*rule["operations"]}
        and {"*", ""} & {*rule["apiGroups"]}
        and {"*", "*/*", "pods"} & {*rule["resources"]}
        for rule in webhook.get("rules") or ()
    )


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector takes these labels."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for each in selector.get("matchExpressions") or ():
        value, operator = labels.get(each["key"]), each["operator"]
        holds = {
            "In": value in (each.get("values") or ()),
            "NotIn": value not in (each.get("values") or ()),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds[operator]:
            return False
    return True
