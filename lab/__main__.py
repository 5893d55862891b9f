"""Sets up what the lab needs and says what takes long: `make lab`. What is there already costs nothing."""

import sys

from lab import images
from lab.cache import LabError, say
from lab.controlplane.programs import PROGRAMS, binary
from lab.packages import ensure_packages
from lab.rabbitmq import RELEASES, installation


def main() -> int:
    try:
        ensure_packages()
        images.build()
        for name in PROGRAMS:
            binary(name)
    except LabError as error:
        say(str(error))
        return 2
    for version in RELEASES:  # without which only their own tests are skipped
        try:
            installation(version)
        except LabError as error:
            say(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
