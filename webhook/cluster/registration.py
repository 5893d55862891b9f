"""The MutatingWebhookConfiguration as a value: which pods the API server asks about, and what if nobody answers.

Pure: makes a dict, sends nothing. What the conditions let pass is a superset of what webhook.admission.target finds.
"""

from __future__ import annotations

import base64
import re
import string
from typing import Any, get_args
from urllib.parse import urlsplit

from webhook.admission import INJECT
from webhook.admission.target import ENTRYPOINT_MARK, FOREIGN_IMAGES, Place
from webhook.settings import Settings

NAME = "plane-webhook"
CONDITION = "runs-plane"  # what our matchCondition is called: in the list that the API server keeps by name
# A decision takes well under a millisecond; five seconds pass only when nothing answers, and then for each pod.
_TIMEOUT_SECONDS = 5
_LAST_PORT = 65535
_LABEL = "([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)"  # RFC 1123, as Kubernetes demands of both
_SERVICE = re.compile(rf"{_LABEL}/{_LABEL}(?::([0-9]{{1,5}}))?")
# The API server takes no user, query and fragment; whitespace is a slip.
_NOT_IN_URL = frozenset("@?#" + string.whitespace)


class RegistrationError(ValueError):
    """The registration can't be made of these arguments; the text says why."""


def service(text: str) -> dict[str, Any]:
    """`NAMESPACE/NAME` or `NAMESPACE/NAME:PORT` as a clientConfig. Raises RegistrationError."""
    match = _SERVICE.fullmatch(text)
    if not match or not 1 <= int(match[3] or 443) <= _LAST_PORT:
        raise RegistrationError(f"--service {text}: expected NAMESPACE/NAME, as in plane-webhook/plane-webhook")
    return {"service": {"namespace": match[1], "name": match[2], "path": "/mutate", "port": int(match[3] or 443)}}


def url(text: str) -> dict[str, Any]:
    """An https URL as a clientConfig; the path is /mutate unless it has one. Raises RegistrationError."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        usable = False
    if not usable or set(text) & _NOT_IN_URL:
        raise RegistrationError(f"--url {text}: expected https://HOST[:PORT][/PATH] without user, query and fragment")
    return {"url": f"https://{parts.netloc}{parts.path if parts.path.strip('/') else '/mutate'}"}


def manifest(
    settings: Settings, *, client_config: dict[str, Any], ca_bundle: bytes, failure_policy: str = "Ignore"
) -> dict[str, Any]:
    """The whole object, ready to apply. `client_config` comes from `service` or `url`, `ca_bundle` is PEM."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/name": NAME}},
        "webhooks": [
            {
                "name": f"inject.pods.{NAME}",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {**client_config, "caBundle": base64.b64encode(ca_bundle).decode()},
                "rules": [
                    {
                        "operations": ["CREATE"],
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "resources": ["pods"],
                        "scope": "Namespaced",
                    }
                ],
                "namespaceSelector": {
                    "matchLabels": {INJECT: "enabled"},
                    # Under `Fail` a webhook that governs its own pods, or the cluster's, could never come back.
                    "matchExpressions": [
                        {
                            "key": "kubernetes.io/metadata.name",
                            "operator": "NotIn",
                            "values": sorted(left_out(client_config.get("service", {}).get("namespace", NAME))),
                        }
                    ],
                },
                "objectSelector": {"matchExpressions": [{"key": INJECT, "operator": "NotIn", "values": ["disabled"]}]},
                "matchConditions": [{"name": CONDITION, "expression": condition(settings)}],
                "failurePolicy": failure_policy,
                "matchPolicy": "Equivalent",
                "reinvocationPolicy": "IfNeeded",
                "sideEffects": "None",
                "timeoutSeconds": _TIMEOUT_SECONDS,
            }
        ],
    }


def left_out(own: str) -> frozenset[str]:
    """The namespaces of which no pod is asked about, whatever their labels; `own` is the webhook's."""
    return frozenset(("kube-system", own))


def condition(settings: Settings) -> str:
    """CEL that is true for each pod that is Plane's as far as it can be told, covered or not: none goes unnoticed.

    Every field is guarded by has(): an error skips the webhook in silence under Ignore and refuses the pod under Fail.
    """
    images = sorted({*FOREIGN_IMAGES, *(image for profile in settings.profiles() for image in profile.images)})
    looks_like_plane = " || ".join(f"c.image.contains('{image}')" for image in images)
    # A look costs the length of the text times that of what is looked for, each in tens of characters, rounded up: the
    # first ten and the last ten of what all names begin with are the cheapest. In nearly all pods the first is the end.
    looks = f"text.contains('{ENTRYPOINT_MARK[:10]}') && text.contains('{ENTRYPOINT_MARK[-10:]}')"
    # Joined, and not word by word: the API server's time for a macro over a list grows with the square of its length.
    # A pod with 100,000 short arguments, which etcd would store, would not be created at all: the request times out.
    words = [f"(has(c.{field}) && [c.{field}.join(' ')].exists(text, {looks}))" for field in ("command", "args")]
    container = " || ".join([f"(has(c.image) && ({looks_like_plane}))", *words])
    # A list is null where there is none; a pod without containers is refused later.
    places = [
        f"(has(object.spec.{place}) && object.spec.{place} != null && object.spec.{place}.exists(c, {container}))"
        for place in get_args(Place)
    ]
    return f"has(object.spec) && ({' || '.join(places)})"
