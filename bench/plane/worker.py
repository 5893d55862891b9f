"""A worker and a broker in a memory alarm, with issues queued: consuming is what ends an alarm.

Two cases that must not be mixed. On the connection that it has, a worker may go on consuming; one that has to connect
anew publishes while it does so, which the alarm holds up, upstream too: only an alarm that outlasts ours shows its end.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.plane.together import each
from bench.plane.traffic import sign_in
from lab.cache import LabError
from lab.process import Startable, wait_for
from lab.realplane.release import READY, WORKSPACE
from lab.realplane.storage import HOOK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.realplane.release import Release

ISSUES = 15
AFTERWARDS = 45.0  # seconds in which what was queued and what followed from it has to have run
BACK_OFF = 10.0  # seconds, a kubelet's first: a worker that has ended is started again after them
QUIET = 5.0  # seconds for what the making of a webhook sets off
HEADING = [
    "case",
    "release",
    "issues answered",
    "taken in the alarm",
    "exit codes",
    "tasks taken",
    "taken again",
    "webhooks",
]
# Of Celery's own log lines: Plane's logging hides "ready" and "succeeded", and writes what it lets through once more as
# JSON, in which no line begins so. Taken is not done, but acknowledged soon: it is what others needn't do any more.
READY_LINES = ("mingle: all alone", "mingle: sync complete")
TAKEN = re.compile(r"^\[.*\] Task ([\w.]+)\[([0-9a-f-]+)\] received", re.MULTILINE)
QUEUED = "plane.bgtasks.issue_activities_task.issue_activity"  # what the creation of an issue publishes


@dataclass(frozen=True)
class Case:
    """An alarm of so many seconds, in which the worker's connections are cut or not."""

    name: str
    seconds: float
    cut: bool


# Ours of before the spool noticed a cut after 15 s (a publish's deadline) and ended 35 s later: 50, and some more.
CASES = (Case("stays connected", 40.0, cut=False), Case("connects anew", 75.0, cut=True))


@dataclass
class Seen:
    """What was seen of one release's worker."""

    answers: Counter[int]
    during: int  # tasks of the queued kind that it took before the alarm was over
    exits: list[int]
    tasks: int
    again: int  # times that a task was taken beyond its first
    webhooks: int  # that were delivered, each counted once
    copies: int  # deliveries beyond the first of each

    def row(self) -> list[str]:
        """The release's columns of HEADING."""
        answers = ", ".join(f"{count} x {status}" for status, count in sorted(self.answers.items()))
        hooks = f"{self.webhooks} + {self.copies} again"
        exits = ", ".join(map(str, self.exits)) or "lived"
        return [answers, f"{self.during} of {ISSUES}", exits, str(self.tasks), str(self.again), hooks]


class Kept(Startable):
    """A release's worker that is kept running as a kubelet would keep it, and the logs of all of its runs."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.exits: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"kubelet-{release.name}", daemon=True)

    def start(self) -> None:
        """Start it and return when it takes tasks."""
        self._container = self.release.run("worker")
        wait_for(self._consumes, READY, "the worker is ready", need=[self._container.process])
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._container.close()

    def log(self) -> str:
        """What all of its runs have written."""
        return "".join(path.read_text(errors="replace") for path in sorted(self._container.state.glob("std*.*")))

    def signal(self, number: signal.Signals) -> None:
        """Send it to all of its processes."""
        for process in self._container.processes():
            os.kill(process.pid, number)

    def taken(self) -> Counter[tuple[str, str]]:
        """How often it took each task, by name and id."""
        return Counter(TAKEN.findall(self.log()))

    def _consumes(self) -> bool:
        return any(line in self.log() for line in READY_LINES)

    def _keep(self) -> None:
        while not self._over.wait(0.2):
            if not self._container.process.alive():
                self.exits.append(self._container.wait(1))
                if not self._over.wait(BACK_OFF):
                    self._container.start()


def measure(releases: Sequence[Release], case: Case) -> dict[str, Seen]:
    """Put the releases' workers through a case, at the same time; what was seen of each, by its release's name."""
    with ExitStack() as stack:
        kept = [Kept(release) for release in releases]
        each(kept, stack.enter_context)
        answers = each(kept, _queue)
        releases[0].broker.memory_alarm(on=True)  # which they share
        for worker in kept:
            if case.cut:
                worker.release.proxies["worker"].cut()
            worker.signal(signal.SIGCONT)
        time.sleep(case.seconds)
        during = [sum(name == QUEUED for name, _ in worker.taken()) for worker in kept]
        releases[0].broker.memory_alarm(on=False)
        time.sleep(AFTERWARDS)
        return {
            worker.release.name: _seen(worker, answered, taken)
            for worker, answered, taken in zip(kept, answers, during, strict=True)
        }


def _queue(worker: Kept) -> Counter[int]:
    """Have issues created while the worker is paused; how that was answered."""
    release = worker.release
    client = sign_in(release)
    hook = {"url": release.storage.url + HOOK, "issue": True}
    made = client.post(f"/api/workspaces/{WORKSPACE}/webhooks/", json=hook)
    if made.status_code not in (201, 409):  # 409: it is there, from an earlier case
        raise LabError(f"{release.name}: no webhook could be made: {made.status_code} {made.text}")
    release.storage.webhooks.clear()
    time.sleep(QUIET)
    worker.signal(signal.SIGSTOP)
    path = f"/api/workspaces/{WORKSPACE}/projects/{release.seed.project}/issues/"
    issues = [{"name": f"queued {number}", "assignee_ids": [release.seed.member]} for number in range(ISSUES)]
    return Counter(client.post(path, json=issue).status_code for issue in issues)


def _seen(worker: Kept, answers: Counter[int], during: int) -> Seen:
    runs = worker.taken()
    hooks = Counter(worker.release.storage.webhooks)
    return Seen(
        answers=answers,
        during=during,
        exits=worker.exits,
        tasks=len(runs),
        again=sum(count - 1 for count in runs.values()),
        webhooks=len(hooks),
        copies=hooks.total() - len(hooks),
    )


def worse(one: Seen, other: Seen) -> list[str]:
    """What one did worse than the other: an end, less done in the alarm or by the end, or more done again."""
    ends = [f"the worker ended with exit code {code}" for code in one.exits]
    less = [
        f"{what}: {mine}, and {its} by the other"
        for what, mine, its in (
            ("tasks taken in the alarm", one.during, other.during),
            ("webhooks delivered", one.webhooks, other.webhooks),
        )
        if mine < its
    ]
    more = [
        f"{what}: {mine}, and {its} by the other"
        for what, mine, its in (
            ("tasks taken again", one.again, other.again),
            ("webhooks delivered again", one.copies, other.copies),
        )
        if mine > its
    ]
    return ends + less + more
