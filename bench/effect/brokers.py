"""`python -m bench.effect.brokers`: the essential cells on the RabbitMQ of today, with classic and with quorum queues.

On Plane's own packages and on the newest. Goes on where an earlier run was stopped.
"""

from __future__ import annotations

import argparse
import sys

from bench.effect.__main__ import run
from bench.effect.cells import BOTH, BY_NAME
from bench.effect.lab import Lab
from bench.effect.results import Results, failures, heading, report, rows
from bench.effect.versions import COMBINATIONS, PLANES
from lab.broker import Broker
from lab.cache import LabError, say
from lab.process import exit_on_sigterm
from lab.rabbitmq import KINDS

# What a broker has a part in: what it confirms, returns, refuses and rejects, and what it does when it is away.
CELLS = [
    BY_NAME[name]
    for name in (
        *("half-open", "write-reset", "refused", "no-queue", "alarm", "queue-full", "too-large"),
        *("broker-restart", "broker-kill-restart", "worker-half-open", "beat-half-open", "consumer-alarm"),
        *("alarm-disk", "no-permission", "no-exchange", "connection-limit", "vhost-deleted", "user-deleted"),
    )
]
PACKAGES = {str(each): each for each in (PLANES, COMBINATIONS[-1])}


def main() -> int:
    """Run what is missing, print the table; exit code 1 if anything failed or could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.effect.brokers", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--packages", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--count", type=int, default=5, help="publishes a cell")
    parser.add_argument("--again", action="store_true", help="measure anew what has been measured")
    given = parser.parse_args()
    exit_on_sigterm()
    lines, wrong = [["RabbitMQ", "packages", *heading(BOTH)]], []
    try:
        for kind in given.kinds:
            with Broker(kind=kind) as broker:
                for packages in (PACKAGES[name] for name in given.packages):
                    if missing := packages.missing():
                        wrong.append(f"{kind}, {packages}: {missing}")
                        continue
                    say(f"{kind}, {packages}")
                    results = Results(packages.lock, packages.python, kind)
                    with Lab(BOTH, lock=packages.lock, python=packages.python, broker=broker) as lab:
                        run(lab, CELLS, results, count=given.count, again=given.again)
                    lines += [[kind, str(packages), *row] for row in rows(results, BOTH, CELLS)]
                    wrong += [f"{kind}, {packages}: {each}" for each in failures(results, CELLS)]
    except LabError as error:
        say(str(error))
        return 2
    return report(lines, wrong)


if __name__ == "__main__":
    sys.exit(main())
