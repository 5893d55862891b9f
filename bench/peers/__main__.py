"""`python -m bench.peers`: what a review costs, of the webhook and of others that make the same pod.

Every measurement is made in each round, in an order that is drawn anew; what is printed are medians of the rounds with
their range. Servers have one core, the client another. Times are microseconds. It needs an idle machine of two cores.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.output import write
from bench.peers import pod
from bench.peers.contenders import WHAT, Contenders, machine
from lab.cache import LabError, say
from lab.process import exit_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = (1, 16)
Records = list[dict[str, Any]]


def main() -> int:
    """Measure, print the table, write raw results and the picture where asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--variables", type=int, default=12, help="of the pod; 1500 make a review of 300 kB")
    parser.add_argument(
        "--short", action="store_true", help="one round of 0.2 s, without controller-runtime: shows that it runs"
    )
    parser.add_argument("--output", type=Path, help="a folder for peers.json and peers.svg")
    chosen = parser.parse_args()
    exit_on_sigterm()
    rounds, seconds = (1, 0.2) if chosen.short else (chosen.rounds, chosen.seconds)
    names = [name for name in WHAT if name != "typed" or not chosen.short]
    try:
        result = measured(names, rounds, seconds, chosen.variables)
    except LabError as error:
        say(str(error))
        return 1
    print("\n".join(table(result)))
    if chosen.output:
        write(chosen.output, "peers", result, picture(result))
    return 0


def measured(names: list[str], rounds: int, seconds: float, variables: int) -> dict[str, Any]:
    """All records, with what they were measured on."""
    cells = [(name, connections) for name in names for connections in CONNECTIONS]
    records: Records = []
    it = pod.pod(variables)
    with Contenders(it, names) as contenders:
        for name, connections in cells:  # warm
            contenders.load(name, connections, min(seconds, 0.5))
        for number in range(rounds):
            for name, connections in random.sample(cells, len(cells)):
                found = contenders.load(name, connections, seconds)
                records.append({"round": number, "name": name, "connections": connections, **found})
        memory = {name: round(contenders.memory(name), 1) for name in names}
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "review_bytes": len(pod.review(it)),
        "answer_bytes": len(pod.ours(it)),
        "memory_mib": memory,
        "records": records,
    }


def cells(result: dict[str, Any], name: str, connections: int, what: str) -> list[float]:
    """One figure of all rounds."""
    return [each[what] for each in result["records"] if (each["name"], each["connections"]) == (name, connections)]


def table(result: dict[str, Any]) -> Iterator[str]:
    """Lines of Markdown."""
    one, many = CONNECTIONS
    yield f"A review of {result['review_bytes']} bytes, an answer of {result['answer_bytes']} by us"
    yield ""
    yield (
        f"| | p50 at {one}, us | p99 at {one}, us | CPU at {one}, us | CPU at {many}, us | reviews/s at {many} |"
        " RSS, MiB |"
    )
    yield "|-|-|-|-|-|-|-|"
    for name in result["memory_mib"]:
        shown = [
            spread(cells(result, name, connections, what))
            for connections, what in ((one, "p50"), (one, "p99"), (one, "cpu"), (many, "cpu"), (many, "rate"))
        ]
        yield f"| {WHAT[name]} | {' | '.join(shown)} | {result['memory_mib'][name]:.0f} |"
    yield ""
    ratios = {
        f"{what} at {number}": median(result, "ours", number, what) / median(result, "floor", number, what)
        for number, what in ((one, "p50"), (one, "cpu"), (many, "cpu"), (many, "rate"))
    }
    yield "plane-webhook against the floor: " + ", ".join(f"{what} {ratio:.2f} x" for what, ratio in ratios.items())
    if failed := sum(each["failed"] for each in result["records"]):
        yield f"FAILED CALLS: {failed}"


def median(result: dict[str, Any], name: str, connections: int, what: str) -> float:
    """The median of the rounds."""
    return statistics.median(cells(result, name, connections, what))


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def picture(result: dict[str, Any]) -> Iterator[str]:
    """Lines of an SVG: for each figure a bar for each contender, with the range of the rounds."""
    one, many = CONNECTIONS
    groups = ((f"p50 at {one} connection, us", one, "p50"), ("CPU a review, us", one, "cpu"))
    groups += ((f"reviews a second at {many} connections", many, "rate"),)
    row, left, width = 22, 180, 460
    height = len(groups) * (40 + row * len(result["memory_mib"])) + 10
    right = left + width + 90
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {height}" font-family="sans-serif">'
    yield "<style>text { font-size: 12px }</style>"
    yield f'<rect width="{right}" height="{height}" fill="white"/>'
    y = 0
    for title, connections, what in groups:
        y += 30
        yield f'<text x="10" y="{y - 8}" font-weight="bold">{escape(title)}</text>'
        most = max(max(cells(result, name, connections, what)) for name in result["memory_mib"])
        for name in result["memory_mib"]:
            values = cells(result, name, connections, what)
            middle, low, high = (left + width * v / most for v in (statistics.median(values), min(values), max(values)))
            colour = "#2c7fb8" if name == "ours" else "#b0b8c0"
            yield f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(WHAT[name])}</text>'
            yield f'<rect x="{left}" y="{y + 3}" width="{middle - left:.1f}" height="{row - 6}" fill="{colour}"/>'
            yield f'<path d="M{low:.1f} {y + 11} H{high:.1f}" stroke="black"/>'
            yield f'<text x="{high + 6:.1f}" y="{y + 15}">{statistics.median(values):,.0f}</text>'
            y += row
        y += 10
    yield "</svg>"


if __name__ == "__main__":
    sys.exit(main())
