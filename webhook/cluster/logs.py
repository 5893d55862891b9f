"""What injected containers say in their logs, where reading these is granted: that what was injected is not in effect.

A log is a stranger's text, so it is read with bounds, only looked through for the beginnings of our own lines, and
never kept, shown or passed on. Whoever writes such a line himself makes his own pod look bad.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from http import HTTPStatus

import msgspec

from webhook.cluster.api import Api, ApiError
from webhook.cluster.census import Found, Start
from webhook.cluster.pods import State

# Bytes from a log's beginning. Before Plane starts what our lines are about, it waits for its database and migrations,
# with a line now and then.
LIMIT = 64 * 1024
# Looks at the pods in which a container that has said nothing yet is read: an hour.
TRIES = 240
# Looks after the line that all is well: the process that it speaks of imports Plane's settings then, and may object.
_AFTERWARDS = 4
# What one look may take: reads, and seconds for all of them and for one.
_READS, _SECONDS, _SECONDS_EACH = 200, 5.0, 3.0
# Seconds until it is tried again where the right is missing.
TRY_AGAIN = 60.0


class Said(Enum):
    """What a container has said of itself."""

    NOTHING = auto()
    IN_EFFECT = auto()
    NOT_IN_EFFECT = auto()


def said(log: bytes, workload: str) -> Said:
    """By our lines in the beginning of a log. Of the API it is gunicorn that counts, for a command runs before it."""
    if re.search(rb"^plane-webhook: NOT IN EFFECT: ", log, re.MULTILINE):
        return Said.NOT_IN_EFFECT
    program = b"gunicorn: " if workload == "api" else b""
    if re.search(rb"^plane-webhook: in effect for " + program, log, re.MULTILINE):
        return Said.IN_EFFECT
    return Said.NOTHING


class _Known(msgspec.Struct):
    """What is known of one start of a container."""

    said: Said = Said.NOTHING
    tries: int = 0
    left: int = TRIES


class Logs:
    """What one process has read; `readable` are the namespaces in which it could."""

    def __init__(self, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._known: dict[tuple[str, str, str], _Known] = {}  # uid of a pod, container, id of its start
        self._refused: dict[str, float] = {}  # a namespace, and when
        self.readable: set[str] = set()

    def look(self, found: Sequence[Found]) -> list[Found]:
        """All pods, those whose logs say so as NOT_IN_EFFECT; only of injected ones they are read. Raises ApiError."""
        injected = [each for each in found if each.judged.state is State.INJECTED]
        every = [(pod, start) for pod in injected for start in pod.starts]
        self._known = {key: self._known.get(key) or _Known() for pod, start in every for key in (_key(pod, start),)}
        self.readable &= {each.namespace for each in found}
        self._read(every)
        return [self._as_said(each) for each in found]

    def _read(self, every: Iterable[tuple[Found, Start]]) -> None:
        """Those that have been read least, and of them the newest."""
        began = self._clock()
        self._refused = {name: at for name, at in self._refused.items() if began - at < TRY_AGAIN}
        waiting = [(self._known[_key(pod, start)], pod, start) for pod, start in every]
        waiting = [each for each in waiting if each[0].left]
        waiting.sort(key=lambda each: each[2].at, reverse=True)
        waiting.sort(key=lambda each: each[0].tries)
        for known, pod, start in waiting[:_READS]:
            if self._clock() - began >= _SECONDS:
                break
            if pod.namespace in self._refused:
                continue
            try:
                log = self._log(pod, start)
            except ApiError as error:
                if error.status == HTTPStatus.UNAUTHORIZED:
                    raise
                if error.status == HTTPStatus.FORBIDDEN:
                    self._refused[pod.namespace] = began
                    self.readable.discard(pod.namespace)
                    continue
                log = b""  # its pod is gone, or its node is away
            else:
                self.readable.add(pod.namespace)
            known.tries += 1
            known.left -= 1
            now = said(log, start.workload)
            if now is Said.IN_EFFECT and known.said is Said.NOTHING:
                known.left = min(known.left, _AFTERWARDS)
            if now is Said.NOT_IN_EFFECT or len(log) >= LIMIT:  # the beginning of a log stays as it is
                known.left = 0
            known.said = now

    def _log(self, pod: Found, start: Start) -> bytes:
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/log"
        query = {"container": start.container, "limitBytes": str(LIMIT)}
        return self._api.beginning(path, query=query, limit=LIMIT, seconds=_SECONDS_EACH)

    def _as_said(self, pod: Found) -> Found:
        for start in pod.starts if pod.namespace in self.readable else ():
            known = self._known.get(_key(pod, start))
            if known is not None and known.said is Said.NOT_IN_EFFECT:
                judged = dataclasses.replace(pod.judged, state=State.NOT_IN_EFFECT, container=start.container)
                return msgspec.structs.replace(pod, judged=judged)
        return pod


def _key(pod: Found, start: Start) -> tuple[str, str, str]:
    return pod.uid, start.container, start.id
