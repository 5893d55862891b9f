"""`python -m bench.plane CHECKOUT`: the real Plane as its chart runs it and under the injection, side by side.

CHECKOUT is a folder with Plane's own sources (github.com/makeplane/plane), which stays as it is.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bench.effect.contenders import injected
from bench.effect.results import aligned
from bench.effect.stack import vhosts
from bench.plane import flows, outage, worker
from bench.plane.outage import TROUBLES
from bench.plane.together import each
from lab.broker import Broker
from lab.cache import LabError, say
from lab.packages import ensure_packages
from lab.process import exit_on_sigterm
from lab.realplane import image
from lab.realplane.release import READY, Release

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.kubelet import Json
    from lab.realplane.pod import Workload

UPSTREAM, OURS = "upstream", "ours"
PROOF = "/plane-webhook/proof"
WORKLOADS: tuple[Workload, ...] = ("api", "worker", "beat")
# What Celery prints when it is what it is going to be; its log lines Plane's logging may hide.
BANNERS: dict[Workload, str] = {"worker": "[tasks]", "beat": "is starting"}
PARTS = (*(trouble.name for trouble in TROUBLES), "flows", "worker", "proof")


def main() -> int:
    """Run the parts that were asked for; exit code 1 if ours lost a task silently or did anything another way."""
    parser = argparse.ArgumentParser(prog="python -m bench.plane", description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="of: " + ", ".join(PARTS))
    given = parser.parse_args()
    chosen = [part for part in PARTS if any(fnmatch.fnmatch(part, pattern) for pattern in given.only)]
    exit_on_sigterm()
    try:
        ensure_packages()
        plane = image.build(given.checkout)
        with ExitStack() as stack:
            broker = stack.enter_context(Broker())
            vhosts(broker, (UPSTREAM, OURS))
            releases = [
                Release(UPSTREAM, plane, broker, inject=lambda pod: pod),
                Release(OURS, plane, broker, inject=ours),
            ]
            say("starting two releases of the real Plane")
            each(releases, stack.enter_context)
            wrong = run(releases, chosen)
    except LabError as error:
        say(str(error))
        return 2
    print("\n".join(["", *wrong]) if wrong else "\nnothing lost silently, nothing done another way by ours")
    return int(bool(wrong))


def ours(pod: Json) -> Json:
    """What the webhook makes of a pod, asked to inject all the workloads there are."""
    return injected(pod, {"workloads": list(WORKLOADS)})


def run(releases: Sequence[Release], chosen: Sequence[str]) -> list[str]:
    """Run the parts one after the other and print what they show; what is wrong with ours."""
    wrong: list[str] = []
    lines = [outage.HEADING]
    for trouble in TROUBLES:
        if trouble.name not in chosen:
            continue
        say(f"{trouble.name}: {trouble.exporters} exporters, {trouble.token_rate:g} token reads a second")
        seen = outage.measure(releases, trouble)
        lines += [[trouble.name, name, *found.row()] for name, found in seen.items()]
        print(aligned([outage.HEADING, *lines[-len(seen) :]]), flush=True)
        lost = {kind: seen[OURS].lost(kind) for kind in ("export", "token")}
        wrong += [f"{trouble.name}: {count} tasks of {kind} requests lost" for kind, count in lost.items() if count]
    if len(lines) > 1:
        print(f"\n{aligned(lines)}")
    for part, its in {"flows": walk, "worker": come_back, "proof": prove}.items():
        if part in chosen:
            say(part)
            wrong += [f"{part}: {what}" for what in its(releases)]
    return wrong


def walk(releases: Sequence[Release]) -> list[str]:
    """Walk through the API of both; what differs."""
    walks = flows.measure(releases)
    for name, each_walk in walks.items():
        good = sum(status < 400 for _, status in each_walk.steps)
        print(f"{name}: {len(each_walk.steps)} calls, {good} of them good, {each_walk.tasks.total()} tasks published")
    refused = sorted({f"{step}: {status}" for step, status in walks[UPSTREAM].steps if status >= 400})
    print("\n".join(["refused by upstream too:", *refused]))
    return flows.differences(walks[UPSTREAM], walks[OURS])


def come_back(releases: Sequence[Release]) -> list[str]:
    """Have the workers work in an alarm; what ours did worse than upstream's."""
    lines, wrong = [worker.HEADING], []
    for case in worker.CASES:
        seen = worker.measure(releases, case)
        lines += [[case.name, name, *found.row()] for name, found in seen.items()]
        wrong += [f"{case.name}: {what}" for what in worker.worse(seen[OURS], seen[UPSTREAM])]
    print("\n" + aligned(lines))
    return wrong


def prove(releases: Sequence[Release]) -> list[str]:
    """Ask each injected container's own proof; what it finds amiss."""
    release = next(release for release in releases if release.name == OURS)
    wrong = []
    for workload in WORKLOADS:
        container = release.api if workload == "api" else release.run(workload)
        container.wait_for_log(BANNERS.get(workload, ""), timeout=READY)
        asked = container.exec([PROOF])
        print(f"proof in {workload}: exit code {asked.returncode}")
        wrong += (
            [f"{workload}: exit code {asked.returncode}:\n{asked.stdout}{asked.stderr}"] if asked.returncode else []
        )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
