"""`python -m bench.effect.versions`: the essential cells on the packages and Pythons that Plane's image may have.

Plane pins Celery, but not what Celery needs: its image has what was the newest when it was built. Goes on where an
earlier run was stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.effect.__main__ import chosen, run
from bench.effect.cells import BOTH, CELLS
from bench.effect.lab import Lab
from bench.effect.results import Results, failures, heading, report, rows
from lab import images
from lab.broker import Broker
from lab.cache import LabError, say
from lab.process import exit_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.images import Image, Lock

ESSENTIAL = [cell for cell in CELLS if cell.quick]
PACKAGES = ("celery", "kombu", "amqp", "gunicorn")


@dataclass(frozen=True)
class Combination:
    """A lock file on a Python, and the releases of PACKAGES that it stands for: what each version begins with."""

    lock: Lock
    python: str
    releases: tuple[str, str, str, str]

    def __str__(self) -> str:
        return f"{self.lock}-{self.python}"

    def missing(self) -> str:
        """What this machine lacks for it; empty if nothing."""
        found = images.find_python(self.python).version
        return "" if _within(found, self.python) else f"there is no python{self.python} here (on PATH or from pyenv)"

    def differs(self, versions: Mapping[str, str]) -> str:
        """What has another version than it stands for; empty if nothing."""
        wanted = dict(zip(PACKAGES, self.releases, strict=True)) | {"python": self.python}
        return ", ".join(
            f"{name} {versions[name]} and not {release}"
            for name, release in wanted.items()
            if not _within(versions[name], release)
        )


# Python 3.8 can't have the newest: what it can have is what counts there.
PLANES = Combination("requirements", "3.12", ("5.4.0", "5.7", "5.4", "23"))
COMBINATIONS = (
    PLANES,
    Combination("requirements-oldest", "3.8", ("5.4.0", "5.3.4", "5.1.1", "23")),
    Combination("requirements-oldest", "3.12", ("5.4.0", "5.3.4", "5.1.1", "23")),
    Combination("requirements-newest", "3.8", ("5.5", "5.5", "5.3", "23")),
    Combination("requirements-newest", "3.12", ("5.7", "5.7", "5.4", "27")),
    Combination("requirements-newest", "3.13", ("5.7", "5.7", "5.4", "27")),
)


def main() -> int:
    """Run what is missing, print the table; exit code 1 if anything failed or could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.effect.versions", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="publishes a cell")
    parser.add_argument("--cells", nargs="+", metavar="PATTERN", help="in place of the essential ones")
    parser.add_argument("--again", action="store_true", help="measure anew what has been measured")
    given = parser.parse_args()
    cells = chosen(given.cells) if given.cells else ESSENTIAL
    exit_on_sigterm()
    lines, wrong = [[*PACKAGES, "python", *heading(BOTH)]], []
    try:
        with Broker() as broker:
            for combination in COMBINATIONS:
                if missing := combination.missing():
                    wrong.append(f"{combination}: {missing}")
                    continue
                results = Results(combination.lock, combination.python)
                with Lab(BOTH, lock=combination.lock, python=combination.python, broker=broker) as lab:
                    versions = imported(lab.image)
                    say(f"{combination}: {versions}")
                    run(lab, cells, results, count=given.count, again=given.again)
                lines += [[*versions.values(), *row] for row in rows(results, BOTH, cells)]
                found = [combination.differs(versions), *failures(results, cells)]
                wrong += [f"{combination}: {each}" for each in found if each]
    except LabError as error:
        say(str(error))
        return 2
    return report(lines, wrong)


def imported(image: Image) -> dict[str, str]:
    """The versions that the image's own Python says it has, of PACKAGES and itself: not those of a lock file."""
    ask = (
        "import importlib, json, platform, sys\n"
        "versions = {name: importlib.import_module(name).__version__ for name in sys.argv[1:]}\n"
        "print(json.dumps({**versions, 'python': platform.python_version()}))"
    )
    argv = [image.root / "bin/python", "-I", "-c", ask, *PACKAGES]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def _within(version: str, release: str) -> bool:
    return f"{version}.".startswith(f"{release}.")


if __name__ == "__main__":
    sys.exit(main())
