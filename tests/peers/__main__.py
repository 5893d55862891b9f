"""`python -m tests.peers`: the unit tests of Celery, kombu and py-amqp, as they are and with our patches."""

from __future__ import annotations

import argparse
import sys

from lab.cache import LabError, say
from lab.process import exit_on_sigterm
from tests.peers.compare import EXPLAINED, compare
from tests.peers.suites import SUITES, fetch


def main() -> int:
    """Run them, print counts and differences; exit code 1 if a difference is unexplained or an explanation needless."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=__doc__)
    names = [suite.package for suite in SUITES]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--short", action="store_true", help="the most telling files of each: less than a minute")
    parser.add_argument(
        "--lock", nargs="+", default=["requirements", "requirements-newest"], help="the versions: of lab/plane"
    )
    given = parser.parse_args()
    exit_on_sigterm()
    faults: list[str] = []
    met: set[str] = set()
    try:
        for lock in given.lock:
            peers = fetch(lock)
            print(f"\n{peers.versions}", flush=True)
            for suite in SUITES:
                if suite.package in given.only:
                    comparison = compare(peers, suite, short=given.short)
                    print(comparison.text(), flush=True)
                    faults += comparison.faults()
                    met.update(comparison.differing())
    except LabError as error:
        say(str(error))
        return 2
    ran = tuple(f"{name}: " for name in given.only)
    needless = [] if given.short else [name for name in EXPLAINED if name.startswith(ran) and name not in met]
    print("\n".join(["", *(f"explained, but the same: {name}" for name in needless)]))
    print(f"{len(faults)} differences without an explanation")
    return int(bool(faults or needless))


if __name__ == "__main__":
    sys.exit(main())
