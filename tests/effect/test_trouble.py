"""What is worked out of a trouble: who was lost, what came twice or too late, and which goals that holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.effect.arrivals import Arrival, Arrivals
from bench.effect.figures import Figures, Span, verdicts
from bench.effect.stack import disordered
from bench.effect.traffic import Asked, Kind

SPAN = Span(struck=10.0, mending=40.0, back=40.5)


def asked(kind: Kind, token: str, began: float, seconds: float = 0.1, status: int = 200) -> Asked:
    return Asked(kind, token, status, began, began + seconds)


def arrived(at: float, token: str, *, again: bool = False) -> Arrival:
    return Arrival(at, f"task of {token}", frozenset({token}), again)


def figures(requests: list[Asked], seen: list[Arrival], **held: int) -> Figures:
    traffic: Any = SimpleNamespace(
        stack=SimpleNamespace(contender="ours"), asked=requests, **{"connections": 5, "threads": 9, **held}
    )
    arrivals = Arrivals(traffic.stack)
    arrivals.seen = seen
    return Figures.of(traffic, arrivals, SPAN, trouble="refused", seconds=30)


HEALTHY = [asked("token", "t1", 2), asked("other", "t2", 2)]


def test_what_was_answered_200_and_arrived_nowhere_is_lost() -> None:
    requests = [
        *(asked("export", "t3", 20), asked("export", "t4", 20, status=500), asked("token", "t5", 20)),
        *(asked("export", "t6", 20), asked("other", "t7", 20), asked("token", "t8", 20, status=0)),
    ]
    found = figures([*HEALTHY, *requests], [arrived(2.1, "t1"), arrived(42, "t6")])
    assert (found.lost_exports, found.lost_logs) == (1, 1)
    assert found.answers["export"] == {"200": 2, "5xx": 1, "none": 0}
    assert found.answers["token"] == {"200": 2, "5xx": 0, "none": 1}


def test_the_first_delivery_is_that_of_a_task_of_the_trouble() -> None:
    requests = [asked("export", "t3", 9.9), asked("export", "t4", 20), asked("export", "t5", 41)]
    seen = [arrived(40.6, "t3"), arrived(40.9, "t5"), arrived(41.5, "t4")]
    found = figures(requests, seen)
    assert (found.first, found.last) == (1.0, 1.0)
    assert found.disordered == 1
    assert found.in_flight == 0
    assert figures(requests, []).first is None


def test_what_the_broker_gives_back_after_its_own_crash_is_no_copy() -> None:
    seen = [arrived(1, "t1"), arrived(2, "t1", again=True), arrived(3, "t2", again=True)]
    assert figures([], seen).twice == 0
    assert figures([], [*seen, arrived(4, "t2")]).twice == 1


@pytest.mark.parametrize(
    ("arrivals", "late"),
    [
        (["a", "b", "c"], 0),
        (["b", "a", "c"], 0),  # a and b overlap
        (["c", "a", "b"], 2),
        (["a", "c", "a", "b"], 1),  # a copy that comes late is a copy
        (["c", "unknown"], 0),
    ],
)
def test_order_is_that_of_requests_that_don_t_overlap(arrivals: list[str], late: int) -> None:
    times = {"a": (0.0, 2.0), "b": (1.0, 3.0), "c": (4.0, 5.0)}
    assert disordered(times, [frozenset({each, f"task of {each}"}) for each in arrivals]) == late


def test_over_several_rounds_counts_are_sums_and_times_are_medians() -> None:
    rounds = [
        figures([*HEALTHY, asked("other", "t3", 20, seconds), asked("export", "t4", 20)], [], threads=held)
        for seconds, held in ((0.1, 7), (9.0, 12), (0.3, 8))
    ]
    found = Figures.over(rounds)
    assert found.during["other"].p99 == pytest.approx(0.3)
    assert found.during["token"].p99 is None
    assert found.lost_exports == 3
    assert found.answers["export"] == {"200": 3, "5xx": 0, "none": 0}
    assert found.threads == 12
    assert found.first is None


def failed(ours: Figures, upstream: Figures, *, clean: bool = True, kills: bool = False) -> set[str]:
    """The first words of the goals that weren't held."""
    return {one.goal.split(":")[0] for one in verdicts(ours, upstream, clean=clean, kills=kills) if not one.held}


def test_goals_are_held_against_upstream() -> None:
    good = [*HEALTHY, asked("token", "t3", 20), asked("other", "t4", 20)]
    seen = [arrived(2.1, "t1"), arrived(41, "t3")]
    upstream = figures(good, seen)
    assert failed(upstream, upstream) == set()
    slow = [*HEALTHY, asked("token", "t3", 20, 0.16), asked("other", "t4", 20, 0.13)]
    assert failed(figures(slow, seen), upstream) == {"API-token reads, p99", "other requests, p99"}
    many = figures(good, seen, connections=16, threads=20)
    assert failed(many, upstream) == {"PostgreSQL connections", "threads"}
    assert failed(figures([*good, asked("other", "t5", 20, status=500)], seen), upstream) == {"5xx of any kind"}
    assert failed(figures(good, [seen[0], arrived(43, "t3")]), upstream) == {"first delivery after the broker is back"}


def test_a_copy_is_allowed_for_what_was_in_flight_where_the_trouble_isn_t_clean() -> None:
    flying = [*HEALTHY, asked("token", "t3", 9.95, 0.2), asked("token", "t4", 20), asked("other", "t5", 20)]
    seen = [*(arrived(at, token) for at, token in ((2.1, "t1"), (41, "t3"), (41, "t4"))), arrived(42, "t3")]
    one = figures(flying, seen)
    assert one.in_flight == 1
    assert failed(one, one, clean=False) == set()
    assert failed(one, one, clean=True) == {"delivered twice"}


def test_a_request_without_an_answer_is_forgiven_where_upstream_has_as_many() -> None:
    broken = figures([*HEALTHY, asked("export", "t3", 20, status=0), asked("token", "t4", 20)], [arrived(41, "t4")])
    assert "without an answer" in failed(broken, broken)
    assert "without an answer" not in failed(broken, broken, kills=True)
