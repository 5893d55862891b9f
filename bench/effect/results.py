"""Results on disk, one JSON line for a cell and a contender, and the table that is printed of them.

They live in the cache under a fingerprint of what was measured (the payload and the packages), so that a run that was
stopped goes on where it was, and a changed payload is measured anew.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.effect.cells import BY_NAME, CELLS
from bench.effect.contenders import WHAT
from tests.lab import cache, images
from webhook import payload
from webhook.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from bench.effect.cells import Cell
    from bench.effect.stack import Score

Record = dict[str, Any]


class Results:
    """The results of one payload on one image."""

    def __init__(self, lock: images.Lock = "requirements", python: str = images.PYTHON) -> None:
        parts = (payload.GUARD, payload.OVERLAY, payload.SHIM, Settings().default.digest, python)
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


def table(results: Results) -> str:
    """The matrix as text: for each contender silently lost of publishes; then what ours cost."""
    latest = results.latest()
    contenders = [name for name in WHAT if any(contender == name for _, contender in latest)]
    rows = [
        [
            "fault",
            *(f"{name} lost" for name in contenders),
            "ours 5xx",
            "ours twice",
            "ours slowest",
            "upstream 5xx",
            "",
        ]
    ]
    for cell in CELLS:
        found = {name: latest[cell.name, name] for name in contenders if (cell.name, name) in latest}
        if not found:
            continue
        ours, upstream = found.get("ours"), found.get("upstream")
        rows.append(
            [
                cell.title,
                *(_lost(found.get(name)) for name in contenders),
                _figure(ours, "errors"),
                _figure(ours, "duplicates"),
                f"{ours['slowest']:.2f} s" if ours else ".",
                _figure(upstream, "errors"),
                verdict(cell, upstream),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def verdict(cell: Cell, upstream: Record | None) -> str:
    """What the row shows, by what became of upstream."""
    if upstream is None:
        return "upstream wasn't run"
    if upstream["silent"]:
        return ""
    return "proves nothing" if cell.loses else "upstream loses none here"


def _lost(record: Record | None) -> str:
    if record is None:
        return "."
    hung = f", {record['hung']} hung" if record["hung"] else ""
    return f"{record['silent']}/{record['publishes']}{hung}"


def _figure(record: Record | None, key: str) -> str:
    return str(record[key]) if record else "."


__all__ = ["BY_NAME", "Results", "table", "verdict"]
