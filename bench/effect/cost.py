"""`python -m bench.effect.cost`: what not losing tasks costs in latency and, with rotation on and off, throughput.

Contenders are interleaved in shuffled rounds, so that whatever else the machine does meets all alike. Latency is
that of the whole request: what differs between contenders is the publish.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from itertools import chain
from typing import TYPE_CHECKING

from bench.effect.lab import Lab, each
from tests.lab.cache import LabError, say
from tests.lab.faults import PASS, Flow
from tests.lab.process import exit_on_sigterm

if TYPE_CHECKING:
    from bench.effect.stack import Stack

CONTENDERS = ["upstream", "asked", "ours", "ours-rotating"]
BATCH = 40  # publishes of a contender in one round
WARM_UP = 60  # requests: until a fresh worker has its threads and imports
CLIENTS, SPAN = 16, 4.0  # of a round of throughput: clients, seconds


def main() -> int:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.effect.cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
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
    """Print median, p99 and the spread of the rounds' medians of one request that publishes, one at a time."""
    times: dict[str, list[list[float]]] = {stack.contender: [] for stack in stacks}
    for _ in range(rounds):
        for stack in random.sample(stacks, len(stacks)):
            batch = [stack.publish(counted=False) for _ in range(BATCH)]
            times[stack.contender].append([shot.seconds * 1000 for shot in batch if shot.status == 200])
    base = statistics.median(chain.from_iterable(times[stacks[0].contender]))
    print(f"\n{title}: ms a request that publishes, {rounds} rounds of {BATCH}")
    for name, batches in times.items():
        every = sorted(chain.from_iterable(batches))
        medians = [statistics.median(batch) for batch in batches]
        print(
            f"  {name:14} median {statistics.median(every):6.2f} ({statistics.median(every) - base:+.2f})"
            f"  p99 {every[int(len(every) * 0.99)]:6.2f}  medians of rounds {min(medians):.2f} to {max(medians):.2f}"
        )


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
