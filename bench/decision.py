"""`python -m bench.decision`: what reading, deciding and answering take in the webhook's process, without a network.

In a loop, microseconds, the best of the runs: what else the machine does only makes a run longer.
"""

from __future__ import annotations

import argparse
import gc
import platform
import sys
import time
from typing import TYPE_CHECKING

from bench.peers import pod
from webhook import admission
from webhook.admission import injection, review
from webhook.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

# More than decisions are kept for: asked about in turn, each of them is new each time.
OTHERS = 1000


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.decision", description=__doc__)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--times", type=int, default=300, help="in each run")
    given = parser.parse_args()
    gc.freeze()  # as `serve` does with what it has imported
    print(f"| us, Python {platform.python_version()} | best of {given.runs} runs of {given.times} |\n|-|-|")
    for what, measured in measures().items():
        print(f"| {what} | {best(measured, given.runs, given.times) * 1e6:.1f} |", flush=True)
    return 0


def measures() -> dict[str, Callable[[], object]]:
    """What is measured, by what it is called."""
    settings, seen = Settings(), review_of()
    profile, read, large = settings.profile("plane"), parsed(seen), pod.review(pod.pod(1500))
    # A new version of Plane's image, as each release has one, and the same pod in all else.
    others = [parsed(review_of(f"v2.6.1-{number}")) for number in range(OTHERS)]
    turn = iter(others)

    def another() -> None:
        nonlocal turn
        it = next(turn, None)
        if it is None:
            turn = iter(others)
            it = next(turn)
        admission.decide(it, profile, size=len(seen))

    planned = admission.decide(read, profile, size=len(seen)).injection
    assert planned is not None
    return {
        "parsing a review": lambda: review.parse(seen),
        "deciding about a pod of a workload that was seen before": lambda: admission.decide(
            read, profile, size=len(seen)
        ),
        "deciding about another one": another,
        "making a patch that was not made before": lambda: review.ending(injection.operations(planned)),
        "the whole answer to a pod of a workload that was seen before": lambda: admission.answer(seen, settings),
        "parsing a review of a pod with 1,500 variables": lambda: review.parse(large),
        "the whole answer to it": lambda: admission.answer(large, settings),
    }


def review_of(version: str = "v2.6.1") -> bytes:
    """The review of the creation of an API pod of this version of Plane."""
    it = pod.pod()
    it["spec"]["containers"][0]["image"] = f"registry.example/makeplane/backend-commercial:{version}"
    return pod.review(it)


def parsed(body: bytes) -> review.Pod:
    """The pod of a review."""
    _, it, _ = review.parse(body)
    assert it is not None
    return it


def best(measured: Callable[[], object], runs: int, times: int) -> float:
    """Seconds that one call takes."""
    found = []
    for _ in range(runs):
        begun = time.perf_counter()
        for _ in range(times):
            measured()
        found.append((time.perf_counter() - begun) / times)
    return min(found)


if __name__ == "__main__":
    sys.exit(main())
