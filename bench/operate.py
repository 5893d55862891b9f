"""`python -m bench.operate`: what `plane-webhook operate` takes, at rest and in a cluster with many pods.

The program as it is shipped, on a real control plane: first with nothing to look at, then with 10,000 pods of which 50
are Plane's, in the one namespace that is opted in; and, as the worst that there can be, with the namespace of the other
9,950 opted in too.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from lab.cache import LabError, say
from lab.controlplane import ControlPlane
from lab.process import exit_on_sigterm, wait_for
from tests.e2e.cluster import INJECT, api_pod, create
from tests.e2e.operating import APPLY, OWN, Operate, metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

PLANE, OTHERS = "plane", "others"
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.operate", description=__doc__)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--planes", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="for which CPU is counted")
    given = parser.parse_args()
    exit_on_sigterm()
    try:
        with ControlPlane() as plane:
            plane.kubectl(*APPLY)
            wait_for(lambda: account(plane), 30, "its account")
            plane.namespace(OTHERS)
            print("| | RSS | of a core | a look at the pods takes |\n|-|-|-|-|", flush=True)
            print(row(plane, "at rest", given.seconds), flush=True)
            plane.namespace(PLANE, INJECT)
            fill(plane, PLANE, given.planes)
            fill(plane, OTHERS, given.pods - given.planes)
            name = f"{given.pods} pods, {given.planes} of them Plane's and in the namespace that is opted in"
            print(row(plane, name, given.seconds), flush=True)
            plane.namespace(OTHERS, INJECT)
            print(row(plane, f"{given.pods} pods, all in namespaces that are opted in", given.seconds), flush=True)
    except LabError as error:
        say(str(error))
        return 2
    return 0


def account(plane: ControlPlane) -> bool:
    """Whether there is the ServiceAccount."""
    return plane.api.get(f"/api/v1/namespaces/{OWN}/serviceaccounts/plane-webhook-operate").is_success


def fill(plane: ControlPlane, namespace: str, count: int) -> None:
    """Make pods; those of the namespace `plane` run Plane's API."""
    others = {"image": "registry.example/web:1", "command": ["sleep", "60"]}

    def make(number: int) -> None:
        pod = api_pod(f"pod-{number}", **({} if namespace == PLANE else others))
        try:
            create(plane, namespace, pod).raise_for_status()
        except httpx.RemoteProtocolError:  # an API server ends a connection now and then
            assert create(plane, namespace, pod).status_code in (httpx.codes.CREATED, httpx.codes.CONFLICT)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(count)))


def row(plane: ControlPlane, name: str, seconds: float) -> str:
    """One row of the table, by an `operate` that is started for it."""
    with Operate(plane, impatient=False) as operate:
        wait_for(lambda: "plane_webhook_operate_pods{" in metrics(operate) or name == "at rest", 60, "its first look")
        time.sleep(10)
        pid, before, began = operate.process.pid, cpu(operate.process.pid), time.monotonic()
        peak = max(watched(pid, began + seconds))
        share = (cpu(pid) - before) / (time.monotonic() - began)
        return f"| {name} | {peak >> 20} MiB | {share:.2%} | {look(plane):.2f} s |"


def watched(pid: int, until: float) -> Iterator[int]:
    """Bytes of RSS, each half second."""
    while time.monotonic() < until:
        yield int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        time.sleep(0.5)


def cpu(pid: int) -> float:
    """Seconds of CPU so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def look(plane: ControlPlane) -> float:
    """Seconds that the API server takes to hand out all pods of the namespaces that are opted in, by pages of 50."""
    began = time.monotonic()
    found = plane.api.get("/api/v1/namespaces", params={"labelSelector": "plane-webhook/inject=enabled"}).json()
    for each in found["items"]:
        more = {"limit": "50"}
        while more:
            page = plane.api.get(f"/api/v1/namespaces/{each['metadata']['name']}/pods", params=more)
            token = page.json()["metadata"].get("continue")
            more = {"limit": "50", "continue": token} if token else {}
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
