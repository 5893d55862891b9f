"""Workers and beat as publishers: what a stack's publish is there, and how its outcome is told.

A worker runs a task that publishes another one. It is *silently lost* when the worker says that the first succeeded
and the second is in no queue; of beat, when it says that a message was sent and that is in no queue. Faults strike
only the connections that tasks are published on; the worker's own ones stay good.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from itertools import count
from uuid import uuid4

import amqp

from bench.effect.contenders import RELAY
from bench.effect.stack import Shot, Stack

POLL = 0.005  # seconds
BEATS = "0.5"  # seconds from one of beat's publishes to the next
TASKS = "plane.bgtasks.export_task."
_tokens = count(1)
_FAILED = re.compile(r"(?:raised unexpected|Internal Error|internal error|Message Error): ?(.*)")
_EXCEPTION = re.compile(r"^([a-z_]\w*(?:\.\w+)+|[A-Z]\w+)(?:: .*)?$", re.MULTILINE)


class Publisher(Stack):
    """What both have in common: all is told by the log."""

    def _await(self, pattern: str, since: int) -> re.Match[str] | None:
        """Return the first match in the log from `since` on; None if none comes in time."""
        end = time.monotonic() + self.patience
        wanted = re.compile(pattern)
        while time.monotonic() < end:
            if found := wanted.search(self._log(), since):
                return found
            time.sleep(POLL)
        return None

    def _log(self) -> str:
        return self.container.stderr

    def causes(self, log: str) -> list[str]:
        """Return, for each failure that the log tells of, the exception that ends its traceback."""
        parts = re.split(r"raised unexpected: |Message Error: |nternal error: ", log)[1:]
        return [named[-1] for part in parts if (named := _EXCEPTION.findall(part.split("\n[20")[0]))]


class Worker(Publisher):
    """`docker-entrypoint-worker.sh QUEUE` with Celery's pool of processes."""

    workload = "worker"

    def wait_ready(self) -> None:
        """Return when it consumes."""
        self.container.wait_for_log(" ready.")

    def publish(self, via: str = "delay", *, counted: bool = True) -> Shot:
        """Have the worker publish: in a task's code, or (`chain`) by itself when a task of a chain is done."""
        token, relay, last = f"t{next(_tokens)}", uuid4().hex, uuid4().hex
        start, since = time.monotonic(), len(self.container.stderr)
        options: dict[str, object] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        if via == "chain":
            link = {"task": f"{TASKS}issue_export_task", "args": [token], "kwargs": {}, "options": {"task_id": last}}
            options["chain"] = [{**link, "subtask_type": None, "immutable": True}]
        self._submit(relay, "notify_exported" if via == "chain" else "relay_export", token, options)
        found = self._await_end(relay, since)
        ids: tuple[str, ...] = ()
        status = -1
        if found is not None:
            status = 200 if found[1] == "succeeded" else 500
            if status == 200:
                ids = (last if via == "chain" else found[2],)
        shot = Shot(token, status, time.monotonic() - start, ids)
        if counted:
            self.shots.append(shot)
        return shot

    def _await_end(self, task: str, since: int) -> re.Match[str] | None:
        wanted = re.compile(rf"\[{task}\] (succeeded|raised|[iI]nternal)[^\n']*(?:'([\w-]+)')?")
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            if found := wanted.search(self.container.stderr, since):
                return found
            time.sleep(POLL)
        return None

    def _submit(self, task: str, name: str, token: str, options: dict[str, object]) -> None:
        """Put a task into the worker's queue, past the proxy, by AMQP alone: this must not be what fails."""
        headers = {
            **{"lang": "py", "task": TASKS + name, "id": task, "root_id": task, "parent_id": None, "group": None},
            **{"argsrepr": f"('{token}',)", "kwargsrepr": "{}", "origin": "lab", "retries": 0, "shadow": None},
            **{"eta": None, "expires": None, "timelimit": [None, None]},
        }
        body = json.dumps([[token], {}, options])
        message = amqp.Message(
            body,
            application_headers=headers,
            content_type="application/json",
            content_encoding="utf-8",
            correlation_id=task,
            delivery_mode=2,
        )
        with self._channel() as channel:
            channel.queue_declare(RELAY, durable=True, auto_delete=False)
            channel.basic_publish_confirm(message, routing_key=RELAY)


class Beat(Publisher):
    """`docker-entrypoint-beat.sh` with a short interval: it publishes of its own accord."""

    workload = "beat"

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs, env={"BEAT_INTERVAL": BEATS})

    def wait_ready(self) -> None:
        """Return when it has published."""
        self.container.wait_for_log("sent ")

    def publish(self, via: str = "delay", *, counted: bool = True) -> Shot:
        """Wait for the next publish that begins, and for what becomes of it. There is but one way."""
        del via
        before, errors = self._log(), self.container.stderr.count("Message Error")
        begun = self._wait(lambda: re.search(r"sending ([\w-]+)", self._log()[len(before) :]))
        if begun is None:
            token, status, seconds = "none", -1, self.patience
        else:
            token, start = begun[1], time.monotonic()
            ended = self._wait(
                lambda: f"sent {token}" in self._log()
                or self.container.stderr.count("Message Error") > errors
            )
            status = -1 if not ended else 200 if f"sent {token}" in self._log() else 500
            seconds = time.monotonic() - start
        shot = Shot(token, status, seconds, (token,) if status == 200 else ())
        if counted:
            self.shots.append(shot)
        return shot

    def _wait(self, what):
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            if found := what():
                return found
            time.sleep(POLL)
        return None
