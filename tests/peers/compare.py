"""Runs the peers' tests as they are and with our patches, and compares what became of each."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lab.cache import LabError, say
from tests.peers import inside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.peers.suites import Peers, Suite

PAYLOAD = Path(__file__).parents[2] / "webhook/payload/lib"
# Seconds a test: the slowest takes 10 on a quiet machine, and of the short form 2. A test that waits for what our
# patches keep from it takes all of them.
TIMEOUT, SHORT = 60, 5

# Tests that come out another way with our patches, and why that is right. Whatever differs and isn't here is a fault.
EXPLAINED: dict[str, str] = {}


@dataclass(frozen=True)
class Comparison:
    """What became of a library's tests, without us and with us."""

    package: str
    alone: Mapping[str, str]
    patched: Mapping[str, str]
    moody: frozenset[str] = frozenset()  # tests that differed once and not again

    def differing(self) -> set[str]:
        """The tests whose outcome differs, each as "package: name"; one that is only on one side differs."""
        names = self.alone.keys() | self.patched.keys()
        return {f"{self.package}: {name}" for name in names if self.alone.get(name) != self.patched.get(name)}

    def faults(self) -> list[str]:
        """Those of them that nothing explains."""
        return sorted(self.differing() - EXPLAINED.keys() - self.moody)

    def reason(self, name: str) -> str:
        """Why a test differs, as far as that is known."""
        return "the same when run again" if name in self.moody else EXPLAINED.get(name, "NOT EXPLAINED")

    def text(self) -> str:
        """The counts, and a line for each test that differs."""
        lines = [f"{self.package:8} {counts(self.alone)}", f"{'  ours':8} {counts(self.patched)}"]
        for name in sorted(self.differing()):
            test = name.removeprefix(f"{self.package}: ")
            ways = f"{self.alone.get(test, 'not there')} -> {self.patched.get(test, 'not there')}"
            lines.append(f"  {ways}: {test}: {self.reason(name)}")
        return "\n".join(lines)


def counts(outcomes: Mapping[str, str]) -> str:
    """How many tests came out which way."""
    return ", ".join(f"{number} {outcome}" for outcome, number in Counter(outcomes.values()).most_common())


def compare(peers: Peers, suite: Suite, *, short: bool = False) -> Comparison:
    """Run a library's tests twice. LabError if pytest itself fails, or finds nothing to run."""
    say(f"{suite.package}: its tests as they are, then with our patches")
    timeout = SHORT if short else TIMEOUT
    comparison = _compare(peers, suite, suite.short if short else suite.paths, timeout)
    if faults := comparison.faults():
        # Some tests hang on what ran before them, or on the machine's mood: what we do to one shows again.
        files = sorted({name.removeprefix(f"{suite.package}: ").partition("::")[0] for name in faults})
        say(f"{suite.package}: once more, both ways: {', '.join(files)}")
        moody = set(faults) - _compare(peers, suite, files, timeout).differing()
        comparison = replace(comparison, moody=frozenset(moody))
    return comparison


def _compare(peers: Peers, suite: Suite, paths: Sequence[str], timeout: int) -> Comparison:
    alone, patched = (_run(peers, suite, paths, timeout, patched=patched) for patched in (False, True))
    return Comparison(suite.package, alone, patched)


def _run(peers: Peers, suite: Suite, paths: Sequence[str], timeout: int, *, patched: bool) -> dict[str, str]:
    with TemporaryDirectory(prefix="plane-webhook-peers-") as folder:
        outcomes = Path(folder) / "outcomes.json"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(Path(inside.__file__).parent), str(PAYLOAD))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": folder,
            inside.OUTCOMES: str(outcomes),
            inside.PATCHED: "1" if patched else "",
        }
        plugins = [word for name in ("inside", *suite.plugins) for word in ("-p", name)]
        options = ["-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", f"--timeout={timeout}"]
        run = subprocess.run(
            [peers.python, "-m", "pytest", *options, *plugins, *paths],
            cwd=peers.folder(suite.package),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        found: dict[str, str] = json.loads(outcomes.read_text(encoding="utf-8")) if outcomes.exists() else {}
    if not found:  # and not by the exit code: Celery's tests can take Python down when it ends, after the last of them
        said = run.stdout[-3000:] + run.stderr[-3000:]
        raise LabError(f"the tests of {suite.package} could not be run (exit code {run.returncode}):\n{said}")
    return found
