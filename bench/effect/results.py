"""Results on disk, one JSON line for a cell and a contender, and the table that is printed of them.

They live in the cache under a fingerprint of what was measured (the payload and the packages), so that a run that was
stopped goes on where it was, and a changed payload is measured anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.effect.cells import CELLS
from bench.effect.contenders import WHAT
from bench.effect.lab import UNSCALED
from bench.effect.stack import PUBLISH, SCALE
from lab import cache, images
from lab.rabbitmq import CHOSEN
from webhook import payload
from webhook.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.effect.cells import Cell
    from bench.effect.stack import Score

Record = dict[str, Any]

SLACK = 2.8  # seconds over the worst case that the lab itself may cost, on two loaded cores


class Results:
    """The results of one payload on one image, and on one kind of broker (see lab/rabbitmq.py)."""

    def __init__(
        self, lock: images.Lock = "requirements", python: str = images.PYTHON, kind: str | None = None
    ) -> None:
        kind = kind or os.environ.get(CHOSEN, "")
        parts = (payload.GUARD, payload.PACKED, Settings().default.digest, python, *([kind] if kind else []))
        text = "\0".join(parts) + (images.PLANE / f"{lock}.txt").read_text(encoding="utf-8")
        self.path: Path = cache.folder("effect", hashlib.sha256(text.encode()).hexdigest()[:12]) / "results.jsonl"
        self.records: list[Record] = []
        if self.path.exists():
            self.records = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def has(self, cell: Cell, contender: str, count: int) -> bool:
        """Tell whether it has been measured with at least so many publishes."""
        record = self.latest().get((cell.name, contender))
        return record is not None and record["publishes"] >= count

    def add(self, cell: Cell, contender: str, score: Score) -> None:
        """Keep a result."""
        record = {"cell": cell.name, "contender": contender, **asdict(score)}
        self.records.append(record)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def latest(self) -> dict[tuple[str, str], Record]:
        """The newest result of each cell and contender."""
        return {(record["cell"], record["contender"]): record for record in self.records}


def amiss(cell: Cell, contender: str, score: Mapping[str, Any]) -> str:
    """What ours may never do, as far as this contender did it; empty if it didn't."""
    wrong = {"lost": score["silent"], "hung": score["hung"], "5xx without a cause in the log": score["unexplained"]}
    wrong["5xx"] = score["errors"] if cell.heals else 0
    # What a process had sent and not seen confirmed when it was rotated comes again, and later.
    rotated = contender == "ours-rotating"
    wrong["twice"] = score["duplicates"] if cell.clean and not rotated else 0
    wrong["out of order"] = score["disordered"] if cell.ordered and not rotated else 0
    scale = 1.0 if cell.kind in UNSCALED else SCALE
    worst = PUBLISH.model_copy(update={"timeout": PUBLISH.timeout * scale}).worst_case
    if not cell.kills and not rotated:
        wrong["without an answer"] = score["broken"]
        wrong[f"slower than {worst:g} s"] = int(not score["hung"] and score["slowest"] > worst + SLACK)
    said = ", ".join(f"{number} {what}" for what, number in wrong.items() if number)
    return said and f"{contender} {said}"


def failures(results: Results, cells: Iterable[Cell] = CELLS) -> list[str]:
    """What is amiss with ours, of all that has been measured."""
    latest, ours = results.latest(), [name for name in WHAT if name.startswith("ours")]
    found = [(cell, name, latest[cell.name, name]) for cell in cells for name in ours if (cell.name, name) in latest]
    return [f"{cell.name}: {wrong}" for cell, name, record in found if (wrong := amiss(cell, name, record))]


def table(results: Results) -> str:
    """The matrix as text: for each contender silently lost of publishes; then what ours cost."""
    contenders = [name for name in WHAT if any(contender == name for _, contender in results.latest())]
    return aligned([heading(contenders), *rows(results, contenders)])


def heading(contenders: Iterable[str]) -> list[str]:
    """What stands over `rows`."""
    lost = [f"{name} lost" for name in contenders]
    return ["fault", *lost, "ours 5xx", "ours twice", "ours slowest", "upstream 5xx", ""]


def rows(results: Results, contenders: Sequence[str], cells: Iterable[Cell] = CELLS) -> Iterator[list[str]]:
    """Yield a row for each cell that has been measured."""
    latest = results.latest()
    for cell in cells:
        found = {name: latest[cell.name, name] for name in contenders if (cell.name, name) in latest}
        if not found:
            continue
        ours, upstream = found.get("ours"), found.get("upstream")
        yield [
            cell.title,
            *(_lost(found.get(name)) for name in contenders),
            _figure(ours, "errors"),
            _figure(ours, "duplicates"),
            f"{ours['slowest']:.2f} s" if ours else ".",
            _figure(upstream, "errors"),
            verdict(cell, found),
        ]


def report(lines: list[list[str]], wrong: list[str]) -> int:
    """Print a table and what is wrong; the exit code for that: 1 if anything is."""
    print(aligned(lines))
    print("\n".join(["", *wrong]) if wrong else "\nnothing lost, hung or unexplained by ours")
    return int(bool(wrong))


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Rows as text, each column as wide as its widest."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def verdict(cell: Cell, found: Mapping[str, Record]) -> str:
    """What the row shows: what is amiss with ours; else by what became of upstream."""
    wrong = [amiss(cell, name, record) for name, record in found.items() if name.startswith("ours")]
    if any(wrong):
        return "FAILED: " + ", ".join(filter(None, wrong))
    if "upstream" not in found:
        return "upstream wasn't run"
    if found["upstream"]["silent"]:
        return ""
    return "proves nothing" if cell.loses else "upstream loses none here"


def _lost(record: Record | None) -> str:
    if record is None:
        return "."
    hung = f", {record['hung']} hung" if record["hung"] else ""
    aside = f", {record['aside']} set aside" if record.get("aside") else ""
    return f"{record['silent']}/{record['publishes']}{aside}{hung}"


def _figure(record: Record | None, key: str) -> str:
    return str(record[key]) if record else "."
