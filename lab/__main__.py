"""Sets up what the lab needs and says what takes long: `make lab`. What is there already costs nothing."""

import argparse
import sys
from functools import partial

from lab import actionlint, ourimage, ready
from lab.cache import LabError, say
from lab.controlplane.programs import DEMO, PROGRAMS
from lab.node import ensure_possible
from lab.node.programs import binaries
from lab.packages import TESTS, ensure_packages
from lab.rabbitmq import installation

BROKER = "4.3"  # only tests need it: `make demo` should not wait for it


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    parser.add_argument("--tests", action="store_true", help="also what only `make test` needs")
    parser.add_argument("--node", action="store_true", help="also what only `make node` needs")
    given = parser.parse_args()
    try:
        ready.ensure(PROGRAMS if given.tests else DEMO)
        if given.node:
            ensure_possible()
            binaries(policies=True)
            ourimage.image()
    except LabError as error:
        say(str(error))
        return 2
    if given.tests:
        packages, broker = partial(ensure_packages, *TESTS), partial(installation, BROKER)
        for make in (packages, actionlint.program, broker, ourimage.image):
            try:
                make()
            except LabError as error:  # without it only its own tests are skipped
                say(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
