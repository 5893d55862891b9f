"""What a broker in trouble did to a contender, in figures, and which of the goals they hold. Values only: no I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from bench.effect.stack import disordered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.effect.arrivals import Arrivals
    from bench.effect.traffic import Asked, Kind, Traffic

FIRST = 1.0  # seconds of a trouble in which nobody can know of it yet
POOL = 10  # the pool limit: so many publishes may wait at once
OVER_HEALTHY, TIMES_HEALTHY, DELIVERY = 0.05, 1.2, 2.0  # of the goals: seconds, factor, seconds


@dataclass(frozen=True)
class Span:
    """A trouble, by the monotonic clock: when it struck, when mending it began, and when it was mended."""

    struck: float
    mending: float
    back: float


@dataclass(frozen=True)
class Latency:
    """Of answers, whatever their status; seconds. None where nothing was asked."""

    p50: float | None
    p99: float | None
    most: float | None

    @classmethod
    def of(cls, asked: Iterable[Asked]) -> Latency:
        """Nearest rank."""
        every = sorted(each.seconds for each in asked)
        if not every:
            return cls(None, None, None)
        return cls(every[len(every) // 2], every[min(int(len(every) * 0.99), len(every) - 1)], every[-1])

    @classmethod
    def over(cls, rounds: Sequence[Latency]) -> Latency:
        """The median of each figure over several rounds."""
        return cls(*(_median(each) for each in zip(*map(astuple, rounds), strict=True)))


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


@dataclass(frozen=True)
class Figures:
    """One contender in one trouble."""

    contender: str
    trouble: str
    seconds: float
    answers: dict[Kind, dict[str, int]]  # of each kind: how many 200, 5xx, and none
    during: dict[Kind, Latency]
    healthy: dict[Kind, Latency]
    connections: int
    threads: int
    lost_exports: int  # answered 200, and the task arrived nowhere
    lost_logs: int  # of API-token reads, likewise: Plane swallows the error
    twice: int
    in_flight: int  # requests that publish, when the trouble struck
    first: float | None  # seconds from the end of the trouble to the first task that was asked for during it
    last: float | None
    disordered: int

    @classmethod
    def of(cls, traffic: Traffic, arrivals: Arrivals, span: Span, *, trouble: str, seconds: float) -> Figures:
        """Work them out of what was noted."""
        asked = list(traffic.asked)
        publishing = [each for each in asked if each.kind != "other"]
        kinds: tuple[Kind, ...] = ("export", "token", "other")
        arrived = arrivals.tokens()
        lost = Counter(each.kind for each in publishing if each.status == 200 and each.token not in arrived)
        meanwhile = {each.token for each in publishing if span.struck <= each.began < span.back}
        late = [each.at - span.back for each in arrivals.seen if each.at > span.mending and each.tokens & meanwhile]
        return cls(
            contender=traffic.stack.contender,
            trouble=trouble,
            seconds=seconds,
            answers={kind: _answers(each for each in asked if each.kind == kind) for kind in kinds},
            during={kind: _latency(asked, kind, span.struck + FIRST, span.back) for kind in kinds},
            healthy={kind: _latency(asked, kind, 0, span.struck - FIRST) for kind in kinds},
            connections=traffic.connections,
            threads=traffic.threads,
            lost_exports=lost["export"],
            lost_logs=lost["token"],
            twice=arrivals.copies(),
            in_flight=sum(each.began <= span.struck < each.ended for each in publishing),
            first=max(late[0], 0) if late else None,
            last=max(late[-1], 0) if late else None,
            disordered=disordered(
                {each.token: (each.began, each.ended) for each in publishing}, [each.tokens for each in arrivals.seen]
            ),
        )

    @classmethod
    def over(cls, rounds: Sequence[Figures]) -> Figures:
        """One contender in several rounds of a trouble: counts are sums, what was held the most, times medians."""
        one = rounds[0]
        kinds = list(one.answers)
        counted = ("lost_exports", "lost_logs", "twice", "in_flight", "disordered")
        sums = {name: sum(getattr(each, name) for each in rounds) for name in counted}
        most = {
            name: max((getattr(each, name) for each in rounds if getattr(each, name) is not None), default=None)
            for name in ("connections", "threads", "first", "last")
        }
        return replace(
            one,
            answers={
                kind: {status: sum(each.answers[kind][status] for each in rounds) for status in one.answers[kind]}
                for kind in kinds
            },
            during={kind: Latency.over([each.during[kind] for each in rounds]) for kind in kinds},
            healthy={kind: Latency.over([each.healthy[kind] for each in rounds]) for kind in kinds},
            **sums,
            **most,
        )


def _answers(asked: Iterable[Asked]) -> dict[str, int]:
    said = Counter("200" if each.status == 200 else "5xx" if each.status >= 500 else "none" for each in asked)
    return {status: said[status] for status in ("200", "5xx", "none")}


def _latency(asked: Iterable[Asked], kind: Kind, since: float, until: float) -> Latency:
    return Latency.of(each for each in asked if each.kind == kind and since <= each.began < until)


@dataclass(frozen=True)
class Verdict:
    """One goal, whether it was held, and the figure that says so."""

    goal: str
    held: bool
    found: str


def verdicts(ours: Figures, upstream: Figures, *, clean: bool, kills: bool) -> Iterator[Verdict]:
    """Hold ours against the goals.

    `clean`: nothing may arrive twice; else each publish in flight may. `kills`: the trouble ends processes of Plane's,
    so that requests go without an answer with anybody.
    """
    lost = ours.lost_exports + ours.lost_logs
    yield Verdict("tasks lost silently: 0", lost == 0, f"{ours.lost_exports} exports, {ours.lost_logs} logs")
    failed = {kind: said["5xx"] for kind, said in ours.answers.items() if said["5xx"]}
    yield Verdict("5xx of any kind: 0", not failed, ", ".join(f"{n} of {kind}" for kind, n in failed.items()) or "0")
    most = sum(said["none"] for said in upstream.answers.values()) if kills else 0
    none = sum(said["none"] for said in ours.answers.values())
    yield Verdict(f"without an answer: at most {most}", none <= most, str(none))
    yield from _latencies(ours, upstream)
    for what, held, allowed in (
        ("PostgreSQL connections", ours.connections, upstream.connections + POOL),
        ("threads", ours.threads, upstream.threads + POOL),
    ):
        yield Verdict(f"{what}: at most {allowed}, upstream's and the pool limit", held <= allowed, str(held))
    allowed = 0 if clean else ours.in_flight
    yield Verdict(f"delivered twice: at most {allowed}", ours.twice <= allowed, str(ours.twice))
    first = ours.first
    yield Verdict(
        f"first delivery after the broker is back: within {DELIVERY:g} s",
        first is not None and first <= DELIVERY,
        "nothing was delivered" if first is None else f"{first:.1f} s",
    )
    yield Verdict("order kept", ours.disordered == 0, f"{ours.disordered} too late")


def _latencies(ours: Figures, upstream: Figures) -> Iterator[Verdict]:
    others, healthy = ours.during["other"].p99, upstream.healthy["other"].p99
    if others is not None and healthy is not None:
        limit = TIMES_HEALTHY * healthy
        goal = f"other requests, p99: at most {ms(limit)}, {TIMES_HEALTHY} x upstream's healthy"
        yield Verdict(goal, others <= limit, ms(others))
    reads, healthy = ours.during["token"].p99, ours.healthy["token"].p99
    if reads is not None and healthy is not None:
        limit = healthy + OVER_HEALTHY
        goal = f"API-token reads, p99: at most {ms(limit)}, healthy + {ms(OVER_HEALTHY)}"
        yield Verdict(goal, reads <= limit, ms(reads))


def ms(seconds: float | None) -> str:
    """Seconds as a reader wants them."""
    if seconds is None:
        return "."
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


# Answers are 200/5xx/none, times are those during the trouble but for its first second; "lost" is what was answered
# 200, exports + logs of API-token reads; "first" and "last" are counted from the broker's return.
HEADING = (
    *("trouble", "", "exports", "token reads", "p50", "p99", "max", "(healthy p99)"),
    *("others", "p50", "p99", "max", "(healthy p99)", "PG", "threads"),
    *("lost", "twice", "in flight", "first", "last", "disordered"),
)


def row(figures: Figures) -> Sequence[str]:
    """The figures as a row under HEADING."""
    during, healthy = figures.during, figures.healthy
    said = {kind: "/".join(str(number) for number in each.values()) for kind, each in figures.answers.items()}
    return (
        *(f"{figures.trouble}, {figures.seconds:g} s", figures.contender, said["export"]),
        *(said["token"], *_times(during["token"]), ms(healthy["token"].p99)),
        *(said["other"], *_times(during["other"]), ms(healthy["other"].p99)),
        *(str(figures.connections), str(figures.threads), f"{figures.lost_exports}+{figures.lost_logs}"),
        *(str(figures.twice), str(figures.in_flight), ms(figures.first), ms(figures.last), str(figures.disordered)),
    )


def _times(latency: Latency) -> tuple[str, str, str]:
    return ms(latency.p50), ms(latency.p99), ms(latency.most)
