"""What reaches a release's queue in the broker, and when: a consumer of our own in place of Plane's workers.

It goes past the proxies. It must not run while a worker of the release does: each message goes to one of the two.
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

if TYPE_CHECKING:
    from lab.realplane.release import Release

QUEUE = "celery"
QUIET = 0.1  # seconds without a message, after which it looks whether it is over


@dataclass(frozen=True)
class Arrival:
    """A task's message, when it came (monotonic), and the mark of the request that it is of; empty if of none."""

    when: float
    task: str
    mark: str


class Arrivals:
    """Takes all tasks of a release's queue. Use it as a context manager; `seen` grows meanwhile."""

    def __init__(self, release: Release) -> None:
        self.seen: list[Arrival] = []
        self._connection = amqp.Connection(
            f"127.0.0.1:{release.broker.port}", "guest", "guest", virtual_host=release.name, connect_timeout=10
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._consume, name=f"arrivals-{release.name}", daemon=True)

    def __enter__(self) -> Self:
        self._connection.connect()
        channel = self._connection.channel()
        channel.queue_declare(QUEUE, durable=True, auto_delete=False)  # as Celery does: nobody may have published yet
        channel.basic_consume(QUEUE, no_ack=True, callback=self._take)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._connection.close()

    def tasks(self) -> Counter[str]:
        """How many messages of each task there were."""
        return Counter(arrival.task for arrival in self.seen)

    def marks(self) -> Counter[str]:
        """How often each marked request's task came."""
        return Counter(arrival.mark for arrival in self.seen if arrival.mark)

    def _consume(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=QUIET)

    def _take(self, message: amqp.Message) -> None:
        found = MARK.search(str(message.body))
        self.seen.append(Arrival(time.monotonic(), message.headers["task"], found[0] if found else ""))
