"""`python -m bench.effect.trouble`: what a broker in trouble does to the API, upstream and ours side by side.

Each has its container with one gunicorn worker, its vhost, PostgreSQL and Redis; the broker, its trouble and the load
are the same. People export one after the other; API-token reads and reads that publish nothing come at a fixed rate.
Side by side they meet the same trouble at the same moment and share the machine's cores: what is counted is right then,
and times are upper bounds. `--in-turn` gives each the machine for itself, and `--rounds` repeats it, the first one
second every other time: a p99 of 20 s is one of the two slowest of 200 answers, and says little alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from bench.effect.arrivals import Arrivals
from bench.effect.figures import HEADING, Figures, Span, row, verdicts
from bench.effect.lab import each
from bench.effect.results import Results, aligned
from bench.effect.stack import Stack, vhosts
from bench.effect.traffic import OTHERS, Traffic
from lab import images
from lab.broker import Broker
from lab.cache import LabError, say
from lab.faults import SWALLOW
from lab.process import exit_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lab.container import Container

CONTENDERS = ("upstream", "ours")
AFTERWARDS = 2.0  # seconds that the load goes on when the broker is back
QUIET = 10.0  # seconds without an arrival after which nothing more is waited for
BACK_OFF = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0)  # seconds until a kubelet starts again a container that ended
READY = 300.0  # seconds: the last of these, and the start
UP, DOWN = 3.0, 2.0  # seconds that a broker lives and is gone, when it is killed again and again


@dataclass(frozen=True)
class Trouble:
    """How a trouble begins, what goes on meanwhile, and how it is mended."""

    title: str
    begin: Callable[[Broker, list[Stack]], None]
    end: Callable[[Broker, list[Stack]], None]
    seconds: tuple[float, ...] = (30.0,)
    lasts: Callable[[Broker, float], None] = lambda _broker, seconds: time.sleep(seconds)
    strike: Callable[[Stack], None] | None = None  # done to Plane when a third of the time has passed
    clean: bool = False  # nothing may arrive twice


def _refuse(_broker: Broker, stacks: list[Stack]) -> None:
    for stack in stacks:
        stack.proxy.door("refuse")
        stack.proxy.cut(reset=True)


def _silence(_broker: Broker, stacks: list[Stack]) -> None:
    for stack in stacks:
        stack.proxy.door("deaf")
        stack.proxy.flow(up=SWALLOW, down=SWALLOW)


def _heal(_broker: Broker, stacks: list[Stack]) -> None:
    for stack in stacks:
        stack.proxy.heal()


def flap(broker: Broker, seconds: float) -> None:
    """It has been killed; start it and kill it again until the time is over, and leave it dead."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(DOWN)
        broker.start()
        time.sleep(UP)
        broker.kill()


def _kill_worker(stack: Stack) -> None:
    for process in stack.container.processes()[1:]:
        stack.signal(process.pid, 9)


TROUBLES = {
    "refused": Trouble("broker away, connections refused", _refuse, _heal, (3.0, 10.0, 30.0, 300.0), clean=True),
    "silent": Trouble("partition: silence, SYNs unanswered", _silence, _heal),
    "memory": Trouble(
        "memory alarm",
        lambda broker, _: broker.memory_alarm(on=True),
        lambda broker, _: broker.memory_alarm(on=False),
        clean=True,
    ),
    "disk": Trouble(
        "disk alarm",
        lambda broker, _: broker.disk_alarm(on=True),
        lambda broker, _: broker.disk_alarm(on=False),
        clean=True,
    ),
    "flapping": Trouble(
        "broker killed and started again and again",
        lambda broker, _: broker.kill(),
        lambda broker, _: broker.start(),
        (60.0,),
        lasts=flap,
    ),
    "upgraded": Trouble(
        "broker stopped, and started again on its data",
        lambda broker, _: broker.stop(),
        lambda broker, _: broker.start(),
        (5.0,),
    ),
    "restart": Trouble("refused, and the pod is replaced", _refuse, _heal, strike=Stack.replace),
    "kill": Trouble("refused, and gunicorn's worker is killed", _refuse, _heal, strike=_kill_worker),
    "container": Trouble(
        "refused, and the container is killed", _refuse, _heal, strike=lambda stack: stack.container.signal(9)
    ),
}


class HasContainer(Protocol):
    """What runs in a container, which may be another one later."""

    @property
    def container(self) -> Container:
        """The present one."""


Running = TypeVar("Running", bound=HasContainer)


@dataclass
class Kubelet(Generic[Running]):
    """Starts a container again when it has ended, as a kubelet does; strikes once. Use it as a context manager."""

    stack: Running
    strike: Callable[[Running], None] | None
    after: float
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        if self._over.wait(self.after):
            return
        if self.strike:
            self.strike(self.stack)
        starts = iter(BACK_OFF)
        while not self._over.wait(0.2):
            if not self.stack.container.process.alive():
                self._over.wait(next(starts, BACK_OFF[-1]))
                self.stack.container.start()


def main() -> int:
    """Read the arguments, run, print; exit code 1 if ours lost anything silently."""
    parser = argparse.ArgumentParser(prog="python -m bench.effect.trouble", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=TROUBLES, default=list(TROUBLES))
    parser.add_argument("--seconds", nargs="+", type=float, help="how long each lasts, in place of its own")
    load(parser)
    parser.add_argument("--in-turn", action="store_true", help="one after the other: for times")
    parser.add_argument("--rounds", type=int, default=1, help="times are medians over so many, counts are sums")
    given = parser.parse_args()
    exit_on_sigterm()
    kept = Results().path.with_name("trouble.jsonl")
    rows: list[Figures] = []
    try:
        with Broker() as broker, ExitStack() as stack:
            vhosts(broker, CONTENDERS)
            image = images.build()
            stacks = [Stack(name, broker, image, vhost=name, postgres=True) for name in CONTENDERS]
            each(stacks, stack.enter_context)
            for kind in given.kinds:
                for seconds in given.seconds or TROUBLES[kind].seconds:
                    say(f"{TROUBLES[kind].title}, {seconds:g} s")
                    rounds = [
                        one
                        for number in range(given.rounds)
                        for one in run(broker, stacks, kind, seconds, given, number=number)
                    ]
                    found = [Figures.over([one for one in rounds if one.contender == name]) for name in CONTENDERS]
                    with kept.open("a", encoding="utf-8") as file:
                        file.writelines(json.dumps(asdict(one)) + "\n" for one in rounds)
                    show(TROUBLES[kind], found)
                    rows += found
    except LabError as error:
        say(str(error))
        return 2
    print(f"\n{given.exporters} exporters, {given.rate:g} API-token reads and {OTHERS:g} other reads a second\n")
    print(aligned([HEADING, *map(row, rows)]))
    print(f"\nresults: {kept}")
    return int(any(one.lost_exports + one.lost_logs for one in rows if one.contender == "ours"))


def load(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what load there is."""
    parser.add_argument("--exporters", type=int, default=2)
    parser.add_argument("--rate", type=float, default=6.0, help="API-token reads a second")
    parser.add_argument("--healthy", type=float, default=20.0, help="seconds of load before the trouble")


def run(
    broker: Broker, stacks: list[Stack], kind: str, seconds: float, given: argparse.Namespace, *, number: int
) -> Iterator[Figures]:
    """One round of a trouble: side by side, or one after the other, in another order each time."""
    order = stacks[:: -1 if number % 2 else 1]
    for group in [[one] for one in order] if given.in_turn else [stacks]:
        yield from measure(broker, group, TROUBLES[kind], seconds, given, name=kind)


def measure(
    broker: Broker, stacks: list[Stack], trouble: Trouble, seconds: float, given: argparse.Namespace, *, name: str
) -> tuple[Figures, ...]:
    """Put the contenders to one trouble, each in a new pod: healthy means nothing of the trouble before is left."""
    each(stacks, lambda stack: stack.replace())
    each(stacks, _ready)
    each(stacks, lambda stack: stack.warm())
    each(stacks, lambda stack: stack.purge())
    with ExitStack() as arriving:
        arrivals = [arriving.enter_context(Arrivals(stack)) for stack in stacks]
        with ExitStack() as going:
            traffic = [going.enter_context(Traffic(stack, given.exporters, given.rate)) for stack in stacks]
            time.sleep(given.healthy)
            for stack in stacks:
                going.enter_context(Kubelet(stack, trouble.strike, seconds / 3))
            struck = time.monotonic()
            trouble.begin(broker, stacks)
            trouble.lasts(broker, seconds)
            mending = time.monotonic()
            trouble.end(broker, stacks)
            span = Span(struck, mending, time.monotonic())
            each(stacks, _ready)
            time.sleep(AFTERWARDS)
        for one, arrived in zip(traffic, arrivals, strict=True):
            wanted = {asked.token for asked in one.asked if asked.kind != "other" and asked.status == 200}
            arrived.settle(wanted, QUIET)
    return tuple(
        Figures.of(one, arrived, span, trouble=name, seconds=seconds)
        for one, arrived in zip(traffic, arrivals, strict=True)
    )


def show(trouble: Trouble, found: Sequence[Figures]) -> None:
    """Print one trouble: both rows, and what of the goals ours held."""
    upstream, ours = found
    print("\n" + aligned([HEADING, row(upstream), row(ours)]))
    for one in verdicts(ours, upstream, clean=trouble.clean, kills=trouble.strike is not None):
        print(f"  {'held' if one.held else 'NOT HELD':9} {one.goal}: {one.found}", flush=True)


def _ready(stack: Stack) -> None:
    """Return when it serves, however often its container has to be started until then."""
    end = time.monotonic() + READY
    while time.monotonic() < end:
        with suppress(LabError):
            return stack.container.wait_ready(stack.port)
        time.sleep(1)
    raise LabError(f"{stack.contender} doesn't come back:\n{stack.container.stderr[-3000:]}")


if __name__ == "__main__":
    sys.exit(main())
