"""`python -m lab.controlplane.build`: have every program before it is needed. Only reads the arguments."""

from __future__ import annotations

import argparse
import sys

from lab.cache import LabError, say
from lab.controlplane.programs import ENVTEST, PROGRAMS, VERSIONS, binary, lock, pin


def main() -> int:
    """Find or build the control plane's programs and print where each is."""
    parser = argparse.ArgumentParser(prog="python -m lab.controlplane.build", description=main.__doc__)
    for module, version in VERSIONS.items():
        parser.add_argument(f"--{module}", default=version, metavar="V", help=f"{version} unless said otherwise")
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), metavar="NAME")
    parser.add_argument("--lock", action="store_true", help="build nothing, pin these versions in modules/")
    chosen = vars(parser.parse_args())
    try:
        for module in VERSIONS if chosen["lock"] else ():
            lock(module, chosen[module])
        if chosen["lock"]:
            pin(ENVTEST)
        for name in () if chosen["lock"] else chosen["only"]:
            print(binary(name, chosen[PROGRAMS[name].module]))
    except LabError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
