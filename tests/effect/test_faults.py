"""Under the essential faults upstream loses tasks silently and an injected pod none (`make effect`: all faults).

On Plane's own versions, and in short on the others that its image may have (`make versions`: more of it), and on the
RabbitMQ of today (`make brokers`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from bench.effect.__main__ import measure
from bench.effect.cells import BOTH, BY_NAME
from bench.effect.lab import Lab
from bench.effect.results import amiss
from bench.effect.versions import COMBINATIONS, ESSENTIAL, PLANES, Combination, imported
from lab.fixtures import need, of_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.effect.cells import Cell
    from lab.broker import Broker

pytestmark = pytest.mark.lab

# Enough for every way of publishing to meet the fault twice; `make effect` does 200. On other versions: a few.
COUNT, FEW = 10, 3
# One for each thing of kombu and py-amqp that the overlay goes by, and for each kind of publisher.
API = ("half-open", "write-reset", "ack-half", "no-queue", "stale-answer")
HANDFUL = (*API, "worker-half-open", "worker-partition", "beat-half-open")
# One for each thing that a broker has a part in (`make brokers`: more of them, on all kinds).
BROKERS = ("half-open", "write-reset", "refused", "no-queue", "alarm", "queue-full", "too-large")


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, broker: Broker) -> Iterator[Lab]:
    need("rabbitmq-server", "bubblewrap", "util-linux", "dash")
    combination: Combination = request.param
    if missing := combination.missing():
        pytest.skip(missing)
    with Lab(BOTH, lock=combination.lock, python=combination.python, broker=broker) as running:
        assert combination.differs(imported(running.image)) == ""
        with ThreadPoolExecutor() as pool:
            list(pool.map(running.stacks, {cell.kind for cell in ESSENTIAL}))
        yield running


@pytest.mark.parametrize("lab", [PLANES], indirect=True, ids=str)
@pytest.mark.parametrize("cell", ESSENTIAL, ids=lambda cell: cell.name)
def test_nothing_is_lost_silently(lab: Lab, cell: Cell) -> None:
    holds(lab, cell, COUNT)


@pytest.mark.parametrize("lab", [each for each in COMBINATIONS if each != PLANES], indirect=True, ids=str)
@pytest.mark.parametrize("name", HANDFUL)
def test_nor_on_other_versions(lab: Lab, name: str) -> None:
    holds(lab, BY_NAME[name], FEW)


@pytest.fixture(scope="module", params=["4.3-quorum"])
def today(request: pytest.FixtureRequest) -> Iterator[Lab]:
    need("rabbitmq-server", "bubblewrap", "util-linux", "dash")
    with of_kind(request.param) as broker, Lab(BOTH, broker=broker) as running:
        yield running


@pytest.mark.parametrize("name", BROKERS)
def test_nor_on_a_broker_of_today(today: Lab, name: str) -> None:
    holds(today, BY_NAME[name], FEW)


def holds(lab: Lab, cell: Cell, count: int) -> None:
    scores = measure(lab, cell, count)
    assert amiss(cell, "ours", asdict(scores["ours"])) == ""
    assert scores["ours"].publishes >= count
    assert scores["upstream"].silent > 0 or not cell.loses, "upstream loses nothing here: the cell proves nothing"
