"""`python -m bench.operate`: what `plane-webhook operate` takes, at rest and in a cluster with many pods.

The program as it is shipped, on a real control plane: first with nothing to look at, then with 10,000 pods of which 50
are Plane's, in the one namespace that is opted in; and, as the worst that there can be, with 10,000 injected pods more
in another one. A pod that slips by is made right after a look, so that the next one is as far away as it can be.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from lab.cache import LabError, say
from lab.controlplane import ControlPlane
from lab.injected import inject
from lab.operating import APPLY, OWN, Operate, metrics
from lab.pods import INJECT, api_pod, create
from lab.process import cpu_seconds, exit_on_sigterm, wait_for
from webhook.cluster.api import Api
from webhook.cluster.census import Census, namespaces
from webhook.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

PLANE, OTHERS, MANY = "plane", "others", "many"


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
            head = ("", "RSS", "of a core", "a first look takes", "a later one", "slipped by is said after")
            print(f"| {' | '.join(head)} |\n|{'-|' * len(head)}", flush=True)
            print(row(plane, "at rest", given.seconds), flush=True)
            plane.namespace(PLANE, INJECT)
            fill(plane, PLANE, given.planes)
            fill(plane, OTHERS, given.pods - given.planes)
            name = f"{given.pods} pods, {given.planes} of them Plane's and in the namespace that is opted in"
            print(row(plane, name, given.seconds), flush=True)
            plane.namespace(MANY, INJECT)
            fill(plane, MANY, given.pods)
            name = f"{given.pods} injected pods more, in another namespace that is opted in"
            print(row(plane, name, given.seconds), flush=True)
    except LabError as error:
        say(str(error))
        return 2
    return 0


def account(plane: ControlPlane) -> bool:
    """Whether there is the ServiceAccount."""
    return plane.api.get(f"/api/v1/namespaces/{OWN}/serviceaccounts/plane-webhook-operate").is_success


def fill(plane: ControlPlane, namespace: str, count: int) -> None:
    """Make pods: Plane's API in the namespace `plane`, the same injected in `many`, somebody else's in `others`."""

    def make(number: int) -> None:
        pod = api_pod(f"pod-{number}")
        if namespace == OTHERS:
            pod = api_pod(f"pod-{number}", image="registry.example/web:1", command=["sleep", "60"])
        elif namespace == MANY:
            pod = inject(pod)
        try:
            create(plane, namespace, pod).raise_for_status()
        except httpx.RemoteProtocolError:  # an API server ends a connection now and then
            assert create(plane, namespace, pod).status_code in (httpx.codes.CREATED, httpx.codes.CONFLICT)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(count)))


def row(plane: ControlPlane, name: str, seconds: float) -> str:
    """One row of the table, by an `operate` that is started for it."""
    with Operate(plane, impatient=False) as operate:
        wait_for(lambda: "plane_webhook_operate_pods{" in metrics(operate) or name == "at rest", 120, "its first look")
        time.sleep(10)
        pid, before, began = operate.process.pid, cpu_seconds(operate.process.pid), time.monotonic()
        peak = max(watched(pid, began + seconds))
        share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
        late = "" if name == "at rest" else f"{max(said_after(plane) for _ in range(3)):.0f} s"
        first, later = looks(plane)
        return f"| {name} | {peak >> 20} MiB | {share:.2%} | {first:.2f} s | {later:.2f} s | {late} |"


def watched(pid: int, until: float) -> Iterator[int]:
    """Bytes of RSS, each half second."""
    while time.monotonic() < until:
        yield int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        time.sleep(0.5)


def looks(plane: ControlPlane) -> tuple[float, float]:
    """Seconds of a first look at the pods of the namespaces that are opted in, and of a second one."""
    api = Api.connect(plane.kubeconfig)
    census, times = Census(api, Settings()), [time.monotonic()]
    for _ in range(2):
        census.look(namespaces(api))
        times.append(time.monotonic())
    return times[1] - times[0], times[2] - times[1]


def said_after(plane: ControlPlane) -> float:
    """Seconds until a pod is said not to be injected that was made right after a look."""
    namespace = MANY if plane.api.get(f"/api/v1/namespaces/{MANY}").is_success else PLANE
    name = f"late-{uuid.uuid4()}"
    wait_for_look(plane)
    create(plane, namespace, api_pod(name)).raise_for_status()
    began = time.monotonic()
    asked = {"fieldSelector": f"involvedObject.name={name}"}
    events = f"/api/v1/namespaces/{namespace}/events"
    wait_for(lambda: plane.api.get(events, params=asked).json()["items"], 120, "an Event")
    return time.monotonic() - began


def wait_for_look(plane: ControlPlane) -> None:
    """Wait until pods have been listed, and are not any more."""

    def lists() -> float:
        return plane.counter("apiserver_request_total", resource="pods", verb="LIST")

    before = lists()
    wait_for(lambda: lists() != before, 60, "a look begins")
    while lists() != before:
        before = lists()
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
