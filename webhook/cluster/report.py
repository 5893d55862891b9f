"""What is said of the pods that were found: Events on what they belong to, and a ConfigMap with the state of all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec

from webhook import log
from webhook.cluster.api import Api, ApiError
from webhook.cluster.census import Found
from webhook.cluster.installed import OPERATE, ConfigMap
from webhook.cluster.pods import State, states

STATE = "plane-webhook-state"
# The Events of one pass: of a cluster full of bad pods the first say enough, and the next pass goes on.
_EVENTS = 20
_LONGEST_MESSAGE = 1000  # an Event takes 1024 characters
_NAMED = 5  # pods; a Deployment of a hundred would say nothing else
# Of a ConfigMap, which takes 1 MiB: lines of a namespace, and characters of all.
_LINES, _ROOM = 200, 800_000


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing to say of what a pod belongs to, in a line of the ConfigMap and in an Event.

    `urgent` wants a hand: it is said again each hour, when the API server has forgotten the last Event. The rest is how
    the workload is made, and said when that changes.
    """

    line: str
    reason: str
    text: str
    urgent: bool = False
    normal: bool = False


@dataclass(slots=True)
class _Group:
    """A statement about several pods of one owner."""

    statement: Statement
    first: Found
    names: list[str] = field(default_factory=list)


class Reporter:
    """What one process says; `own` is the webhook's namespace."""

    def __init__(self, api: Api, own: str) -> None:
        self._api = api
        self._own = own
        self.forget()

    def forget(self) -> None:
        """Somebody else says it now."""
        self._written: ConfigMap | None = None
        self._said: set[str] = set()

    def report(self, found: Sequence[Found], opted_in: Iterable[str], *, logs: Collection[str] = ()) -> None:
        """Say what is new of all the pods of the namespaces that are opted in. Raises ApiError.

        `logs`: the namespaces in which these are read.
        """
        if self._written is None:
            self._written = ConfigMap(self._api, self._own, STATE)
            # What another process has written it has also said.
            self._said = {f"{name} {line}" for name, text in self._written.data.items() for line in text.splitlines()}
        self._announce(found)
        data = state(found, opted_in, said=self._said, logs=logs)
        if data != self._written.data:
            try:
                self._written.write(data)
            except ApiError:
                self.forget()  # somebody else may have written it
                raise

    def _announce(self, found: Sequence[Found]) -> None:
        hour = f"{datetime.now(UTC):%Y%m%d%H}"
        groups: dict[str, _Group] = {}
        for each in found:
            for statement in statements(each):
                key = f"{each.namespace} {statement.line}{f' {hour}' if statement.urgent else ''}"
                groups.setdefault(key, _Group(statement, each)).names.append(each.name)
        self._said &= groups.keys()  # what is so no more is said anew when it is so again
        new = [each for each in groups if each not in self._said]
        new.sort(key=lambda each: not groups[each].statement.urgent)
        for key in new[:_EVENTS]:
            group = groups[key]
            names = sorted(group.names)
            shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            # The name says what it is about: the same Event is not made twice, by two processes either.
            digest = hashlib.sha256(f"{group.first.owner.uid} {key}".encode()).hexdigest()[:12]
            message = f"Pod {shown} {group.statement.text}"
            _post(self._api, _event(group.first, digest, group.statement.reason, message, group.statement.normal))
            self._said.add(key)


def statements(pod: Found) -> Iterator[Statement]:
    """All that is to be said of one pod."""
    judged, owner = pod.judged, pod.owner.shown
    about = f"{judged.state} {owner} ({judged.reason})"
    container = f"(container {judged.container})"
    match judged.state:
        case State.MISSED:
            yield Statement(about, "NotInjected", f"{container} {judged.sentence}{remedy(pod)}", urgent=True)
        case State.OUTDATED:
            yield Statement(about, "OtherSettings", f"{container} {judged.sentence}{remedy(pod)}", urgent=True)
        case State.NOT_IN_EFFECT:
            yield Statement(about, "NotInEffect", f"{container} {judged.sentence}: {pod.why}", urgent=True)
        case State.UNCOVERED:
            yield Statement(about, "NotCovered", f"{container} is not covered: {judged.sentence} ({judged.reason})")
        case _:
            pass
    for risk in judged.risks:
        yield Statement(f"risk {owner} ({risk})", "Risk", f"{container} has a risk: {risk.sentence} ({risk})")
    if judged.kept:
        names = ", ".join(judged.kept)
        text = f"{container} sets {names} itself: that stays, and what the configuration has for it is not in effect"
        yield Statement(f"kept {owner} ({names})", "KeptVariables", text, normal=True)


def remedy(pod: Found) -> str:
    """The command that has pods made anew, after a colon; nothing where there is none for this kind."""
    return f": {pod.restart}" if pod.restart else ""


def say(api: Api, pod: Found, reason: str, message: str, *, normal: bool = False) -> None:
    """An Event on what a pod belongs to, now. Raises ApiError."""
    digest = hashlib.sha256(f"{message} {datetime.now(UTC)}".encode()).hexdigest()[:12]
    _post(api, _event(pod, digest, reason, message, normal))


def _post(api: Api, event: Mapping[str, Any]) -> None:
    namespace = event["metadata"]["namespace"]
    try:
        api.request("POST", f"/api/v1/namespaces/{namespace}/events", body=msgspec.json.encode(event))
    except ApiError as error:
        if error.status == HTTPStatus.CONFLICT:
            return  # it is there already
        if error.status in (0, HTTPStatus.UNAUTHORIZED) or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        log.line(
            "warning", f"an Event was refused: {error}"
        )  # a quota, say: that must not keep the rest from being said


def _event(pod: Found, digest: str, reason: str, message: str, normal: bool) -> dict[str, Any]:  # noqa: FBT001
    owner = pod.owner
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{owner.name[:200]}.{digest}", "namespace": pod.namespace},
        "involvedObject": {
            "apiVersion": owner.api_version,
            "kind": owner.kind,
            "name": owner.name,
            "namespace": pod.namespace,
            "uid": owner.uid,
        },
        "type": "Normal" if normal else "Warning",
        "reason": reason,
        "message": message[:_LONGEST_MESSAGE],
        "source": {"component": OPERATE},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def state(
    found: Iterable[Found], opted_in: Iterable[str], *, said: Collection[str], logs: Collection[str] = ()
) -> dict[str, str]:
    """The ConfigMap's data: of each opted-in namespace its numbers, and a line for each statement.

    One that is said once is there when that is done (its key is in `said`): the next process goes by it. `logs`: the
    namespaces in which these are read.
    """
    lines: dict[str, set[str]] = {name: set() for name in opted_in}
    counts: dict[str, Counter[State]] = {name: Counter() for name in opted_in}
    for each in found:
        counts[each.namespace][each.judged.state] += 1
        lines[each.namespace].update(
            statement.line
            for statement in statements(each)
            if statement.urgent or f"{each.namespace} {statement.line}" in said
        )
    data, room = {}, _ROOM
    for name, count in counts.items():
        shown = [each for each in states(logs=name in logs) if each is not State.OUT]
        numbers = ", ".join(f"{each}: {count[each]}" for each in shown)
        data[name] = _cut(numbers, sorted(lines[name]), room)
        room -= len(data[name])
    return data


def _cut(numbers: str, lines: Sequence[str], room: int) -> str:
    """As many lines as there may be, and how many there are more."""
    shown = lines[:_LINES]
    if sum(len(each) + 1 for each in shown) > room:
        shown = ()
    return "\n".join(
        [numbers, *shown, *([f"... and {len(lines) - len(shown)} more"] if len(shown) < len(lines) else [])]
    )
