"""The faults between Plane and the broker that one fault proxy makes: how each begins and ends.

`begin` breaks, `end` mends (cutting what stayed broken, so that the next publish starts from a good one). A fault
that passes by itself starts a timer in `begin`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.faults import HOLD, SWALLOW, AtPublish, Flow

if TYPE_CHECKING:
    from bench.effect.stack import Stack
    from lab.dns import Mode
    from lab.faults import Door

BRIEF = 0.3  # seconds: shorter than the retries' sum, longer than the first of them
GLITCH = 0.25  # seconds: half of the scaled timeout

SETTLE = 0.03  # seconds in which what was written reaches the broker: mending must not itself lose anything

Deed = Callable[["Stack"], None]


@dataclass(frozen=True)
class Fault:
    """A fault, how much it costs a publisher that notices it, and whether a publisher that doesn't loses by it."""

    name: str
    title: str
    begin: Deed
    end: Deed = lambda stack: stack.proxy.heal()
    slow: bool = False  # costs seconds even with scaled timeouts
    loses: bool = True  # upstream must be seen to lose, or the cell proves nothing


def _at_publish(shot: AtPublish) -> Deed:
    return lambda stack: stack.proxy.at_publish(shot)


def _flow(*, up: Flow, down: Flow, fresh: bool = False) -> Deed:
    return lambda stack: stack.proxy.flow(up=up, down=down, fresh=fresh)


def _passing(begin: Deed, after: float) -> Deed:
    """It begins, and is over by itself."""

    def deed(stack: Stack) -> None:
        begin(stack)
        stack.timer = threading.Timer(after, stack.proxy.heal, kwargs={"cut": False})
        stack.timer.daemon = True
        stack.timer.start()

    return deed


def _passed(stack: Stack) -> None:
    if stack.timer is not None:
        stack.timer.join()
        stack.settle()  # what is cut now would be the lab's doing
    stack.proxy.heal()


def _cut(*, reset: bool) -> Deed:
    def deed(stack: Stack) -> None:
        stack.proxy.cut(reset=reset)
        time.sleep(0.02)  # for the client's kernel to hear of it

    return deed


def _shut(how: Door) -> Deed:
    def deed(stack: Stack) -> None:
        stack.proxy.door(how)
        stack.proxy.cut()

    return deed


def _partition(stack: Stack) -> None:
    stack.proxy.door("deaf")
    stack.proxy.flow(up=SWALLOW, down=SWALLOW)


def _trickle(stack: Stack) -> None:
    stack.proxy.flow(down=Flow(rate=1 / stack.scale))


def _trickle_all(stack: Stack) -> None:
    stack.proxy.flow(up=SWALLOW, down=SWALLOW)
    stack.proxy.flow(down=Flow(rate=1 / stack.scale), live=False, fresh=True)


def _no_queue(stack: Stack) -> None:
    stack.delete_queue()


def _unbound(stack: Stack) -> None:
    stack.unbind_queue()


def _stale_answer(stack: Stack) -> None:
    """One without a route, acknowledged late, then one that is swallowed: no answer may pass for that to another."""
    _no_queue(stack)
    stack.proxy.flow(down=Flow(keep_ack=True))
    stack.publish("send_task", counted=False)
    stack.declare_queue()
    stack.proxy.at_publish(AtPublish())


def mend_queue(stack: Stack) -> None:
    """Make what may have been deleted of queue, exchange and binding, and connect anew."""
    stack.declare_queue()
    stack.proxy.heal()


FAULTS = [
    Fault("half-open", "half-open, both ways", _flow(up=SWALLOW, down=SWALLOW)),
    Fault("half-open-up", "half-open, towards the broker", _flow(up=SWALLOW, down=Flow())),
    Fault("half-open-down", "half-open, from the broker", _flow(up=Flow(), down=SWALLOW), loses=False),
    Fault("dropped-silence", "bytes accepted, then dropped; silence", _at_publish(AtPublish())),
    Fault(
        "dropped-fin",
        "bytes accepted, then dropped; closed 20 ms later",
        _at_publish(AtPublish(then="fin", pause=0.02)),
    ),
    Fault("rejected", "accepted, then rejected, for 0.3 s", _passing(_shut("reject"), BRIEF), _passed, loses=False),
    Fault("refused", "connection refused for 0.3 s", _passing(_shut("refuse"), BRIEF), _passed, loses=False),
    Fault(
        "abandoned",
        "accepted, then closed at the first channel, for 0.3 s",
        _passing(_shut("abandon"), BRIEF),
        _passed,
        loses=False,
    ),
    Fault("idle-reset", "reset while idle", _cut(reset=True), loses=False),
    Fault("idle-fin", "closed while idle", _cut(reset=False), loses=False),
    Fault("write-reset", "reset right after the write", _at_publish(AtPublish(then="reset"))),
    Fault("write-fin", "closed right after the write", _at_publish(AtPublish(then="fin"))),
    Fault("frame-reset", "reset in mid-frame", _at_publish(AtPublish(forward=0.5, then="reset"))),
    Fault("frame-fin", "closed in mid-frame", _at_publish(AtPublish(forward=0.5, then="fin"))),
    Fault("frame-silence", "silence in mid-frame", _at_publish(AtPublish(forward=0.5))),
    Fault(
        "ack-reset",
        "acknowledgement lost; reset",
        _at_publish(AtPublish(forward=1, then="reset", pause=0.03)),
        loses=False,
    ),
    Fault("ack-silence", "acknowledgement lost; silence", _at_publish(AtPublish(forward=1)), loses=False),
    Fault("ack-half", "half an acknowledgement, then silence", _at_publish(AtPublish(forward=1, reply=9)), loses=False),
    Fault(
        "trickle",
        "the broker's bytes trickle, one a second",
        _trickle,
        slow=True,
        loses=False,
    ),
    Fault(
        "trickle-all",
        "half-open, and new connections' bytes trickle",
        _trickle_all,
        slow=True,
    ),
    Fault("partition", "partition: silence, SYNs unanswered", _partition, slow=True),
    Fault(
        "glitch",
        "everything held for half a timeout",
        _passing(_flow(up=HOLD, down=HOLD), GLITCH),
        _passed,
        loses=False,
    ),
    Fault("no-queue", "queue missing (deleted while connected)", _no_queue, mend_queue),
    Fault("unbound", "queue unbound from its exchange", _unbound, mend_queue, loses=False),
    Fault("stale-answer", "one without a route, then one dropped", _stale_answer, mend_queue),
]


def _resolver(mode: Mode, delay: float = 0.0) -> Deed:
    """The connection is closed, and the name has to be resolved again."""

    def deed(stack: Stack) -> None:
        stack.names.mode, stack.names.delay = mode, delay
        _cut(reset=False)(stack)

    return deed


# Of stacks that find the broker by name. Nobody loses by these silently: what they show is that no request hangs.
NAMES = [
    Fault("dns-slow", "closed, and the name takes 1 s to resolve", _resolver("answer", 1.0), _resolver("answer")),
    Fault("dns-fails", "closed, and the name server fails", _resolver("fail"), _resolver("answer")),
    Fault("dns-silent", "closed, and the name server is silent", _resolver("silent"), _resolver("answer")),
]


def _dead(how: str, node: int) -> Deed:
    """One of two addresses is dead, in one of the ways; the other is fine, and the connection to it ends."""

    def deed(stack: Stack) -> None:
        dead, good = stack.nodes[node], stack.nodes[1 - node]
        if how == "half-open":
            dead.flow(up=SWALLOW, down=SWALLOW, fresh=True)
        else:
            dead.door(how)
            dead.flow(up=SWALLOW, down=SWALLOW)
        if how == "refuse":
            dead.cut(reset=True)
        good.cut()

    return deed


def _alive(stack: Stack) -> None:
    for node in stack.nodes:
        node.heal()


# Of stacks that have a list of brokers. Nobody loses by these but whose connection was to the one that fell silent.
NODES = [
    Fault(f"nodes-{which}-{name}", f"the {which} one {title}", _dead(how, node), _alive)
    for node, which in enumerate(("first", "second"))
    for how, name, title in (
        ("refuse", "refused", "refuses"),
        ("deaf", "deaf", "is silent, SYNs unanswered"),
        ("half-open", "half-open", "takes connections and is silent"),
    )
]


def _no_redis(stack: Stack) -> None:
    stack.redis.stop()
    _shut("refuse")(stack)


def _redis(stack: Stack) -> None:
    stack.redis.start()
    stack.proxy.heal()


def _silent_redis(stack: Stack) -> None:
    stack.redis_proxy.flow(up=SWALLOW, down=SWALLOW, fresh=True)
    _shut("refuse")(stack)


def _redis_speaks(stack: Stack) -> None:
    stack.redis_proxy.heal()
    stack.proxy.heal()


# What can't be kept is an error, at once: with the kind of stack that each needs.
SPOOLS = [
    (Fault("spool-away", "broker away, and Redis too", _no_redis, _redis), "scaled"),
    (Fault("spool-half-open", "broker away, and Redis half-open", _silent_redis, _redis_speaks), "far-redis"),
]
