"""`python -m bench.effect.picture FILE`: the results as one picture, a square for each fault and contender."""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from bench.effect.cells import CELLS
from bench.effect.contenders import WHAT
from bench.effect.results import Results

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.effect.results import Record

ROW, COLUMN, LEFT, TOP = 18, 118, 420, 50  # pixels
NONE = "#e3f1e6"
SOME, ALL = (0xF6, 0xC4, 0x9A), (0xC8, 0x2C, 0x2C)


def main() -> int:
    """Draw what has been measured of the present payload."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    latest = Results().latest()
    rows = [(cell.title, [latest.get((cell.name, name)) for name in WHAT]) for cell in CELLS]
    rows = [(title, records) for title, records in rows if all(records[:1]) and records[list(WHAT).index("ours")]]
    if not rows:
        print("nothing has been measured yet: python -m bench.effect", file=sys.stderr)
        return 1
    lossy = [(title, records) for title, records in rows if any(record and record["silent"] for record in records)]
    Path(sys.argv[1]).write_text("\n".join(draw(lossy, len(rows) - len(lossy))) + "\n", encoding="utf-8")
    return 0


def draw(rows: list[tuple[str, list[Record | None]]], others: int) -> Iterator[str]:
    """Yield the lines of an SVG: the rows in which somebody lost, and how many others there are."""
    width, height = LEFT + COLUMN * len(WHAT) + 10, TOP + ROW * len(rows) + 30
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    yield "<style>text { font-size: 12px }</style>"
    yield f'<rect width="{width}" height="{height}" fill="white"/>'
    yield '<text x="10" y="20" font-weight="bold">Tasks lost silently: answered 200, never arrived</text>'
    for column, name in enumerate(WHAT):
        x = LEFT + COLUMN * column + COLUMN // 2
        yield f'<text x="{x}" y="{TOP - 10}" text-anchor="middle" font-weight="bold">{escape(name)}</text>'
    for number, (title, records) in enumerate(rows):
        y = TOP + ROW * number
        yield f'<text x="{LEFT - 10}" y="{y + 13}" text-anchor="end">{escape(title)}</text>'
        for column, record in enumerate(records):
            if record:
                share = record["silent"] / max(record["publishes"], 1)
                x = LEFT + COLUMN * column
                yield f'<rect x="{x + 2}" y="{y + 1}" width="{COLUMN - 4}" height="{ROW - 2}" fill="{colour(share)}"/>'
                ink = "white" if share > 0.6 else "black"
                yield (
                    f'<text x="{x + COLUMN // 2}" y="{y + 13}" text-anchor="middle" fill="{ink}">'
                    f"{record['silent']} of {record['publishes']}</text>"
                )
    yield f'<text x="{LEFT}" y="{height - 8}">In {others} further rows nobody lost any.</text>'
    yield "</svg>"


def colour(share: float) -> str:
    """Green for none lost; from orange to red for more."""
    if share == 0:
        return NONE
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(SOME, ALL, strict=True))


if __name__ == "__main__":
    sys.exit(main())
