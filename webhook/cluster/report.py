"""What is said of pods that slipped by: an Event on their Deployment, and the ConfigMap that has the state of all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec

from webhook.cluster.api import Api, ApiError
from webhook.cluster.census import Found
from webhook.cluster.installed import OPERATE
from webhook.cluster.pods import State

STATE = "plane-webhook-state"
# What wants a hand.
SPOKEN = (State.MISSED, State.OUTDATED, State.UNCOVERED)
# The Events of one pass: of a cluster full of bad pods the first say enough, and the next pass goes on.
_EVENTS = 20
_KNOWN = 5000  # names; those of past hours are of no use
_LONGEST_MESSAGE = 1000  # an Event takes 1024 characters


def announce(api: Api, found: Iterable[Found], said: set[str]) -> None:
    """An Event on each owner with pods that want a hand, once an hour as long as that is so. Raises ApiError.

    `said` holds the names of Events that are known to be there; the API server forgets them after an hour by default.
    """
    groups: dict[tuple[str, str, State, str], list[Found]] = {}
    for each in found:
        if each.judged.state in SPOKEN:
            groups.setdefault((each.namespace, each.owner.uid, each.judged.state, each.judged.reason), []).append(each)
    made = 0
    for key, group in groups.items():
        hour = f"{datetime.now(UTC):%Y%m%d%H}"
        digest = hashlib.sha256("\0".join((*key, hour)).encode()).hexdigest()[:12]
        event = _event(group, digest)
        if event["metadata"]["name"] in said or made >= _EVENTS:
            continue
        try:
            api.request("POST", f"/api/v1/namespaces/{key[0]}/events", body=msgspec.json.encode(event))
        except ApiError as error:
            if error.status != HTTPStatus.CONFLICT:  # it is there already
                raise
        if len(said) > _KNOWN:
            said.clear()
        said.add(event["metadata"]["name"])
        made += 1


def _event(group: Sequence[Found], digest: str) -> dict[str, Any]:
    first = group[0]
    owner, judged = first.owner, first.judged
    names = ", ".join(sorted(each.name for each in group)[:5]) + (", ..." if len(group) > 5 else "")  # noqa: PLR2004
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    message = f"Pod {names} (container {judged.container}) {judged.sentence}{_remedy(first)}"
    if judged.state is State.UNCOVERED:
        message = f"Pod {names}, container {judged.container}: {judged.sentence} ({judged.reason})"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{owner.name[:200]}.{digest}", "namespace": first.namespace},
        "involvedObject": {
            "apiVersion": owner.api_version,
            "kind": owner.kind,
            "name": owner.name,
            "namespace": first.namespace,
            "uid": owner.uid,
        },
        "type": "Warning",
        "reason": {State.MISSED: "NotInjected", State.OUTDATED: "OtherSettings"}.get(judged.state, "NotCovered"),
        "message": message[:_LONGEST_MESSAGE],
        "source": {"component": OPERATE},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _remedy(found: Found) -> str:
    if found.owner.kind in ("Deployment", "StatefulSet", "DaemonSet"):
        return f": kubectl -n {found.namespace} rollout restart {found.owner.shown}"
    return ""


def state(found: Iterable[Found], opted_in: Sequence[str]) -> dict[str, str]:
    """The ConfigMap's data: of each opted-in namespace its numbers, and each owner that wants a hand."""
    lines: dict[str, list[str]] = {}
    counts: dict[str, Counter[State]] = {name: Counter() for name in opted_in}
    for each in found:
        counts[each.namespace][each.judged.state] += 1
        if each.judged.state in SPOKEN:
            lines.setdefault(each.namespace, []).append(
                f"{each.judged.state} {each.owner.shown} ({each.judged.reason})"
            )
    return {
        name: "\n".join(
            [
                ", ".join(f"{each}: {count[each]}" for each in State if each is not State.OUT),
                *sorted(set(lines.get(name, ()))),
            ]
        )
        for name, count in counts.items()
    }


def publish(api: Api, namespace: str, data: dict[str, str]) -> None:
    """Write the ConfigMap, in the webhook's own namespace. Raises ApiError."""
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": STATE, "namespace": namespace, "labels": {"app.kubernetes.io/name": OPERATE}},
        "data": data,
    }
    api.apply(f"/api/v1/namespaces/{namespace}/configmaps/{STATE}", manifest, manager=OPERATE)
