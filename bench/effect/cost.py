"""`python -m bench.effect.cost`: what not losing tasks costs in latency and, with rotation on and off, throughput.

Contenders are interleaved in shuffled rounds, so that whatever else the machine does meets all alike. Latency is
that of the whole request: what differs between contenders is the publish. Beside them stand what the way to the broker
costs anybody: a round trip to it, and a confirmed publish by py-amqp with nothing of Celery and kombu around it.
"""

from __future__ import annotations

import argparse
import http
import random
import statistics
import sys
import time
from itertools import chain
from typing import TYPE_CHECKING

import amqp

from bench.effect.lab import Lab, each
from lab.cache import LabError, say
from lab.faults import PASS, Flow
from lab.process import exit_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.effect.stack import Stack

CONTENDERS = ["upstream", "asked", "ours", "ours-rotating"]
BATCH = 40  # publishes of a contender in one round
WARM_UP = 60  # requests: until a fresh worker has its threads and imports
CLIENTS, SPAN = 16, 4.0  # of a round of throughput: clients, seconds
BASELINE = "baseline"  # a queue
BODY = b"x" * 300  # bytes: about what a task's message has


def main() -> int:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.effect.cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error("--rounds has to be 2 or more: quartiles of one round don't exist")
    exit_on_sigterm()
    try:
        with Lab(CONTENDERS) as lab:
            stacks = lab.stacks("direct")
            each(stacks, lambda stack: [stack.publish(counted=False) for _ in range(WARM_UP)])
            latency(stacks, given.rounds, "healthy, on loopback")
            proxied = lab.stacks("default")
            each(proxied, lambda stack: [stack.publish(counted=False) for _ in range(WARM_UP)])
            latency(proxied, given.rounds, "healthy, through the proxy")
            slow = Flow(delay=0.0025)
            for stack in proxied:
                stack.proxy.flow(up=slow, down=slow, fresh=True)
            latency(proxied, given.rounds, "2.5 ms each way, through the proxy")
            for stack in proxied:
                stack.proxy.flow(up=PASS, down=PASS, fresh=True)
            throughput(stacks, max(given.rounds // 3, 1))
    except LabError as error:
        say(str(error))
        return 2
    return 0


def latency(stacks: list[Stack], rounds: int, title: str) -> None:
    """Print median and p99 of one request that publishes, one at a time, and what it takes more than upstream."""
    deeds = {stack.contender: (lambda stack=stack: _timed(stack)) for stack in stacks}
    with stacks[0].channel(stacks[0].broker_port) as channel:
        channel.queue_declare(BASELINE, durable=True, auto_delete=False)
        message = amqp.Message(BODY, delivery_mode=2)
        deeds["(round trip)"] = lambda: _clock(lambda: channel.basic_qos(0, 1, a_global=False))
        deeds["(amqp confirm)"] = lambda: _clock(
            lambda: channel.basic_publish_confirm(message, routing_key=BASELINE, mandatory=True)
        )
        times: dict[str, list[list[float]]] = {name: [] for name in deeds}
        for _ in range(rounds):
            for name in random.sample(list(deeds), len(deeds)):
                times[name].append([ms for ms in (deeds[name]() for _ in range(BATCH)) if ms is not None])
    base = [statistics.median(batch) for batch in times[stacks[0].contender]]
    print(f"\n{title}: ms a request that publishes, {rounds} rounds of {BATCH}")
    for name, batches in times.items():
        every = sorted(chain.from_iterable(batches))
        # Round by round: what else the machine does differs more from round to round than contenders do.
        added = [statistics.median(batch) - of_base for batch, of_base in zip(batches, base, strict=True)]
        low, middle, high = statistics.quantiles(added, n=4)
        over = "" if name.startswith("(") else f"  over upstream {middle:+.2f} (quartiles {low:+.2f} to {high:+.2f})"
        print(f"  {name:14} median {statistics.median(every):6.2f}  p99 {every[int(len(every) * 0.99)]:6.2f}{over}")


def _timed(stack: Stack) -> float | None:
    shot = stack.publish(counted=False)
    return shot.seconds * 1000 if shot.status == http.HTTPStatus.OK else None


def _clock(deed: Callable[[], object]) -> float:
    start = time.perf_counter()
    deed()
    return (time.perf_counter() - start) * 1000


def throughput(stacks: list[Stack], rounds: int) -> None:
    """Print requests a second and the slowest request of a load of publishing clients."""
    rates: dict[str, list[float]] = {stack.contender: [] for stack in stacks}
    slowest: dict[str, float] = {stack.contender: 0.0 for stack in stacks}
    failed: dict[str, int] = {stack.contender: 0 for stack in stacks}
    for _ in range(rounds):
        for stack in random.sample(stacks, len(stacks)):
            stack.purge()
            end = time.monotonic() + SPAN
            stack.load(lambda end=end: time.monotonic() > end, CLIENTS, pause=0)
            name = stack.contender
            rates[name].append(sum(shot.status == 200 for shot in stack.shots) / SPAN)
            failed[name] += sum(shot.status != 200 for shot in stack.shots)
            slowest[name] = max(slowest[name], *(shot.seconds for shot in stack.shots))
            stack.purge()
    print(f"\nthroughput: requests that publish, {CLIENTS} clients, one worker, {rounds} rounds of {SPAN:g} s")
    for name, found in rates.items():
        print(
            f"  {name:14} {statistics.median(found):6.0f} a second ({min(found):.0f} to {max(found):.0f})"
            f"  slowest {slowest[name] * 1000:.0f} ms  failed {failed[name]}"
        )


if __name__ == "__main__":
    sys.exit(main())
