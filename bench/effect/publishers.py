"""Workers and beat as publishers: what a stack's publish is there, and how one learns what came of it.

A worker runs a task that publishes another one: *silently lost* is that one if the worker says that the first has
succeeded and the second is in no queue. Of beat's messages it is one that beat believes to have sent. Faults strike
only the connections on which tasks are published: those that a worker consumes on, and its events, stay good.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from uuid import uuid4

import amqp

from bench.effect.contenders import RELAY
from bench.effect.stack import EXCEPTION, Shot, Stack, token

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

POLL = 0.005  # seconds between two looks at the log
INTERVAL = "0.5"  # seconds from one of beat's publishes to the next: the longest that a scaled timeout takes
TASKS = "plane.bgtasks.export_task."
# What stands before the traceback of a task, of Celery's own publish after a task, of beat.
_FAILURES = re.compile(r"raised unexpected: |nternal error: |Message Error: ")
_STAMP = "\n[20"  # a line of Celery's log begins with the time


@dataclass(frozen=True)
class Submitted:
    """A task in a worker's queue, and when it came there."""

    token: str
    task: str
    at: float


class Publisher(Stack):
    """What both have in common: all is told by the log."""

    tasks_only: ClassVar = True

    def causes(self, log: str) -> list[str]:
        """Return, for each failure that the log tells of, the exception that ends its traceback."""
        named = (EXCEPTION.findall(part.split(_STAMP)[0]) for part in _FAILURES.split(log)[1:])
        return [names[-1] for names in named if names]

    def _until(self, look: Callable[[], T | None]) -> T | None:
        """Return what `look` finds as soon as it does; None if it doesn't in time."""
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            if found := look():
                return found
            time.sleep(POLL)
        return None

    def _keep(self, shot: Shot, *, counted: bool) -> Shot:
        if counted:
            self.shots.append(shot)
        return shot


class Worker(Publisher):
    """`docker-entrypoint-worker.sh QUEUE`, with Celery's pool of processes."""

    workload = "worker"

    def wait_ready(self) -> None:
        """Return when it consumes."""
        self.container.wait_for_log(" ready.")

    def publish(self, via: str = "delay", *, counted: bool = True) -> Shot:
        """Have the worker publish: in a task's code, or (`chain`) of itself when a task of a chain is done."""
        name, relay, following = token(), uuid4().hex, uuid4().hex
        start = submitted = time.monotonic()
        since = len(self.container.stderr)
        chain = [_signature(name, following)] if via == "chain" else None
        self._submit(relay, "notify_exported" if chain else "relay_export", name, chain)
        wanted = re.compile(rf"\[{relay}\] (?:(succeeded)[^\n']*(?:'([\w-]+)'|None)|raised|[iI]nternal)")
        # Until the worker has it, it is the consumer's connection that is waited for.
        if self._until(lambda: re.search(rf"\[{relay}\] received", self.container.stderr[since:])):
            start = time.monotonic()
        ended = self._until(lambda: wanted.search(self.container.stderr, since))
        seconds = time.monotonic() - start
        if ended is None:
            return self._keep(Shot(name, -1, seconds), counted=counted)
        if ended[1] is None:
            return self._keep(Shot(name, 500, seconds), counted=counted)
        ids = (following if chain else ended[2],)
        # When it was published is between that and the end: the log tells when it was looked at.
        return self._keep(Shot(name, 200, seconds, ids, start, submitted), counted=counted)

    def _submit(self, task: str, name: str, argument: str, chain: list[dict[str, Any]] | None = None) -> None:
        """Put a task into the worker's queue past the proxy, without Celery: this must not be what fails."""
        headers = {"lang": "py", "task": TASKS + name, "id": task, "root_id": task, "retries": 0}
        options = {"callbacks": None, "errbacks": None, "chain": chain, "chord": None}
        message = amqp.Message(
            json.dumps([[argument], {}, options]),
            application_headers={**headers, "argsrepr": f"('{argument}',)"},
            content_type="application/json",
            content_encoding="utf-8",
            correlation_id=task,
            delivery_mode=2,
        )
        with self.channel() as channel:
            channel.queue_declare(RELAY, durable=True, auto_delete=False)
            channel.basic_publish_confirm(message, routing_key=RELAY)


class Consumer(Worker):
    """A worker all of whose connections are struck: those that it consumes on, too."""

    tasks_only: ClassVar = False
    longest: ClassVar = 30.0  # one that doesn't consume never answers: then it isn't worth two minutes

    def queue(self, count: int) -> list[Submitted]:
        """Put tasks that publish, as most of Plane's do, into its queue, whether it consumes now or not."""
        submitted = [Submitted(token(), uuid4().hex, time.monotonic()) for _ in range(count)]
        for each in submitted:
            self._submit(each.task, "relay_export", each.token)
        return submitted

    def note(self, submitted: list[Submitted], since: int, until: float) -> None:
        """Keep what became of them: what had not run `until` then counts as hung, what failed as an error."""
        wanted = {each.task: each for each in submitted}
        ended = re.compile(r"\[([\w-]+)\] (?:succeeded[^\n']*'([\w-]+)'|raised|[iI]nternal)")
        found: dict[str, re.Match[str]] = {}
        while len(found) < len(wanted) and time.monotonic() < until:
            matches = ended.finditer(self.container.stderr[since:])
            found = {match[1]: match for match in matches if match[1] in wanted}
            time.sleep(POLL)
        for task, each in wanted.items():
            match, seconds = found.get(task), time.monotonic() - each.at
            status = -1 if match is None else 200 if match[2] else 500
            ids = (match[2],) if match and match[2] else ()
            self._keep(Shot(each.token, status, seconds, ids, each.at), counted=True)


class Beat(Publisher):
    """`docker-entrypoint-beat.sh`, which publishes of its own accord. The small Plane's beat names its messages."""

    workload = "beat"
    own_env: ClassVar = {"BEAT_INTERVAL": INTERVAL}

    def wait_ready(self) -> None:
        """Return when it has published."""
        self.container.wait_for_log("sent ")

    def publish(self, via: str = "schedule", *, counted: bool = True) -> Shot:
        """Wait for the next publish that begins, and for what comes of it. There is but one way."""
        del via
        since = len(self.container.stderr)
        begun = self._until(lambda: re.search(r"sending ([\w-]+)", self.container.stderr[since:]))
        start = time.monotonic()
        if begun is None:
            return self._keep(Shot("none", -1, self.patience), counted=counted)
        # Beat sends one after the other: the first outcome after `sending` is this one's.
        at = since + begun.end()
        ended = self._until(lambda: re.search(rf"(sent {begun[1]})|Message Error", self.container.stderr[at:]))
        status = -1 if ended is None else 200 if ended[1] else 500
        ids = (begun[1],) if status == 200 else ()
        return self._keep(Shot(begun[1], status, time.monotonic() - start, ids), counted=counted)


def _signature(argument: str, task: str) -> dict[str, Any]:
    """Celery's form of a task to publish when the one before it is done."""
    name = TASKS + "issue_export_task"
    rest = {"kwargs": {}, "options": {"task_id": task}, "subtask_type": None, "immutable": True}
    return {"task": name, "args": [argument], **rest}
