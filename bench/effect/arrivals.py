"""What arrives in a stack's queue and when, seen by a consumer of the lab's own.

It consumes past the fault proxy, so what breaks the publisher doesn't break this; when the broker itself goes it comes
back with it. Each message is acknowledged: what a crash of the broker gives back is known by its mark, and not a copy.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import amqp

from bench.effect.stack import QUEUE
from lab.meanwhile import Meanwhile

if TYPE_CHECKING:
    from bench.effect.stack import Stack

LOOK = 0.2  # seconds


@dataclass(frozen=True)
class Arrival:
    """One message, by the monotonic clock."""

    at: float
    task: str
    tokens: frozenset[str]
    again: bool  # the broker gives it once more, after its own crash: not the publisher's doing


class Arrivals(Meanwhile):
    """A consumer of a stack's queue. Use it as a context manager."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(f"arrivals-{stack.contender}")
        self.stack = stack
        self.seen: list[Arrival] = []

    def settle(self, wanted: set[str], quiet: float) -> None:
        """Return when all these tokens have arrived, or when nothing has for `quiet` seconds."""
        begun = time.monotonic()
        while not wanted <= self.tokens():
            last = max([begun, *(each.at for each in self.seen[-1:])])
            if time.monotonic() - last > quiet:
                return
            time.sleep(LOOK)

    def tokens(self) -> set[str]:
        """The tokens of all that has arrived."""
        return set().union(*(each.tokens for each in list(self.seen)))

    def copies(self) -> int:
        """How many messages arrived that had arrived before."""
        known: set[str] = set()
        copies = 0
        for each in self.seen:
            copies += each.task in known and not each.again
            known.add(each.task)
        return copies

    def work(self) -> None:
        """Consume."""
        while not self.over.is_set():
            with suppress(OSError, amqp.AMQPError), self.stack.channel() as channel:
                channel.queue_declare(QUEUE, durable=True, auto_delete=False)
                channel.basic_consume(QUEUE, callback=self._take)
                while not self.over.is_set():
                    with suppress(TimeoutError):
                        channel.connection.drain_events(timeout=LOOK)
            self.over.wait(LOOK)

    def _take(self, message: amqp.Message) -> None:
        named = frozenset(re.findall(r"\bt\d+\b", message.headers["argsrepr"]))
        again = bool(message.delivery_info["redelivered"])
        self.seen.append(Arrival(time.monotonic(), message.headers["id"], named, again))
        message.channel.basic_ack(message.delivery_tag)
