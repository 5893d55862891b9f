"""`python -m bench.effect`: run the fault matrix and print its table. Goes on where an earlier run was stopped."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from typing import TYPE_CHECKING

from bench.effect.cells import CELLS
from bench.effect.contenders import WHAT
from bench.effect.lab import Lab, each
from bench.effect.results import Results, failures, table
from lab.cache import LabError, say
from lab.process import exit_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.effect.cells import Cell
    from bench.effect.stack import Score


def main() -> int:
    """Read the arguments, run what is missing, print the table; exit code 1 if ours lost a task, hung, or the like."""
    parser = argparse.ArgumentParser(prog="python -m bench.effect", description=__doc__)
    parser.add_argument(
        "--cells", nargs="+", default=["*"], metavar="PATTERN", help="of: " + ", ".join(c.name for c in CELLS)
    )
    parser.add_argument("--contenders", nargs="+", choices=WHAT, default=list(WHAT))
    parser.add_argument("--count", type=int, help="publishes a cell, in place of each cell's own")
    parser.add_argument("--again", action="store_true", help="measure anew what has been measured")
    parser.add_argument("--quick", action="store_true", help="the essential cells only, 20 publishes each")
    parser.add_argument(
        "--lock", default="requirements", choices=["requirements", "requirements-oldest", "requirements-newest"]
    )
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    given = parser.parse_args()
    exit_on_sigterm()
    results = Results(given.lock, given.python)
    cells = [cell for cell in chosen(given.cells) if cell.quick or not given.quick]
    count = given.count or (20 if given.quick else None)
    if not given.table:
        try:
            with Lab(given.contenders, lock=given.lock, python=given.python) as lab:
                run(lab, cells, results, count=count, again=given.again)
        except LabError as error:
            say(str(error))
            return 2
    print(table(results))
    print(f"\nresults: {results.path}")
    return int(bool(failures(results)))


def chosen(patterns: Iterable[str]) -> list[Cell]:
    """The cells whose names match any of some shell patterns."""
    return [cell for cell in CELLS if any(fnmatch.fnmatch(cell.name, pattern) for pattern in patterns)]


def run(lab: Lab, cells: Iterable[Cell], results: Results, *, count: int | None = None, again: bool = False) -> None:
    """Measure what is missing, one cell after the other, the contenders of a cell side by side."""
    todo = list(cells)
    for number, cell in enumerate(todo, 1):
        wanted = count or cell.count
        missing = [
            name
            for name in lab.contenders
            if name in cell.contenders and (again or not results.has(cell, name, wanted))
        ]
        if not missing:
            continue
        start = time.monotonic()
        scores = measure(lab, cell, wanted, missing)
        for name, score in scores.items():
            results.add(cell, name, score)
        lost = ", ".join(f"{name} {score.silent}/{score.publishes}" for name, score in scores.items())
        say(f"{number}/{len(todo)} {cell.name} ({time.monotonic() - start:.0f} s): lost silently: {lost}")


def measure(lab: Lab, cell: Cell, count: int, contenders: Iterable[str] | None = None) -> dict[str, Score]:
    """Run one cell; what became of each contender's publishes."""
    stacks = lab.stacks(cell.kind, contenders)
    each(stacks, lambda stack: stack.warm())
    each(stacks, lambda stack: stack.purge())
    cell.run(lab, stacks, count)
    each(stacks, lambda stack: stack.warm())
    return {stack.contender: stack.score() for stack in stacks}


if __name__ == "__main__":
    sys.exit(main())
