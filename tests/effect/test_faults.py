"""Under the essential faults upstream loses tasks silently and an injected pod none (`make effect`: all faults)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.effect.__main__ import measure
from bench.effect.cells import CELLS
from bench.effect.lab import Lab
from tests.lab.fixtures import need

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.effect.cells import Cell

pytestmark = pytest.mark.lab

# Enough for every way of publishing to meet the fault twice; `make effect` does 200.
COUNT = 10


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need("rabbitmq-server", "bubblewrap", "util-linux", "dash")
    with Lab(["upstream", "ours"]) as running:
        yield running


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.quick], ids=lambda cell: cell.name)
def test_nothing_is_lost_silently(lab: Lab, cell: Cell) -> None:
    scores = measure(lab, cell, COUNT)
    ours, upstream = scores["ours"], scores["upstream"]
    assert (ours.silent, ours.hung, ours.unexplained) == (0, 0, 0)
    assert ours.publishes >= COUNT
    assert upstream.silent > 0 or not cell.loses, "upstream loses nothing by this fault: the cell proves nothing"
