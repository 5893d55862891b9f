"""A broker in trouble under load: what the clients of each release see, what it holds meanwhile, what arrives."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.effect.trouble import Kubelet, flap
from bench.plane.arrivals import Arrivals
from bench.plane.traffic import NO_ANSWER, Traffic
from lab.container import answers
from lab.faults import SWALLOW
from lab.meanwhile import Meanwhile
from lab.process import wait_for
from lab.realplane.release import READY, Release

if TYPE_CHECKING:
    from collections.abc import Collection

    from bench.plane.traffic import Kind, Request
    from lab.broker import Broker

BEFORE, AFTER = 2.0, 3.0  # seconds of the same load before the trouble and after it
SAMPLE = 0.25  # seconds between two looks at what a release holds
SETTLE = 15.0  # seconds after the last answer in which a task that was answered 200 may still come
HEADING = [
    *("trouble", "release", "export 200/other/none", "slowest", "token GET 200/other/none", "p50", "p99", "slowest"),
    *("other GET 200/other/none", "p99", "slowest", "PG conns", "threads", "lost silently: exports", "token logs"),
    *("twice", "first after", "out of order"),
]


@dataclass(frozen=True)
class Trouble:
    """What happens to the broker, for how long, under which load."""

    name: str
    seconds: float
    exporters: int
    token_rate: float
    begin: Callable[[Sequence[Release]], None]
    end: Callable[[Sequence[Release]], None]
    lasts: Callable[[Broker, float], None] = lambda _broker, seconds: time.sleep(seconds)
    strike: Callable[[Release], None] | None = None  # done to each release after a third of the time


@dataclass(frozen=True)
class Seen:
    """What was seen of one release. `struck` and `healed` are the trouble's bounds (monotonic)."""

    requests: list[Request]
    arrivals: Arrivals
    connections: int  # to PostgreSQL, at most
    threads: int  # of all the API's processes, at most
    struck: float
    healed: float

    def row(self) -> list[str]:
        """The release's columns of HEADING, from the third on."""
        marks = self.arrivals.marks()
        token, session = self.times("token"), self.times("session")
        return [
            self.answers("export"),
            f"{max(self.times('export'), default=0):.1f}",
            self.answers("token"),
            f"{quantile(token, 0.5):.2f}",
            f"{quantile(token, 0.99):.2f}",
            f"{max(token, default=0):.1f}",
            self.answers("session"),
            f"{quantile(session, 0.99):.2f}",
            f"{max(session, default=0):.1f}",
            str(self.connections),
            str(self.threads),
            str(self.lost("export")),
            str(self.lost("token")),
            str(sum(count - 1 for count in marks.values())),
            self.first(),
            str(self.out_of_order()),
        ]

    def of(self, kind: Kind) -> list[Request]:
        """The requests of a kind that were being answered while the trouble lasted."""
        return [
            each for each in self.requests if each.kind == kind and self.struck <= each.end and each.start < self.healed
        ]

    def times(self, kind: Kind) -> list[float]:
        """How long they took, in seconds."""
        return [each.seconds for each in self.of(kind)]

    def answers(self, kind: Kind) -> str:
        """How many of them were answered 200, how many otherwise, and how many not at all."""
        counts = Counter({200: "200", NO_ANSWER: "none"}.get(each.status, "other") for each in self.of(kind))
        return f"{counts['200']}/{counts['other']}/{counts['none']}"

    def lost(self, kind: Kind) -> int:
        """How many requests of a kind, the whole time, were answered 200 and their task never came."""
        marks = self.arrivals.marks()
        return sum(each.kind == kind and each.status == 200 and not marks[each.mark] for each in self.requests)

    def first(self) -> str:
        """Seconds from the end of the trouble to the first task; a dash if none came."""
        after = [arrival.when for arrival in self.arrivals.seen if arrival.mark and arrival.when > self.healed]
        return f"{min(after) - self.healed:.1f}" if after else "-"

    def out_of_order(self) -> int:
        """How many tasks came after one that was asked for only when they had been answered."""
        asked = {each.mark: each for each in self.requests if each.mark}
        latest, count = 0.0, 0
        for arrival in self.arrivals.seen:
            if (request := asked.pop(arrival.mark, None)) is not None:  # where it comes twice, its first time counts
                count += request.end < latest
                latest = max(latest, request.start)
        return count


class Held(Meanwhile):
    """The most that a release held at a time, of PostgreSQL's connections and of threads. A context manager."""

    def __init__(self, release: Release) -> None:
        super().__init__(f"held-{release.name}")
        self.connections = self.threads = 0
        self._release = release

    def work(self) -> None:
        """Look, again and again."""
        while not self.over.wait(SAMPLE):
            self.connections = max(self.connections, self._release.postgres.connections())
            threads = [len(list(Path(f"/proc/{each.pid}/task").glob("*"))) for each in self._release.api.processes()]
            self.threads = max(self.threads, sum(threads))


def measure(releases: Sequence[Release], trouble: Trouble) -> dict[str, Seen]:
    """Put the releases through it, all at the same time; what was seen of each, by its name."""
    return asyncio.run(_measure(releases, trouble))


async def _measure(releases: Sequence[Release], trouble: Trouble) -> dict[str, Seen]:
    with ExitStack() as stack:
        arrivals = [stack.enter_context(Arrivals(release)) for release in releases]
        held = [stack.enter_context(Held(release)) for release in releases]
        traffic = [Traffic(release, trouble.exporters, trouble.token_rate) for release in releases]
        running = asyncio.gather(*(each.run() for each in traffic))
        await asyncio.sleep(BEFORE)
        struck = time.monotonic()
        await asyncio.to_thread(trouble.begin, releases)
        with ExitStack() as struck_too:
            if trouble.strike:
                for release in releases:
                    struck_too.enter_context(Kubelet(release, trouble.strike, trouble.seconds / 3))
            await asyncio.to_thread(trouble.lasts, releases[0].broker, trouble.seconds)
            await asyncio.to_thread(trouble.end, releases)
            healed = time.monotonic()
            if trouble.strike:
                await asyncio.gather(*(asyncio.to_thread(_wait_ready, release) for release in releases))
        await asyncio.sleep(AFTER)
        for each in traffic:
            each.stop()
        await running
        found = {
            release.name: Seen(made.requests, came, most.connections, most.threads, struck, healed)
            for release, made, came, most in zip(releases, traffic, arrivals, held, strict=True)
        }
        await asyncio.to_thread(_settle, found.values())
    return found


def _settle(found: Collection[Seen]) -> None:
    """Return when each task that somebody was promised has come, or when it has had its time."""
    end = time.monotonic() + SETTLE
    while time.monotonic() < end and any(seen.lost("export") + seen.lost("token") for seen in found):
        time.sleep(SAMPLE)


def quantile(values: Sequence[float], part: float) -> float:
    """Return the value that `part` of them are below; 0 if there are none."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)] if values else 0.0


def _wait_ready(release: Release) -> None:
    """Return when its API answers, whichever container that is by then, and however often it is started again."""
    wait_for(lambda: answers(release.port), READY, f"{release.name}'s API answers")


def _kill_workers(release: Release) -> None:
    """SIGKILL, as for lack of memory: gunicorn starts others."""
    for process in release.api.processes()[1:]:
        os.kill(process.pid, signal.SIGKILL)


def _healthy(_: Sequence[Release]) -> None:
    """Nothing happens."""


def _refuse(releases: Sequence[Release]) -> None:
    for release in releases:
        release.proxies["api"].refuse()


def _part(releases: Sequence[Release]) -> None:
    for release in releases:
        release.proxies["api"].flow(up=SWALLOW, down=SWALLOW, fresh=True)


def _heal(releases: Sequence[Release]) -> None:
    for release in releases:
        release.proxies["api"].heal()


def _alarm(releases: Sequence[Release]) -> None:
    releases[0].broker.memory_alarm(on=True)  # which they share


def _calm(releases: Sequence[Release]) -> None:
    releases[0].broker.memory_alarm(on=False)


def _disk_alarm(releases: Sequence[Release]) -> None:
    releases[0].broker.disk_alarm(on=True)


def _disk_calm(releases: Sequence[Release]) -> None:
    releases[0].broker.disk_alarm(on=False)


def _kill(releases: Sequence[Release]) -> None:
    releases[0].broker.kill()


def _stop(releases: Sequence[Release]) -> None:
    releases[0].broker.stop()


def _start(releases: Sequence[Release]) -> None:
    releases[0].broker.start()


# Loads under which the real Plane showed what our small one did not: many token reads, and few exports beside them.
TROUBLES = (
    Trouble("healthy", 15, 6, 4, _healthy, _healthy),
    Trouble("refused-3", 3, 6, 4, _refuse, _heal),
    Trouble("refused-10", 10, 6, 4, _refuse, _heal),
    Trouble("refused-30", 30, 6, 4, _refuse, _heal),
    Trouble("refused-30-reads", 30, 2, 6, _refuse, _heal),
    Trouble("refused-300", 300, 2, 6, _refuse, _heal),
    Trouble("partition-30", 30, 2, 6, _part, _heal),
    Trouble("alarm-35", 35, 4, 8, _alarm, _calm),
    Trouble("alarm-disk-35", 35, 4, 8, _disk_alarm, _disk_calm),
    Trouble("killed-again-60", 60, 2, 6, _kill, _start, lasts=flap),
    Trouble("upgraded-5", 5, 2, 6, _stop, _start),
    Trouble("refused-30-workers-killed", 30, 2, 6, _refuse, _heal, strike=_kill_workers),
    Trouble("refused-90-pod-replaced", 90, 2, 6, _refuse, _heal, strike=Release.replace),
)
