"""`python -m bench.upgrade`: requests that fail while Plane is upgraded by `helm upgrade --wait` on a real node.

The same release in turns with this webhook and without it, as Plane's chart has it: no preStop. gunicorn takes nothing
after TERM, and kube-proxy leads to the pod that leaves for a moment more; each request opens a connection of its own.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from contextlib import ExitStack
from itertools import count

from lab import images
from lab.broker import Broker
from lab.cache import LabError, say
from lab.load import Steady
from lab.node import Node
from lab.node import webhook as ours
from lab.node.plane import API, INJECTED, QUICK, Release
from lab.pods import SHORT
from lab.postgres import Postgres
from lab.process import exit_on_sigterm, wait_for
from lab.redis import Redis

READS, EXPORTS = 10, 5  # a second
AFTER = 5.0  # seconds of load when the old pod has been told to leave
LABELS = {"without": "plane-webhook/inject-", "with": ours.LABEL}

_different = count(1000)


def main() -> int:
    """Measure and print."""
    exit_on_sigterm()
    parser = argparse.ArgumentParser(prog="python -m bench.upgrade", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="upgrades of each kind")
    rounds = parser.parse_args().rounds
    try:
        with ExitStack() as stack:
            node, broker, redis, postgres = (
                stack.enter_context(each) for each in (Node(), Broker(), Redis(), Postgres())
            )
            ours.install(node)
            release = Release(node, node.namespace("plane"), broker, redis, postgres)
            release.prepare(images.build())
            upgrade(release)
            calls, failed = Counter[str](), Counter[str]()
            print("| plane-webhook | requests | failed |\n|-|-|-|", flush=True)
            for number in range(rounds):
                for kind in LABELS if number % 2 else reversed(LABELS):  # so half of the time no change is between two
                    asked, errors = measured(release, kind)
                    calls[kind] += asked
                    failed[kind] += len(errors)
                    print(f"| {kind} | {asked} | {len(errors)}: {', '.join(sorted(errors))} |", flush=True)
            for kind in LABELS:
                print(f"| {kind}, all {rounds} | {calls[kind]} | {failed[kind]} |")
    except LabError as error:
        say(str(error))
        return 2
    return 0


def measured(release: Release, kind: str) -> tuple[int, list[str]]:
    """Return how many requests were sent during an upgrade from that kind of pods to the same kind, and what failed."""
    release.node.kubectl("label", "namespace", release.namespace, LABELS[kind], "--overwrite")
    if bool(release.pod(API)["metadata"].get("annotations", {}).get(SHORT)) != (kind == "with"):
        upgrade(release)
    exports: list[str] = []
    reading = Steady(lambda: release.http.get("/api/users/me/").raise_for_status(), READS)
    exporting = Steady(lambda: exports.append(release.export()), EXPORTS)
    with reading, exporting:
        upgrade(release)
        time.sleep(AFTER)
    release.wait_completed(exports)
    return reading.calls + exporting.calls, reading.failures + exporting.failures


def upgrade(release: Release) -> None:
    """Have every pod replaced. A Job's template can't be changed: so each upgrade's values are others."""
    release.upgrade("dash", timestamp=True, memoryLimit=f"{next(_different)}Mi", **QUICK)
    for workload in INJECTED:
        wait_for(lambda workload=workload: len(release.pods(workload)) == 1, 60, "the old pods leave")


if __name__ == "__main__":
    sys.exit(main())
