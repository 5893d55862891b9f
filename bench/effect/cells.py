"""The cells of the matrix: a fault, when it strikes, how often, and how long that takes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

from bench.effect.contenders import WHAT
from bench.effect.faults import FAULTS, NAMES, NODES, SETTLE, SPOOLS, Fault
from bench.effect.lab import Kind, Lab, each
from bench.effect.refusals import HEALING, REFUSALS, TOO_LARGE, USER_DELETED
from bench.effect.stack import PUBLISH, SCALE, Shot, token
from lab.broker import Broker
from lab.faults import SWALLOW, Flow

if TYPE_CHECKING:
    from bench.effect.publishers import Submitted
    from bench.effect.stack import Stack

WAYS = ("delay", "apply_async", "send_task", "chain", "group")
MILLISECONDS, SECONDS, AT_DEFAULTS = 200, 20, 10  # publishes a cell
CELERY_WAYS = ("delay", "chain")  # in which a worker publishes: a task's code, and Celery itself
CLIENTS = 4  # of a load
PER_STRIKE = 20  # publishes that a load has to make for each time that the fault strikes
GAP = 0.25  # seconds of peace before a fault strikes a load
LASTS = {False: 0.4, True: 2.0}  # seconds that it lasts; slow faults: longer than a few scaled timeouts


@dataclass(frozen=True)
class Cell:
    """One row of the table. `run(lab, stacks, count)` makes every stack publish `count` times."""

    name: str
    title: str
    run: Callable[[Lab, list[Stack], int], None]
    count: int
    kind: Kind = "scaled"
    loses: bool = True
    quick: bool = False
    kills: bool = False  # the process that answers: a request may be cut off, and the next waits for its successor
    clean: bool = False  # nothing may arrive twice: nobody had a reason to send again
    ordered: bool = True  # what a killed process had sent and not seen confirmed is sent again some ten seconds later
    heals: bool = True  # by itself: who keeps what can't be published now has no reason to answer with an error
    contenders: tuple[str, ...] = tuple(WHAT)


def first(fault: Fault, ways: Sequence[str] = WAYS, idle: float = SETTLE) -> Callable[[Lab, list[Stack], int], None]:
    """The fault strikes an idle publisher; the next publish is counted."""

    def one(stack: Stack, count: int) -> None:
        for way in islice(cycle(ways), count):
            stack.warm()
            time.sleep(idle)
            fault.begin(stack)
            stack.publish(way)
            time.sleep(SETTLE)
            fault.end(stack)
            if stack.stuck():
                break

    return lambda _lab, stacks, count: each(stacks, lambda stack: one(stack, count))


def loaded(fault: Fault) -> Callable[[Lab, list[Stack], int], None]:
    """Clients publish all the time and the fault strikes again and again."""

    def one(stack: Stack, count: int) -> None:
        stack.warm()
        over = threading.Event()

        def strike() -> None:
            for _ in range(max(count // PER_STRIKE, 3)):
                time.sleep(GAP)
                fault.begin(stack)
                time.sleep(LASTS[fault.slow])
                fault.end(stack)
            over.set()

        striker = threading.Thread(target=strike)
        striker.start()
        try:
            stack.load(lambda: over.is_set() and len(stack.shots) >= count, CLIENTS, WAYS)
        finally:
            striker.join()

    return lambda _lab, stacks, count: each(stacks, lambda stack: one(stack, count))


def healthy(_lab: Lab, stacks: list[Stack], count: int) -> None:
    """No fault at all, with 2.5 ms of delay each way."""

    def one(stack: Stack) -> None:
        slow = Flow(delay=0.0025)
        stack.proxy.flow(up=slow, down=slow, fresh=True)
        for way in islice(cycle(WAYS), count):
            stack.publish(way)
        time.sleep(0.2)
        stack.proxy.heal()

    each(stacks, one)


def once(_lab: Lab, stacks: list[Stack], count: int) -> None:
    """ONE half-open event, then a long load."""

    def one(stack: Stack) -> None:
        stack.warm()
        stack.proxy.flow(up=SWALLOW, down=SWALLOW)
        for _ in range(count):
            stack.publish()
        time.sleep(SETTLE)
        stack.proxy.heal()

    each(stacks, one)


def outage(seconds: float, ways: Sequence[str] = WAYS) -> Callable[[Lab, list[Stack], int], None]:
    """The broker is away for so long, its connections closed and new ones refused, while clients publish."""

    def run(_lab: Lab, stacks: list[Stack], count: int) -> None:
        def one(stack: Stack) -> None:
            stack.warm()
            stack.proxy.refuse()
            threading.Timer(seconds, stack.proxy.heal).start()
            end = time.monotonic() + seconds
            stack.load(lambda: time.monotonic() > end and len(stack.shots) >= count, CLIENTS, ways)
            stack.settle()  # for it cuts once more
            stack.proxy.heal()

        each(stacks, one)

    return run


def broker_away(how: str, ways: Sequence[str] = WAYS) -> Callable[[Lab, list[Stack], int], None]:
    """The broker is stopped or killed, and started again or not yet, before each publish."""

    def run(lab: Lab, stacks: list[Stack], count: int) -> None:
        for way in islice(cycle(ways), count):
            each(stacks, lambda stack: stack.warm())
            lab.broker.stop() if "stop" in how else lab.broker.kill()
            if "restart" in how:
                lab.broker.start()
            each(stacks, lambda stack, way=way: stack.publish(way))
            if "restart" not in how:
                lab.broker.start()

    return run


def broker_flaps(lab: Lab, stacks: list[Stack], count: int) -> None:
    """The broker is killed and started again and again under load."""
    over = threading.Event()

    def flap() -> None:
        while not over.wait(1.5):
            lab.broker.kill()
            over.wait(1)
            lab.broker.start()

    flapper = threading.Thread(target=flap)
    end = time.monotonic() + 30
    flapper.start()
    try:
        each(
            stacks,
            lambda stack: stack.load(lambda: time.monotonic() > end and len(stack.shots) >= count, CLIENTS, WAYS),
        )
    finally:
        over.set()
        flapper.join()


Alarm = Callable[..., None]  # of a broker, `on` or not


def alarm(raised: Alarm, *, dies: bool = False) -> Callable[[Lab, list[Stack], int], None]:
    """An alarm blocks publishers; `dies`: the API's container is killed before it is over."""

    def run(lab: Lab, stacks: list[Stack], count: int) -> None:
        for way in islice(cycle(WAYS), count):
            each(stacks, lambda stack: stack.warm())
            raised(lab.broker, on=True)
            each(stacks, lambda stack, way=way: stack.publish(way))
            if dies:
                each(stacks, lambda stack: stack.container.restart(kill=True))
            raised(lab.broker, on=False)
            if dies:
                each(stacks, lambda stack: stack.container.wait_ready(stack.port))

    return run


def alarm_loaded(raised: Alarm) -> Callable[[Lab, list[Stack], int], None]:
    """Clients publish all the time, and the alarm comes and goes."""

    def run(lab: Lab, stacks: list[Stack], count: int) -> None:
        over = threading.Event()

        def strike() -> None:
            for _ in range(max(count // PER_STRIKE, 3)):
                time.sleep(GAP)
                raised(lab.broker, on=True)
                time.sleep(LASTS[True])
                raised(lab.broker, on=False)
            over.set()

        striker = threading.Thread(target=strike)
        striker.start()
        try:
            each(stacks, lambda stack: stack.load(lambda: over.is_set() and len(stack.shots) >= count, CLIENTS, WAYS))
        finally:
            striker.join()

    return run


def consumes_in_alarm(lab: Lab, stacks: list[Stack], count: int) -> None:
    """A worker has to connect anew while a memory alarm blocks publishers, with tasks in its queue.

    Consuming is what ends an alarm. What has not run when it is over counts as hung.
    """

    def before(stack: Stack) -> list[Submitted]:
        stack.proxy.refuse()
        return stack.queue(count)

    submitted = {stack.contender: before(stack) for stack in stacks}
    since = {stack.contender: len(stack.container.stderr) for stack in stacks}
    lab.broker.memory_alarm(on=True)
    try:
        until = time.monotonic() + ALARM
        each(stacks, lambda stack: stack.proxy.door("open"))
        each(stacks, lambda stack: stack.note(submitted[stack.contender], since[stack.contender], until))
    finally:
        lab.broker.memory_alarm(on=False)
    each(stacks, _consumes)


def _consumes(stack: Stack) -> None:
    """See that it consumes now; else the worker itself counts as broken, and is started again."""
    if stack.publish(counted=False).status != 200:
        stack.shots.append(Shot(token(), 0, 0.0))
        stack.container.restart(kill=True)
        stack.wait_ready()


def cold(_lab: Lab, stacks: list[Stack], count: int) -> None:
    """The broker is away, longer than a timeout, when a process that has never published does."""

    def one(stack: Stack) -> None:
        for way in islice(cycle(WAYS), count):
            stack.container.restart(kill=True)
            stack.container.wait_ready(stack.port)
            stack.proxy.door("refuse")
            back = threading.Timer(LASTS[False] + PUBLISH.timeout * SCALE, stack.proxy.heal)
            back.start()
            stack.publish(way)
            back.join()

    each(stacks, one)


def interrupted(how: Callable[[Stack], None]) -> Callable[[Lab, list[Stack], int], None]:
    """The broker is away while somebody publishes; before it is back, what keeps those tasks is interrupted."""

    def one(stack: Stack, count: int) -> None:
        stack.warm()
        stack.proxy.refuse()
        for way in islice(cycle(WAYS), count):
            stack.publish(way)
        how(stack)
        stack.container.wait_ready(stack.port)

    return lambda _lab, stacks, count: each(stacks, lambda stack: one(stack, count))


def _worker_signalled(number: int) -> Callable[[Stack], None]:
    def how(stack: Stack) -> None:
        for process in stack.container.processes()[1:]:
            stack.signal(process.pid, number)
        time.sleep(SETTLE)
        stack.proxy.heal()

    return how


def _container_killed(stack: Stack) -> None:
    """The broker is back before the next one starts: Plane's own start needs it."""
    stack.signal(stack.container.process.pid, signal.SIGKILL)
    stack.container.wait()
    stack.proxy.heal()
    stack.container.start()


def _pod_replaced(stack: Stack) -> None:
    stack.delete()
    stack.proxy.heal()
    stack.create()


INTERRUPTIONS = [
    ("term", "gunicorn's worker is rotated", _worker_signalled(signal.SIGTERM)),
    ("kill", "gunicorn's worker is killed", _worker_signalled(signal.SIGKILL)),
    ("container", "the container is killed", _container_killed),
    ("pod", "the pod is replaced", _pod_replaced),
]


def workers(number: int) -> Callable[[Lab, list[Stack], int], None]:
    """Under load, gunicorn's worker process is sent a signal again and again."""

    def one(stack: Stack, count: int) -> None:
        stack.warm()
        over = threading.Event()

        def strike() -> None:
            while not over.wait(1.5):
                for process in stack.container.processes()[1:]:
                    stack.signal(process.pid, number)

        striker = threading.Thread(target=strike)
        striker.start()
        end = time.monotonic() + 8
        try:
            stack.load(lambda: time.monotonic() > end and len(stack.shots) >= count, CLIENTS, WAYS)
        finally:
            over.set()
            striker.join()
            stack.container.wait_ready(stack.port)

    return lambda _lab, stacks, count: each(stacks, lambda stack: one(stack, count))


# Of workers and beat: what only there could go another way than in the API, each for those that differ there.
BY_CELERY = {
    "worker": ("half-open", "dropped-silence", "write-reset", "stale-answer", "partition"),
    "beat": ("half-open", "dropped-silence", "write-reset", "ack-silence", "stale-answer"),
}
BOTH = ("upstream", "ours")
IDLE = 3.0  # seconds: six of the scaled timeouts
ALARM = 30.0  # seconds that an alarm lasts: longer than a worker's pauses before it connects anew
FEW = 5  # publishes of a cell in which each costs the broker's command line, some seconds
QUEUED = 15  # tasks

QUICK = {
    "half-open",
    "half-open-up",
    "dropped-silence",
    "dropped-fin",
    "write-reset",
    "frame-reset",
    "ack-half",
    "no-queue",
    "stale-answer",
}

CELLS = [
    *(
        Cell(
            fault.name,
            fault.title,
            first(fault),
            SECONDS if fault.slow else MILLISECONDS,
            loses=fault.loses,
            quick=fault.name in QUICK,
            heals=fault.name != "unbound",
        )
        for fault in FAULTS
    ),
    *(
        Cell(f"{fault.name}@load", f"{fault.title}; under load", loaded(fault), MILLISECONDS, loses=fault.loses)
        for fault in FAULTS
        if fault.name not in ("no-queue", "unbound", "stale-answer")
    ),
    *(
        Cell(
            f"{fault.name}@defaults",
            f"{fault.title}; default timeouts",
            first(fault),
            AT_DEFAULTS,
            kind="default",
            loses=fault.loses,
        )
        for fault in FAULTS
        if fault.name
        in ("half-open", "half-open-down", "ack-silence", "ack-half", "trickle", "trickle-all", "partition", "glitch")
    ),
    *(
        Cell(f"tls-{fault.name}", f"amqps: {fault.title}", first(fault), SECONDS, kind="tls", loses=fault.loses)
        for fault in FAULTS
        if fault.name in ("half-open", "half-open-down", "idle-reset", "partition", "trickle", "trickle-all")
    ),
    *(Cell(fault.name, fault.title, first(fault), SECONDS, kind="dns", loses=False) for fault in NAMES),
    *(
        Cell(
            f"{kind}-{fault.name}",
            f"{kind}: {fault.title}",
            first(fault, CELERY_WAYS),
            SECONDS,
            kind=kind,
            loses=fault.loses,
            quick=fault.name in ("half-open", "partition"),
            contenders=BOTH,
        )
        for kind, names in BY_CELERY.items()
        for fault in FAULTS
        if fault.name in names
    ),
    Cell(
        "worker-idle",
        "worker: idle for 3 s, then half-open",
        first(next(fault for fault in FAULTS if fault.name == "half-open"), CELERY_WAYS, IDLE),
        SECONDS,
        kind="worker",
        contenders=BOTH,
    ),
    *(
        Cell(
            f"{kind}-broker-kill-restart",
            f"{kind}: broker killed and started again",
            broker_away("kill restart", CELERY_WAYS),
            SECONDS,
            kind=kind,
            loses=False,
            contenders=BOTH,
        )
        for kind in BY_CELERY
    ),
    Cell(
        "beat-alarm",
        "beat: blocked by a memory alarm",
        alarm(Broker.memory_alarm),
        FEW,
        kind="beat",
        loses=False,
        contenders=BOTH,
        clean=True,
    ),
    Cell(
        "worker-outage-3s",
        "worker: broker away for 3 s, under load",
        outage(3, CELERY_WAYS),
        SECONDS,
        kind="worker-default",
        loses=False,
        contenders=BOTH,
    ),
    Cell("once", "ONE half-open event, then a long load", once, 2500),
    Cell("delay", "2.5 ms each way, no fault", healthy, MILLISECONDS, loses=False),
    # Each process is killed as the broker comes back, and the next one does not wait for what it had kept.
    Cell("cold", "connection refused for 0.9 s, first publish of a process", cold, SECONDS, loses=False, ordered=False),
    Cell("outage-3s", "broker away for 3 s, under load", outage(3), SECONDS, kind="default", loses=False, clean=True),
    Cell(
        "outage-30s", "broker away for 30 s, under load", outage(30), SECONDS, kind="default", loses=False, clean=True
    ),
    Cell(
        "worker-term",
        "worker TERMed again and again under load",
        workers(signal.SIGTERM),
        MILLISECONDS,
        loses=False,
        kills=True,
    ),
    Cell(
        "worker-kill",
        "worker killed again and again under load",
        workers(signal.SIGKILL),
        MILLISECONDS,
        loses=False,
        kills=True,
    ),
    Cell("broker-restart", "broker stopped and started again", broker_away("stop restart"), SECONDS, loses=False),
    Cell("broker-kill-restart", "broker killed and started again", broker_away("kill restart"), SECONDS, loses=False),
    Cell("broker-killed", "broker killed, publish while it is gone", broker_away("kill"), SECONDS, loses=False),
    Cell("broker-flaps", "broker killed and started again and again, under load", broker_flaps, MILLISECONDS),
    Cell(
        "alarm", "blocked by a memory alarm", alarm(Broker.memory_alarm), SECONDS, loses=False, quick=True, clean=True
    ),
    Cell(
        "alarm-exit",
        "blocked by a memory alarm, and the container is killed",
        alarm(Broker.memory_alarm, dies=True),
        SECONDS,
        ordered=False,
    ),
    Cell("alarm-disk", "blocked by a disk alarm", alarm(Broker.disk_alarm), FEW, loses=False, clean=True),
    Cell(
        "alarm@load",
        "memory alarms that come and go; under load",
        alarm_loaded(Broker.memory_alarm),
        MILLISECONDS,
        loses=False,
        clean=True,
    ),
    Cell(
        "alarm-disk@load",
        "disk alarms that come and go; under load",
        alarm_loaded(Broker.disk_alarm),
        MILLISECONDS,
        loses=False,
        clean=True,
    ),
    Cell(
        "consumer-alarm",
        "worker: connects anew in a memory alarm, 15 tasks queued",
        consumes_in_alarm,
        QUEUED,
        kind="consumer",
        loses=False,
        quick=True,
        contenders=BOTH,
    ),
    *(
        Cell(
            fault.name,
            f"two brokers: {fault.title}",
            first(fault),
            SECONDS,
            kind="nodes",
            loses=False,
            quick=fault.name == "nodes-first-deaf",
            contenders=BOTH,
        )
        for fault in NODES
    ),
    *(
        Cell(
            fault.name,
            fault.title,
            first(fault),
            FEW,
            loses=fault.loses,
            heals=fault in HEALING,
            contenders=BOTH,
        )
        for fault in REFUSALS
    ),
    Cell(
        "user-deleted",
        USER_DELETED.title,
        first(USER_DELETED),
        FEW,
        kind="own-user",
        loses=USER_DELETED.loses,
        heals=False,
        contenders=BOTH,
    ),
    Cell(
        "too-large",
        TOO_LARGE.title,
        first(TOO_LARGE, ("large",)),
        SECONDS,
        kind="strict",
        heals=False,
        contenders=BOTH,
    ),
    *(
        Cell(
            f"spool-{name}",
            f"broker away, then {title}",
            interrupted(interruption),
            SECONDS,
            loses=False,
            quick=name in ("kill", "container"),
            kills=True,
            contenders=BOTH,
        )
        for name, title, interruption in INTERRUPTIONS
    ),
    *(
        Cell(fault.name, fault.title, first(fault), SECONDS, kind=kind, loses=False, heals=False, contenders=BOTH)
        for fault, kind in SPOOLS
    ),
    *(
        Cell(
            kind,
            f"broker away while somebody publishes, {title}",
            interrupted(lambda stack: stack.proxy.heal()),
            SECONDS,
            kind=kind,
            loses=False,
            heals=False,
            contenders=BOTH,
        )
        for kind, title in (("small-spool", "with room for 3 tasks"), ("no-spool", "without a spool"))
    ),
]
BY_NAME = {cell.name: cell for cell in CELLS}
