"""`python -m bench.effect.cluster`: a node of a RabbitMQ cluster is killed, or drained, upstream and ours side by side.

It is the node on which Plane's queue was declared and to which Plane is connected. As a Service would, the address that
Plane has leads to another node from then on. The load is that of bench/effect/trouble.py.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from itertools import product
from typing import TYPE_CHECKING

from bench.effect.figures import HEADING, row
from bench.effect.lab import each
from bench.effect.results import aligned
from bench.effect.stack import Stack, vhosts
from bench.effect.trouble import CONTENDERS, Trouble, load, measure, show
from lab import images
from lab.broker import Broker
from lab.cache import LabError, say
from lab.cluster import Cluster
from lab.process import exit_on_sigterm
from lab.rabbitmq import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.effect.figures import Figures


# What is done to the node, and how it comes back: as an operator takes one out for maintenance, too.
WAYS: dict[str, tuple[Callable[[Broker], object], Callable[[Broker], object]]] = {
    "killed": (Broker.kill, Broker.start),
    "drained": (Broker.drain, Broker.revive),
}


def main() -> int:
    """Read the arguments, run, print; exit code 1 if ours lost anything silently."""
    parser = argparse.ArgumentParser(prog="python -m bench.effect.cluster", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the node is gone")
    load(parser)
    given = parser.parse_args()
    exit_on_sigterm()
    rows: list[Figures] = []
    try:
        for kind, way in product(given.kinds, given.ways):
            say(f"{kind}: a node of three is {way} for {given.seconds:g} s")
            rows += lose_a_node(kind, way, given)
    except LabError as error:
        say(str(error))
        return 2
    print("\n" + aligned([HEADING, *map(row, rows)]))
    return int(any(one.lost_exports + one.lost_logs for one in rows if one.contender == "ours"))


def lose_a_node(kind: str, way: str, given: argparse.Namespace) -> tuple[Figures, ...]:
    """Put both contenders on a new cluster of that kind and lose the node that they are on, in one of `WAYS`."""
    lose, bring_back = WAYS[way]
    with Cluster(kind) as cluster, ExitStack() as exiting:
        doomed, other, _ = cluster.nodes

        def begin(_broker: Broker, stacks: list[Stack]) -> None:
            lose(doomed)
            for stack in stacks:
                stack.proxy.target = other.port

        trouble = Trouble(f"a node of the cluster is {way}", begin, lambda _broker, _stacks: bring_back(doomed))
        vhosts(other, CONTENDERS)
        image = images.build()
        stacks = [Stack(name, other, image, vhost=name, postgres=True) for name in CONTENDERS]  # looked at from there
        for stack in stacks:
            stack.proxy.target = doomed.port
        each(stacks, exiting.enter_context)
        found = measure(other, stacks, trouble, given.seconds, given, name=f"{kind} {way}")
        show(trouble, found)
        return found


if __name__ == "__main__":
    sys.exit(main())
