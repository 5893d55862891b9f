"""What is wrong with the webhook itself: registration, replicas, certificate, and its own pods."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

import certs
from webhook.cluster.api import Api
from webhook.cluster.certificates import SOON, Files, amiss
from webhook.cluster.doctor.finding import Finding, harmless
from webhook.cluster.doctor.refused import refused
from webhook.cluster.endpoints import SERVICE, endpoints
from webhook.cluster.installed import OPERATE, Installed, Registration, Secret
from webhook.cluster.registration import CONDITION, NAME, manifest, service
from webhook.settings import Settings

# The fields of the registration that are made of the configuration and of nothing else.
_FIELDS = ("rules", "namespaceSelector", "objectSelector", "matchConditions", "matchPolicy", "reinvocationPolicy")
_WHERE = f"mutatingwebhookconfiguration/{NAME}"
_UNANSWERED = "nothing answers the API server: pods of Plane are created without the injection, or refused"


def findings(api: Api, installed: Installed, settings: Settings) -> Iterator[Finding]:
    """All of them. Raises ApiError."""
    own = installed.namespace
    registration = Registration(api)
    operates = api.find(f"/apis/apps/v1/namespaces/{own}/deployments/{OPERATE}")
    operator = msgspec.json.decode(operates) if operates is not None else None
    files = Secret(api, own, installed.secret).files
    down = _operate(api, installed, operator, files)
    if down is not None:
        yield down  # first: what is found after it may be its doing
    does = _does(installed, operator, down)
    made = _made(installed, does, keep=down is not None or files is None)
    if files is not None and not files.get("ca.crt") and not _makes(operator):
        files = {**files, "ca.crt": registration.bundle or b""}  # it need not have one: who made it knows who signed it
    yield from _registration(installed, registration, settings, _applied(installed, operator), does)
    now = datetime.now(UTC)
    problem = amiss(files, host=_host(installed), now=now)
    yield from _trust(installed, registration, None if problem else files, now, made)
    yield from _replicas(api, installed)
    yield from _certificate(installed, files, problem, now, made)
    yield from refused(api, own, lambda each: each["metadata"]["name"] in (SERVICE, OPERATE))


def _operate(api: Api, installed: Installed, operator: Mapping[str, Any] | None, files: Files | None) -> Finding | None:
    """What is wrong with `operate` as a whole. Raises ApiError."""
    if operator is None:
        return None
    wanted = operator["spec"].get("replicas", 1) != 0
    if wanted and (operator.get("status") or {}).get("readyReplicas"):
        return None
    own = installed.namespace
    where = f"{own}/deployment/{OPERATE}"
    causes = "while it doesn't run, nobody looks for pods that slipped by"
    if _makes(operator):
        causes += ", makes or renews the certificate, or writes the registration's caBundle"
        if files is None:
            causes += f". There is no secret/{installed.secret}, without which no replica of the webhook can start"
    if not wanted:
        scale = f"kubectl -n {shlex.quote(own)} scale deployment/{OPERATE} --replicas=1"
        return Finding("operate-scaled-to-zero", where, "it has no replicas", causes, scale)
    return Finding("operate-not-ready", where, _unready(api, own, OPERATE), causes, _describe(own, OPERATE))


def _does(installed: Installed, operator: Mapping[str, Any] | None, down: Finding | None) -> str | None:
    """What says why `operate` doesn't do what is its own (Secret, caBundle, condition); None where that isn't so."""
    if not _makes(operator):
        return None
    if down is not None:
        return down.fix
    logs = f"logs --selector app.kubernetes.io/name={OPERATE} --prefix --tail -1   # operate sets it; what keeps it?"
    return f"kubectl -n {shlex.quote(installed.namespace)} {logs}"


def _made(installed: Installed, does: str | None, *, keep: bool) -> str:
    """The command that has the Secret made; `keep`: not by deleting it, for it is missing, or nobody made another."""
    kubectl = f"kubectl -n {shlex.quote(installed.namespace)}"
    if does is None:
        return (
            f"plane-webhook certs issue --force --dir tls --host {shlex.quote(_host(installed))}   # and the next "
            f"steps of docs/how-to/certificate-by-hand.md; with cert-manager: {kubectl} describe certificate"
        )
    delete = f"{kubectl} delete secret {shlex.quote(installed.secret)} --ignore-not-found   # operate makes another"
    return does if keep else delete


def _registration(
    installed: Installed, registration: Registration, settings: Settings, applied: str, does: str | None
) -> Iterator[Finding]:
    """`applied` is the command that applies it again; `does` as of `_does`."""
    webhook = registration.webhook
    if webhook is None:
        yield Finding(
            "not-registered",
            _WHERE,
            "it is missing, or lacks our webhook",
            "the API server asks nobody: no pod of Plane is injected",
            applied,
        )
        return
    client_config = service(f"{installed.namespace}/{SERVICE}")
    wanted = manifest(settings, client_config=client_config, ca_bundle=b"")["webhooks"][0]
    path = f"/webhooks/{registration.at}"
    # The API server keeps them by name, so others may stand beside ours: no fix takes those away.
    (ours,) = wanted["matchConditions"]
    conditions = webhook.get("matchConditions") or []
    foreign = [each for each in conditions if each["name"] != CONDITION]
    wanted["matchConditions"] = conditions if ours in conditions else [*foreign, ours]
    other = [field for field in _FIELDS if webhook.get(field) != wanted[field]]
    elsewhere = registration.elsewhere(installed.namespace)
    if elsewhere:
        values = {f"clientConfig/service/{each}": client_config["service"][each] for each in ("namespace", "name")}
        values |= {each: wanted[each] for each in other}
        ops = [{"op": "add", "path": f"{path}/{each}", "value": value} for each, value in values.items()]
        yield Finding(
            "registration-differs",
            _WHERE,
            f"it leads to the Service {harmless(elsewhere)}, and not to {installed.namespace}/{SERVICE}",
            "the API server asks another installation, and not this one",
            f"kubectl patch {_WHERE} --type=json -p {shlex.quote(json.dumps(ops))}   # if it is this one that is to "
            "stay: and uninstall the other",
        )
    elif other:
        # `operate` sets the condition where there is none, and keeps it right only if nobody else has set it.
        left = "" if does is None or len(foreign) < len(conditions) else "matchConditions"
        ops = [{"op": "add", "path": f"{path}/{each}", "value": wanted[each]} for each in other if each != left]
        again = "the API server does not ask again about a pod that another webhook has changed"
        yield Finding(
            "registration-differs",
            _WHERE,
            f"{', '.join(other)} not as the configuration has it",
            again
            if other == ["reinvocationPolicy"]
            else "the API server asks about other pods than those that are to be injected",
            f"kubectl patch {_WHERE} --type=json -p {shlex.quote(json.dumps(ops))}" if ops else does or "",
        )
    for at, each in enumerate(conditions):
        if each in foreign:
            patch = json.dumps([{"op": "test", "path": f"{path}/matchConditions/{at}/name", "value": each["name"]},
                                {"op": "remove", "path": f"{path}/matchConditions/{at}"}])  # fmt: skip
            yield Finding(
                "condition-added",
                _WHERE,
                f"somebody has added the condition {each['name']}: {harmless(each['expression'])}",
                "the API server doesn't ask about pods for which it is false",
                f"kubectl patch {_WHERE} --type=json -p {shlex.quote(patch)}   # if it isn't meant to be there",
            )


def _trust(
    installed: Installed, registration: Registration, good: Files | None, now: datetime, made: str
) -> Iterator[Finding]:
    """`good`: the Secret's files where they would do; else there is nothing to copy, and `made` has them made."""
    if registration.webhook is None or registration.elsewhere(installed.namespace):
        return
    bundle = registration.bundle
    wrong = "it has no caBundle"
    if bundle and good:
        try:
            certs.check(good["tls.crt"], good["tls.key"], bundle, now=now)
        except certs.CertificateError:
            wrong = f"its caBundle lacks the authority that signed the certificate in secret/{installed.secret}"
        else:
            return
    elif bundle:
        return  # there is nothing to compare it with: `certificate` says so
    own, secret = shlex.quote(installed.namespace), shlex.quote(installed.secret)
    path = f"/webhooks/{registration.at}/clientConfig/caBundle"
    patch = f'[{{\\"op\\":\\"add\\",\\"path\\":\\"{path}\\",\\"value\\":\\"$ca\\"}}]'
    # Never an empty one: the Secret may go before this is pasted.
    copy = (
        f"ca=$(kubectl -n {own} get secret {secret} -o jsonpath='{{.data.ca\\.crt}}') && [ \"$ca\" ] && "
        f'kubectl patch {_WHERE} --type=json -p "{patch}"'
    )
    yield Finding(
        "not-trusted",
        _WHERE,
        wrong,
        "the API server trusts no replica, so calls fail: pods of Plane are created without the injection, or refused",
        copy if good else made,
    )


def _replicas(api: Api, installed: Installed) -> Iterator[Finding]:
    own = installed.namespace
    if installed.deployment["spec"].get("replicas", 1) == 0:
        yield Finding(
            "webhook-scaled-to-zero",
            f"{own}/deployment/{SERVICE}",
            "it has no replicas",
            _UNANSWERED,
            f"kubectl -n {shlex.quote(own)} scale deployment/{SERVICE} --replicas=2",
        )
    elif not any(each.ready for each in endpoints(api, own)):
        where = f"{own}/service/{SERVICE}"
        yield Finding("no-endpoint", where, _unready(api, own, SERVICE), _UNANSWERED, _describe(own, SERVICE))


def _describe(own: str, deployment: str) -> str:
    selector = f"app.kubernetes.io/name={deployment}"
    return f"kubectl -n {shlex.quote(own)} describe pods -l {selector}   # its last lines say what they wait for"


def _unready(api: Api, own: str, deployment: str) -> str:
    """That no replica of one of ours is ready, and what is said of that. Raises ApiError."""
    why = "; ".join(_waiting(api, own, deployment))
    return f"no replica is ready{': ' if why else ''}{why}"


def _waiting(api: Api, own: str, deployment: str) -> Iterator[str]:
    """Why its pods are not ready, in the kubelet's or the scheduler's words. Raises ApiError."""
    query = {"labelSelector": f"app.kubernetes.io/name={deployment}", "limit": "10"}
    found = msgspec.json.decode(api.request("GET", f"/api/v1/namespaces/{own}/pods", query=query))
    for pod in found["items"]:
        status = pod.get("status") or {}
        states = [each.get("state") or {} for each in status.get("containerStatuses") or ()]
        said = [each["waiting"] for each in states if "waiting" in each]
        said += [each for each in status.get("conditions") or () if each["type"] == "PodScheduled" and "reason" in each]
        for each in said[:1]:
            said_so = f"{each.get('reason', '')} {each.get('message', '')}"
            yield f"{pod['metadata']['name']}: {harmless(said_so)}"


def _certificate(
    installed: Installed, files: Files | None, problem: str | None, now: datetime, made: str
) -> Iterator[Finding]:
    causes = "replicas that start now can't serve, or aren't trusted; "
    if problem is None and files is not None:
        causes = ""
        ends = certs.check(files["tls.crt"], files["tls.key"], None, now=now).not_after
        if ends - now < SOON:
            problem = f"the certificate ends on {ends:%Y-%m-%d %H:%M} UTC and was not renewed"
    if problem is None:
        return
    yield Finding(
        "certificate",
        f"{installed.namespace}/secret/{installed.secret}",
        problem,
        f"{causes}when what is served ends, and the API server's open connections, pods of Plane are created without "
        "the injection, or refused",
        made,
    )


def _makes(operator: Mapping[str, Any] | None) -> bool:
    """Whether `operate` makes the certificate, and doesn't only watch."""
    containers = operator["spec"]["template"]["spec"]["containers"] if operator else []
    return any("--certificates=manage" in (each.get("args") or ()) for each in containers)


def _applied(installed: Installed, operator: Mapping[str, Any] | None) -> str:
    """The command that applies the registration again, in the way in which the rest was installed."""
    own = shlex.quote(installed.namespace)
    release = (installed.deployment["metadata"].get("annotations") or {}).get("meta.helm.sh/release-name")
    if release and not release.startswith("-"):  # an option is no name, however it is quoted
        return f"helm upgrade {shlex.quote(release)} manifests/chart -n {own} --reset-then-reuse-values"
    if operator is not None:
        return f"kubectl apply --server-side -k manifests/{'operate' if _makes(operator) else 'cert-manager'}"
    return (
        f"plane-webhook registration --config manifests/base/configuration.yaml --service {own}/{SERVICE} "
        "--ca-file tls/ca.crt | kubectl apply --server-side -f -"
    )


def _host(installed: Installed) -> str:
    return f"{SERVICE}.{installed.namespace}.svc"
