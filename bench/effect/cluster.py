"""`python -m bench.effect.cluster`: a node of a RabbitMQ cluster is killed, upstream and ours side by side.

It is the node on which Plane's queue was declared and to which Plane is connected. As a Service would, the address that
Plane has leads to another node from then on. The load is that of bench/effect/trouble.py.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench.effect.figures import HEADING, row
from bench.effect.lab import each
from bench.effect.results import aligned
from bench.effect.stack import Stack, vhosts
from bench.effect.trouble import CONTENDERS, Trouble, load, measure, show
from lab import images
from lab.cache import LabError, say
from lab.cluster import Cluster
from lab.process import exit_on_sigterm
from lab.rabbitmq import KINDS

if TYPE_CHECKING:
    from bench.effect.figures import Figures
    from lab.broker import Broker


def main() -> int:
    """Read the arguments, run, print; exit code 1 if ours lost anything silently."""
    parser = argparse.ArgumentParser(prog="python -m bench.effect.cluster", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the node is gone")
    load(parser)
    given = parser.parse_args()
    exit_on_sigterm()
    rows: list[Figures] = []
    try:
        for kind in given.kinds:
            say(f"{kind}: a node of three is killed for {given.seconds:g} s")
            rows += lose_a_node(kind, given)
    except LabError as error:
        say(str(error))
        return 2
    print("\n" + aligned([HEADING, *map(row, rows)]))
    return int(any(one.lost_exports + one.lost_logs for one in rows if one.contender == "ours"))


def lose_a_node(kind: str, given: argparse.Namespace) -> tuple[Figures, ...]:
    """Put both contenders on a new cluster of that kind and kill the node that they are on."""
    with Cluster(kind) as cluster, ExitStack() as exiting:
        doomed, other, _ = cluster.nodes

        def begin(_broker: Broker, stacks: list[Stack]) -> None:
            doomed.kill()
            for stack in stacks:
                stack.proxy.target = other.port

        trouble = Trouble("a node of the cluster is killed", begin, lambda _broker, _stacks: doomed.start())
        vhosts(other, CONTENDERS)
        image = images.build()
        stacks = [Stack(name, other, image, vhost=name, postgres=True) for name in CONTENDERS]  # looked at from there
        for stack in stacks:
            stack.proxy.target = doomed.port
        each(stacks, exiting.enter_context)
        found = measure(other, stacks, trouble, given.seconds, given, name=kind)
        show(trouble, found)
        return found


if __name__ == "__main__":
    sys.exit(main())
