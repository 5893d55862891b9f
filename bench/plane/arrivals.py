"""What reaches a release's queue in the broker, and when: a consumer of our own in place of Plane's workers.

It goes past the proxies, and comes back when the broker itself has been away. It must not run while a worker of the
release does: each message goes to one of the two.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import amqp

from bench.plane.traffic import MARK
from lab.cache import LabError
from lab.meanwhile import Meanwhile

if TYPE_CHECKING:
    from lab.realplane.release import Release

QUEUE = "celery"
QUIET = 0.1  # seconds without a message, after which it looks whether it is over; and between two connections
CONNECT = 10.0  # seconds


@dataclass(frozen=True)
class Arrival:
    """A task's message, when it came (monotonic), and the mark of the request that it is of; empty if of none.

    `again`: the broker gives it once more, after its own end, which is not the publisher's doing.
    """

    when: float
    task: str
    mark: str
    again: bool = False


class Arrivals(Meanwhile):
    """Takes all tasks of a release's queue. Use it as a context manager; `seen` grows meanwhile."""

    def __init__(self, release: Release) -> None:
        super().__init__(f"arrivals-{release.name}")
        self.seen: list[Arrival] = []
        self._release, self._there = release, threading.Event()

    def __enter__(self) -> Self:
        super().__enter__()
        if not self._there.wait(CONNECT):
            raise LabError(f"no consumer for {self._release.name} within {CONNECT:g} s: is its broker up?")
        return self

    def tasks(self) -> Counter[str]:
        """How many messages of each task there were."""
        return Counter(arrival.task for arrival in self.seen)

    def marks(self) -> Counter[str]:
        """How often each marked request's task came."""
        marks: Counter[str] = Counter()
        for arrival in self.seen:
            marks[arrival.mark] += not (arrival.again and marks[arrival.mark])
        del marks[""]
        return marks

    def work(self) -> None:
        """Consume."""
        while not self.over.is_set():
            with suppress(OSError, amqp.AMQPError), self._connection() as connection:
                channel = connection.channel()
                channel.queue_declare(QUEUE, durable=True, auto_delete=False)  # as Celery does: it may not be there yet
                channel.basic_consume(QUEUE, callback=self._take)
                self._there.set()
                while not self.over.is_set():
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=QUIET)
            self.over.wait(QUIET)

    def _connection(self) -> amqp.Connection:
        address = f"127.0.0.1:{self._release.broker.port}"
        return amqp.Connection(address, "guest", "guest", virtual_host=self._release.name, connect_timeout=CONNECT)

    def _take(self, message: amqp.Message) -> None:
        found = MARK.search(str(message.body))
        again = message.delivery_info["redelivered"]
        self.seen.append(Arrival(time.monotonic(), message.headers["task"], found[0] if found else "", again))
        message.channel.basic_ack(message.delivery_tag)
