"""`python -m bench.effect.outage`: what a broker outage does to the API under several retry policies.

Clients ask for exports all through the outage while two others ask for something that publishes nothing. One container
with one gunicorn worker for each policy, one after the other, the order shuffled in each round.
"""

from __future__ import annotations

import argparse
import http.client
import random
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.effect.stack import Stack, vhosts
from lab import images
from lab.broker import Broker
from lab.cache import LabError, say
from lab.process import exit_on_sigterm

if TYPE_CHECKING:
    from lab.images import Image

POLICIES: dict[str, dict[str, Any]] = {
    "no retry": {"retry": {"max_retries": 0}},
    "3 retries": {"retry": {"max_retries": 3, "interval_start": 0.2, "interval_step": 0.5, "interval_max": 2.0}},
    "until 15 s (default)": {},
    "until 30 s": {"deadline": 30.0, "retry": {"max_retries": 60}},
}
# Seconds away, how, clients: a restart, and an outage longer than any policy with more clients than pooled connections.
OUTAGES = ((3.0, "refuse", 8), (20.0, "refuse", 60), (20.0, "deaf", 60))
NEIGHBOURS, PAUSE = 2, 0.02  # clients of other requests, and the seconds between theirs


@dataclass
class Row:
    """What was seen of one policy in one kind of outage, over all rounds; seconds."""

    good: list[float] = field(default_factory=list)
    bad: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    silent: int = 0


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.effect.outage", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    exit_on_sigterm()
    rows = {(outage, name): Row() for outage in OUTAGES for name in POLICIES}
    try:
        with Broker() as broker:
            vhosts(broker, [f"p{number}" for number in range(len(POLICIES))])
            image = images.build()
            for number in range(given.rounds):
                for outage in OUTAGES:
                    for name in random.sample(list(POLICIES), len(POLICIES)):
                        measure(broker, image, name, outage, rows[outage, name])
                say(f"round {number + 1} of {given.rounds} is done")
    except LabError as error:
        say(str(error))
        return 2
    print(f"\n{given.rounds} rounds; seconds, and ms for other requests. 5xx: with the cause in the log.")
    print(f"{'outage':34} {'policy':22} {'200':>5} {'5xx':>5} {'slowest':>8} {'lost':>5}  others: p50    p99    max")
    for (outage, name), row in rows.items():
        others = sorted(row.others)
        print(
            f"{outage[0]:g} s, {outage[1]}, {outage[2]} clients".ljust(34),
            f"{name:22} {len(row.good):5} {len(row.bad):5} {max(row.good + row.bad):8.1f} {row.silent:5}",
            f"{statistics.median(others) * 1000:12.1f} {others[int(len(others) * 0.99)] * 1000:6.0f}",
            f"{others[-1] * 1000:6.0f}",
        )
    return int(any(row.silent for row in rows.values()))


def measure(broker: Broker, image: Image, name: str, outage: tuple[float, str, int], row: Row) -> None:
    """Add one outage under one policy to `row`."""
    away, how, clients = outage
    with Stack("ours", broker, image, vhost=f"p{list(POLICIES).index(name)}", publish=POLICIES[name]) as stack:
        stack.warm()
        stack.purge()
        over = threading.Event()
        neighbours = [threading.Thread(target=visit, args=(stack.port, over, row.others)) for _ in range(NEIGHBOURS)]
        stack.proxy.door(how)
        stack.proxy.cut()
        for neighbour in neighbours:
            neighbour.start()
        back = threading.Timer(away, stack.proxy.heal)
        back.start()
        end = time.monotonic() + away
        stack.load(lambda: time.monotonic() > end, clients)
        over.set()
        for thread in (*neighbours, back):
            thread.join()
        row.good += [shot.seconds for shot in stack.shots if shot.status == 200]
        row.bad += [shot.seconds for shot in stack.shots if shot.status != 200]
        row.silent += stack.score().silent


def visit(port: int, over: threading.Event, times: list[float]) -> None:
    """Ask for what publishes nothing, again and again."""
    while not over.is_set():
        start = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        finally:
            connection.close()
        times.append(time.monotonic() - start)
        time.sleep(PAUSE)


if __name__ == "__main__":
    sys.exit(main())
