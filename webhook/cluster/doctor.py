"""`plane-webhook doctor`: what is wrong with the installation, what that causes, and the command that puts it right.

It only reads, and has the API server make one pod that is not kept. It asks with the rights of whoever runs it; what it
may not read is an error, never a clean bill.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

import certs
from webhook.admission import INJECT
from webhook.admission.injection import PROVENANCE
from webhook.cluster.api import Api, ApiError
from webhook.cluster.census import Found, namespaces, pods
from webhook.cluster.certificates import amiss
from webhook.cluster.endpoints import SERVICE, endpoints
from webhook.cluster.installed import OPERATE, REGISTRATION, WEBHOOK
from webhook.cluster.pods import State
from webhook.cluster.registration import NAME, manifest, service
from webhook.settings import Settings, SettingsError, parse

SOON = timedelta(days=14)
# The fields of the registration that are made of the configuration and of nothing else.
_FIELDS = ("rules", "namespaceSelector", "objectSelector", "matchConditions", "matchPolicy", "reinvocationPolicy")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (`problem`), or that is so and can't be helped from here (`note`)."""

    kind: Literal["problem", "note"]
    code: str
    where: str
    wrong: str
    causes: str
    fix: str  # a command, or what to look at


def examine(api: Api, own: str, namespace: str | None) -> list[Finding]:
    """Everything that is wrong with the webhook in the namespace `own`, and in `namespace` or all that are opted in.

    Raises ApiError where it can't look.
    """
    deployment = api.find(f"/apis/apps/v1/namespaces/{own}/deployments/{SERVICE}")
    if deployment is None:
        raise ApiError(
            f"there is no Deployment {SERVICE} in the namespace {own}; name the right one: --webhook-namespace"
        )
    served = msgspec.json.decode(deployment)
    settings = _settings(api, own, served)
    found = [*_webhook(api, own, served), *_registration(api, own, settings)]
    operates = api.find(f"/apis/apps/v1/namespaces/{own}/deployments/{OPERATE}")
    found += [*_operate(own, operates), *_secret(api, own, served, operates is not None)]
    opted_in = namespaces(api)
    if namespace is not None and namespace not in opted_in:
        found.append(_not_opted_in(namespace))
    for name in opted_in if namespace is None else [namespace] if namespace in opted_in else []:
        found += [*_dry_run(api, own, name, clear=not found), *_pods(api, name, settings)]
    if namespace is None and not opted_in:
        found.append(_not_opted_in(None))
    return found


def _settings(api: Api, own: str, deployment: dict[str, Any]) -> Settings:
    volumes = deployment["spec"]["template"]["spec"].get("volumes") or ()
    names = [each["configMap"]["name"] for each in volumes if each["name"] == "configuration" and "configMap" in each]
    raw = api.find(f"/api/v1/namespaces/{own}/configmaps/{names[0]}") if names else None
    if raw is None:
        raise ApiError(f"the ConfigMap with the configuration, which the Deployment {SERVICE} names, is not in {own}")
    try:
        return parse((msgspec.json.decode(raw).get("data") or {}).get("configuration.yaml", ""))
    except SettingsError as error:
        raise ApiError(f"configmap/{names[0]} in {own}: {error}") from error


def _webhook(api: Api, own: str, deployment: dict[str, Any]) -> Iterator[Finding]:
    if deployment["spec"].get("replicas", 1) == 0:
        yield Finding(
            "problem",
            "webhook-scaled-to-zero",
            f"{own}/deployment/{SERVICE}",
            "it has no replicas",
            "nothing answers the API server: pods of Plane are created without the injection, or refused",
            f"kubectl -n {own} scale deployment/{SERVICE} --replicas=2",
        )
    elif not any(each.ready for each in endpoints(api, own)):
        yield Finding(
            "problem",
            "no-endpoint",
            f"{own}/service/{SERVICE}",
            "no replica is ready",
            "nothing answers the API server: pods of Plane are created without the injection, or refused",
            f"kubectl -n {own} describe pods -l app.kubernetes.io/name={SERVICE}",
        )


def _registration(api: Api, own: str, settings: Settings) -> Iterator[Finding]:
    raw = api.find(REGISTRATION)
    found = msgspec.json.decode(raw) if raw is not None else {}
    at, webhook = next(
        ((at, each) for at, each in enumerate(found.get("webhooks") or ()) if each["name"] == WEBHOOK), (0, None)
    )
    where = f"mutatingwebhookconfiguration/{NAME}"
    if webhook is None:
        yield Finding(
            "problem",
            "not-registered",
            where,
            "it is missing, or lacks our webhook",
            "the API server asks nobody: no pod of Plane is injected",
            "kubectl apply --server-side -k manifests/operate   # with Helm: "
            f"helm upgrade {NAME} manifests/chart -n {own}, with your values",
        )
        return
    if not webhook["clientConfig"].get("caBundle"):
        bundle = f"$(kubectl -n {own} get secret plane-webhook-tls -o jsonpath='{{.data.ca\\.crt}}')"
        patch = f'[{{"op":"add","path":"/webhooks/{at}/clientConfig/caBundle","value":"{bundle}"}}]'.replace('"', '\\"')
        yield Finding(
            "problem",
            "no-authority",
            where,
            "it has no caBundle",
            "the API server trusts no replica, so every call fails: pods of Plane are created without the injection",
            f'kubectl patch {where} --type=json -p "{patch}"',
        )
    made = manifest(settings, client_config=service(f"{own}/{SERVICE}"), ca_bundle=b"")["webhooks"][0]
    other = [field for field in _FIELDS if webhook.get(field) != made[field]]
    if other:
        patch = json.dumps([{"op": "add", "path": f"/webhooks/{at}/{field}", "value": made[field]} for field in other])
        yield Finding(
            "problem",
            "registration-differs",
            where,
            f"{', '.join(other)} not as the configuration has it",
            "the API server asks about other pods than those that are to be injected",
            f"kubectl patch {where} --type=json -p {shlex.quote(patch)}",
        )


def _operate(own: str, deployment: bytes | None) -> Iterator[Finding]:
    if deployment is not None and msgspec.json.decode(deployment)["spec"].get("replicas", 1) == 0:
        yield Finding(
            "problem",
            "operate-scaled-to-zero",
            f"{own}/deployment/{OPERATE}",
            "it has no replicas",
            "nobody renews the certificate, or looks for pods that slipped by",
            f"kubectl -n {own} scale deployment/{OPERATE} --replicas=1",
        )


def _secret(api: Api, own: str, deployment: dict[str, Any], operates: bool) -> Iterator[Finding]:  # noqa: FBT001
    volumes = deployment["spec"]["template"]["spec"].get("volumes") or ()
    name = next(each["secret"]["secretName"] for each in volumes if each["name"] == "tls")
    raw = api.find(f"/api/v1/namespaces/{own}/secrets/{name}")
    data = (msgspec.json.decode(raw).get("data") or {}) if raw is not None else None
    files = {key: base64.b64decode(text) for key, text in data.items()} if data is not None else None
    now = datetime.now(UTC)
    problem = amiss(files, host=f"{SERVICE}.{own}.svc", now=now)
    if problem is None and files is not None:
        ends = certs.check(files["tls.crt"], files["tls.key"], None, now=now).not_after
        if ends - now < SOON:
            problem = f"the certificate ends on {ends:%Y-%m-%d %H:%M} UTC"
    if problem is not None:
        yield Finding(
            "problem",
            "certificate",
            f"{own}/secret/{name}",
            problem,
            "replicas that start now can't serve, and when what is served ends, no pod of Plane is injected",
            f"kubectl -n {own} delete secret {name} --ignore-not-found   # operate makes another"
            if operates
            else f"plane-webhook certs issue --force --dir tls --host {SERVICE}.{own}.svc   # and the next steps of "
            "docs/how-to/certificate-by-hand.md",
        )


def _not_opted_in(namespace: str | None) -> Finding:
    return Finding(
        "problem",
        "not-opted-in",
        f"namespace/{namespace}" if namespace else "namespaces",
        f"{'it' if namespace else 'none'} carries the label {INJECT}=enabled".replace(
            "it carries", "it does not carry"
        ),
        "the API server does not ask about its pods: none is injected",
        f"kubectl label namespace {namespace or 'plane'} {INJECT}=enabled --overwrite",
    )


def _dry_run(api: Api, own: str, namespace: str, *, clear: bool) -> Iterator[Finding]:
    """The API server's own path: a pod that it makes and doesn't keep."""
    query = {"dryRun": "All"}
    answer = api.request("POST", f"/api/v1/namespaces/{namespace}/pods", query=query, body=json.dumps(_POD).encode())
    if PROVENANCE not in (msgspec.json.decode(answer)["metadata"].get("annotations") or {}):
        yield Finding(
            "problem",
            "not-called",
            f"namespace/{namespace}",
            "a pod of Plane's API that is created there now would not be injected (tried by a server-side dry run)",
            "tasks of pods that are created now can be lost" + ("" if clear else ". What is found above may be why"),
            f"kubectl get --raw /metrics | grep 'fail_open_count.*{WEBHOOK}'   # counts calls that failed: can the API "
            f"server reach port 8443 of the pods in {own}, and does it trust them? Its own log says why a call failed",
        )


_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER = {
    "name": "api",
    "image": "makeplane/plane-backend:doctor",
    "command": ["./bin/docker-entrypoint-api.sh"],
    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
    "securityContext": _SECURITY,
}
_POD = {"metadata": {"name": "plane-webhook-doctor"}, "spec": {"containers": [_CONTAINER]}}


def _pods(api: Api, namespace: str, settings: Settings) -> Iterator[Finding]:
    """Of each owner's pods that stand alike, one finding."""
    groups: dict[tuple[str, State, str], list[Found]] = {}
    for each in pods(api, namespace, settings):
        groups.setdefault((each.owner.uid, each.judged.state, each.judged.reason), []).append(each)
    for (_, state, _), group in sorted(groups.items()):
        first = group[0]
        names = ", ".join(each.name for each in group)
        restart = f"kubectl -n {namespace} rollout restart {first.owner.shown}"
        if first.owner.kind not in ("Deployment", "StatefulSet", "DaemonSet"):
            restart = f"kubectl -n {namespace} delete pod {' '.join(each.name for each in group)}   # and make it again"
        where = f"{namespace}/{first.owner.shown}"
        if state is State.MISSED:
            why = "tasks that they publish can be lost"
            yield Finding("problem", "not-injected", where, f"not injected: {names}", why, restart)
        elif state is State.OUTDATED:
            why = "what the configuration says now is not in effect there"
            yield Finding("problem", "other-settings", where, f"injected with other settings: {names}", why, restart)
        elif state is State.UNCOVERED:
            why = f"{first.judged.reason.sentence} ({first.judged.reason})"
            look = f"kubectl -n {namespace} get pod {first.name} -o yaml"
            yield Finding("note", "not-covered", where, f"can't be injected: {names}", why, look)


def shown(findings: list[Finding]) -> str:
    """The findings for people."""
    if not findings:
        return "nothing is wrong"
    return "\n\n".join(
        f"{each.kind.upper():8} {each.code}  {each.where}\n  wrong:   {each.wrong}\n  causes:  {each.causes}\n"
        f"  fix:     {each.fix}"
        for each in findings
    )


def as_json(findings: list[Finding]) -> str:
    """The findings for programs."""
    return json.dumps({"findings": [asdict(each) for each in findings]}, indent=2)
