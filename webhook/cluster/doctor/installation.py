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
    if files is not None and not files.get("ca.crt") and not _makes(operator):
        files = {**files, "ca.crt": registration.bundle or b""}  # it need not have one: who made it knows who signed it
    yield from _registration(installed, registration, settings, files, operator)
    yield from _replicas(api, installed)
    if operator is not None and operator["spec"].get("replicas", 1) == 0:
        yield Finding(
            "operate-scaled-to-zero",
            f"{own}/deployment/{OPERATE}",
            "it has no replicas",
            "nobody renews the certificate, or looks for pods that slipped by",
            f"kubectl -n {shlex.quote(own)} scale deployment/{OPERATE} --replicas=1",
        )
    yield from _certificate(installed, files, operator)
    yield from refused(api, own, lambda each: each["metadata"]["name"] in (SERVICE, OPERATE))


def _registration(
    installed: Installed,
    registration: Registration,
    settings: Settings,
    files: Files | None,
    operator: Mapping[str, Any] | None,
) -> Iterator[Finding]:
    webhook = registration.webhook
    if webhook is None:
        yield Finding(
            "not-registered",
            _WHERE,
            "it is missing, or lacks our webhook",
            "the API server asks nobody: no pod of Plane is injected",
            _applied(installed, operator),
        )
        return
    yield from _trust(installed, registration, files)
    client_config = service(f"{installed.namespace}/{SERVICE}")
    made = manifest(settings, client_config=client_config, ca_bundle=b"")["webhooks"][0]
    path = f"/webhooks/{registration.at}"
    # The API server keeps them by name, so others may stand beside ours: no fix takes those away.
    (ours,) = made["matchConditions"]
    conditions = webhook.get("matchConditions") or []
    foreign = [each for each in conditions if each["name"] != CONDITION]
    made["matchConditions"] = conditions if ours in conditions else [*foreign, ours]
    other = [field for field in _FIELDS if webhook.get(field) != made[field]]
    if other:
        patch = json.dumps([{"op": "add", "path": f"{path}/{field}", "value": made[field]} for field in other])
        yield Finding(
            "registration-differs",
            _WHERE,
            f"{', '.join(other)} not as the configuration has it",
            "the API server asks about other pods than those that are to be injected",
            f"kubectl patch {_WHERE} --type=json -p {shlex.quote(patch)}",
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


def _trust(installed: Installed, registration: Registration, files: Files | None) -> Iterator[Finding]:
    bundle = registration.bundle
    wrong = "it has no caBundle"
    if bundle and files and amiss(files, host=_host(installed), now=datetime.now(UTC)) is None:
        try:
            certs.check(files["tls.crt"], files["tls.key"], bundle, now=datetime.now(UTC))
        except certs.CertificateError:
            wrong = f"its caBundle lacks the authority that signed the certificate in secret/{installed.secret}"
        else:
            return
    elif bundle:
        return  # there is nothing to compare it with: `certificate` says so
    own, secret = shlex.quote(installed.namespace), shlex.quote(installed.secret)
    text = f"$(kubectl -n {own} get secret {secret} -o jsonpath='{{.data.ca\\.crt}}')"  # quoted by rules of its own
    path = f"/webhooks/{registration.at}/clientConfig/caBundle"
    patch = f'[{{\\"op\\":\\"add\\",\\"path\\":\\"{path}\\",\\"value\\":\\"{text}\\"}}]'
    yield Finding(
        "not-trusted",
        _WHERE,
        wrong,
        "the API server trusts no replica, so calls fail: pods of Plane are created without the injection, or refused",
        f'kubectl patch {_WHERE} --type=json -p "{patch}"',
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
        why = "; ".join(_waiting(api, own))
        yield Finding(
            "no-endpoint",
            f"{own}/service/{SERVICE}",
            f"no replica is ready{': ' if why else ''}{why}",
            _UNANSWERED,
            f"kubectl -n {shlex.quote(own)} describe pods -l app.kubernetes.io/name={SERVICE}   # its last lines say "
            "what they wait for",
        )


def _waiting(api: Api, own: str) -> Iterator[str]:
    """Why pods of the webhook are not ready, in the kubelet's or the scheduler's words."""
    query = {"labelSelector": f"app.kubernetes.io/name={SERVICE}", "limit": "10"}
    found = msgspec.json.decode(api.request("GET", f"/api/v1/namespaces/{own}/pods", query=query))
    for pod in found["items"]:
        status = pod.get("status") or {}
        states = [each.get("state") or {} for each in status.get("containerStatuses") or ()]
        said = [each["waiting"] for each in states if "waiting" in each]
        said += [each for each in status.get("conditions") or () if each["type"] == "PodScheduled" and "reason" in each]
        for each in said[:1]:
            said_so = f"{each.get('reason', '')} {each.get('message', '')}"
            yield f"{pod['metadata']['name']}: {harmless(said_so)}"


def _certificate(installed: Installed, files: Files | None, operator: Mapping[str, Any] | None) -> Iterator[Finding]:
    own, now = installed.namespace, datetime.now(UTC)
    problem = amiss(files, host=_host(installed), now=now)
    if problem is None and files is not None:
        ends = certs.check(files["tls.crt"], files["tls.key"], None, now=now).not_after
        if ends - now < SOON:
            problem = f"the certificate ends on {ends:%Y-%m-%d %H:%M} UTC and was not renewed"
    if problem is None:
        return
    kubectl, secret = f"kubectl -n {shlex.quote(own)}", shlex.quote(installed.secret)
    host = shlex.quote(_host(installed))
    issue = f"plane-webhook certs issue --force --dir tls --host {host}   # and the next steps of "
    yield Finding(
        "certificate",
        f"{own}/secret/{installed.secret}",
        problem,
        "replicas that start now can't serve; when what is served ends, and the API server's open connections, pods of "
        "Plane are created without the injection, or refused",
        f"{kubectl} delete secret {secret} --ignore-not-found   # operate makes another"
        if _makes(operator)
        else issue + f"docs/how-to/certificate-by-hand.md; with cert-manager: {kubectl} describe certificate",
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
