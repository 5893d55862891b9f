"""`python -m bench.growth`: how the time of a review grows with the pod, and with the connections.

Along each axis the webhook is asked beside the floor, a server that sends the very same answer without looking: the two
in turn, in each round. Both share one core, the client has the other. Times are microseconds. A slope is that of p50 in
the picture, between the last point and the first: 1 is linear.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.output import write
from bench.peers import pod
from bench.peers.contenders import Contenders, machine
from lab.cache import LabError, say
from lab.process import exit_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = ("floor", "ours")
KIB = 1024


@dataclass(frozen=True)
class Axis:
    """What grows, at which values, the pod and the number of connections for one."""

    title: str
    values: tuple[int, ...]
    pod: Callable[[int], pod.Json]
    connections: Callable[[int], int] = lambda _: 1


AXES = {
    "containers": Axis("containers, each injected", (1, 2, 4, 8, 16, 24), lambda n: pod.pod(containers=n)),
    "variables": Axis("variables of the container", (12, 50, 200, 750, 1500, 3000), pod.pod),
    "bytes": Axis(
        "bytes of one more variable", (KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB), lambda n: pod.pod(more=n)
    ),
    "connections": Axis("connections at a time", (1, 4, 16, 64, 256, 1000), lambda _: pod.pod(), lambda n: n),
}
Records = list[dict[str, Any]]


def main() -> int:
    """Measure, print the table, write raw results and the picture where asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.6, help="of each measurement")
    parser.add_argument("--axis", choices=AXES, help="this one alone")
    parser.add_argument("--short", action="store_true", help="both ends, one round of 0.1 s: shows that it runs")
    parser.add_argument("--output", type=Path, help="a folder for growth.json and growth.svg")
    given = parser.parse_args()
    exit_on_sigterm()
    rounds, seconds = (1, 0.1) if given.short else (given.rounds, given.seconds)
    records: Records = []
    try:
        for name in [given.axis] if given.axis else AXES:
            values = AXES[name].values
            for value in values[:: len(values) - 1] if given.short else values:
                records += measured(name, value, rounds, seconds)
    except LabError as error:
        say(str(error))
        return 1
    print("\n".join(table(records)))
    if given.output:
        result = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "records": records}
        write(given.output, "growth", result, picture(records))
    return 0


def measured(name: str, value: int, rounds: int, seconds: float) -> Records:
    """One point of an axis."""
    axis = AXES[name]
    it, connections = axis.pod(value), axis.connections(value)
    sizes = {"review_bytes": len(pod.review(it)), "answer_bytes": len(pod.ours(it))}
    records: Records = []
    with Contenders(it, NAMES) as contenders:
        for each in NAMES:  # warm
            contenders.load(each, 1, seconds / 2)
        for number in range(rounds):
            for each in NAMES[:: -1 if number % 2 else 1]:
                found = contenders.load(each, connections, seconds)
                records.append({"axis": name, "value": value, "name": each, "round": number, **sizes, **found})
    return records


def points(records: Records, axis: str, name: str, what: str) -> dict[int, float]:
    """The medians of one figure along an axis, by value."""
    values: dict[int, list[float]] = {}
    for each in records:
        if (each["axis"], each["name"]) == (axis, name):
            values.setdefault(each["value"], []).append(each[what])
    return {value: statistics.median(found) for value, found in values.items()}


def table(records: Records) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| | review, kB | answer, kB | floor p50, us | p50, us | p99, us | of the floor's p50 | of its CPU |"
    yield "|-|-|-|-|-|-|-|-|"
    axes = list(dict.fromkeys(each["axis"] for each in records))
    for axis in axes:
        floor, ours, p99 = (
            points(records, axis, *each) for each in (("floor", "p50"), ("ours", "p50"), ("ours", "p99"))
        )
        cpu = points(records, axis, "ours", "cpu"), points(records, axis, "floor", "cpu")
        sizes = points(records, axis, "ours", "review_bytes"), points(records, axis, "ours", "answer_bytes")
        for value in ours:
            yield (
                f"| {axis} {value:,} | {sizes[0][value] / 1000:,.1f} | {sizes[1][value] / 1000:,.1f} |"
                f" {floor[value]:,.0f} | {ours[value]:,.0f} | {p99[value]:,.0f} | {ours[value] / floor[value]:.2f} x |"
                f" {cpu[0][value] / cpu[1][value]:.2f} x |"
            )
    yield ""
    yield "slopes: " + ", ".join(f"{axis} {slope(points(records, axis, 'ours', 'p50')):.2f}" for axis in axes)
    if failed := sum(each["failed"] for each in records):
        yield f"FAILED CALLS: {failed}"


def slope(found: dict[int, float]) -> float:
    """How many times longer, in powers of how many times more."""
    (first, before), *_, (last, after) = found.items()
    return math.log(after / before) / math.log(last / first)


@dataclass(frozen=True)
class Line:
    """A curve of the picture."""

    name: str
    what: str
    title: str
    style: str


LINES = (
    Line("floor", "p50", "floor, p50", 'stroke="#8a929a"'),
    Line("ours", "p50", "plane-webhook, p50", 'stroke="#2c7fb8"'),
    Line("ours", "p99", "plane-webhook, p99", 'stroke="#2c7fb8" stroke-dasharray="4 3"'),
)


@dataclass(frozen=True)
class Field:
    """A part of the picture: from (x, y), pixels, values along `xs` and powers of ten from `low` to `high`."""

    x: int
    y: int
    xs: list[int]
    low: int
    high: int
    width, height = 300, 200

    def across(self, value: float) -> float:
        """Where a value of the axis stands."""
        return self.x + self.width * math.log(value / self.xs[0]) / math.log(self.xs[-1] / self.xs[0])

    def up(self, time: float) -> float:
        """Where a time stands."""
        return self.y + self.height * (self.high - math.log10(time)) / (self.high - self.low)

    def frame(self, title: str) -> Iterator[str]:
        """Title and scales."""
        yield f'<text x="{self.x}" y="{self.y - 12}" font-weight="bold">{title}</text>'
        for power in range(self.low, self.high + 1):
            y = self.up(10**power)
            yield f'<path d="M{self.x} {y:.1f} h{self.width}" stroke="#e0e3e6"/>'
            yield f'<text x="{self.x - 6}" y="{y + 4:.1f}" text-anchor="end">{10**power:,}</text>'
        below = self.y + self.height + 16
        for value in self.xs:
            yield f'<text x="{self.across(value):.1f}" y="{below}" text-anchor="middle">{short(value)}</text>'

    def curve(self, found: dict[int, float], style: str) -> str:
        """Medians along the axis."""
        path = " L".join(f"{self.across(value):.1f} {self.up(time):.1f}" for value, time in found.items())
        return f'<path d="M{path}" fill="none" stroke-width="2" {style}/>'


def picture(records: Records) -> Iterator[str]:
    """Lines of an SVG: a field for each axis, both of its scales logarithmic."""
    axes = [axis for axis in AXES if any(each["axis"] == axis for each in records)]
    left, top, across, down = 60, 40, Field.width + 80, Field.height + 70
    width, height = left + 2 * across, top + -(-len(axes) // 2) * down + 20
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    yield "<style>text { font-size: 12px }</style>"
    yield f'<rect width="{width}" height="{height}" fill="white"/>'
    for number, axis in enumerate(axes):
        curves = [points(records, axis, line.name, line.what) for line in LINES]
        times = [math.log10(time) for curve in curves for time in curve.values()]
        place = left + number % 2 * across, top + number // 2 * down
        field = Field(*place, list(curves[0]), math.floor(min(times)), math.ceil(max(times)))
        yield from field.frame(f"us, by {AXES[axis].title}")
        yield from (field.curve(curve, line.style) for curve, line in zip(curves, LINES, strict=True))
    for column, line in enumerate(LINES):
        x = left + 200 * column
        yield f'<path d="M{x} {height - 20} h24" stroke-width="2" {line.style}/>'
        yield f'<text x="{x + 30}" y="{height - 16}">{line.title}</text>'
    yield "</svg>"


def short(value: int) -> str:
    """A number for a scale."""
    return f"{value // KIB} Ki" if value >= KIB and value % KIB == 0 else f"{value:,}"


if __name__ == "__main__":
    sys.exit(main())
