"""`python -m bench.storm`: a node pool comes back, and the API pods of everybody are created at once.

The real API server is sent POSTs of Plane's API pod, a hundred at a time, with two replicas of the webhook behind
HAProxy, which stands for the Service; then the same with two of controller-runtime's. Printed are how long a POST took,
the calls that failed as the API server counts them, the pods that came out without their injection, and the
processor's time of both replicas. They are dry runs unless `--create` is given: then etcd stores each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from bench.creation import INJECT, body
from bench.peers import pod
from bench.peers.contenders import WHAT, programs
from lab.cache import LabError, say
from lab.controlplane import ControlPlane
from lab.packages import ensure_packages, program
from lab.process import Process, cpu_seconds, exit_on_sigterm, free_port, wait_for
from lab.webhook import COMMAND, command

if TYPE_CHECKING:
    from collections.abc import Callable

WEBHOOK = "inject.pods.plane-webhook"
CALLERS = 100
NAMESPACE = "storm"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.storm", description=__doc__)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--create", action="store_true", help="create them for real")
    parser.add_argument("--only", choices=("ours", "typed"), help="one of the two")
    given = parser.parse_args()
    exit_on_sigterm()
    try:
        ensure_packages("haproxy")
        with ControlPlane(controller_manager=False) as plane:
            plane.namespace(NAMESPACE, INJECT)
            print("| | pods | took, s | p50, ms | p99, ms | slowest, ms | failed calls | not injected | CPU, us |")
            print("|-|-|-|-|-|-|-|-|-|")
            failed = [
                storm(plane, name, given.pods, create=given.create)
                for name in ([given.only] if given.only else ("ours", "typed"))
            ]
    except LabError as error:
        say(str(error))
        return 2
    return 1 if any(failed) else 0


def storm(plane: ControlPlane, name: str, pods: int, *, create: bool) -> int:
    """Measure one contender and print its row; returns how many pods and calls went wrong."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plane-webhook-storm-")))
        replicas, url = served(stack, name, folder)
        authority = ("--ca-file", folder / "tls" / "ca.crt")
        registration = command("registration", "--url", url, *authority)
        plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=registration)
        stack.callback(plane.kubectl, "delete", "-f", "-", input=registration)
        api = _own_client(stack, plane)
        wait_for(lambda: post(plane.api, create=False)[1], 60, f"the API server calls {name}", need=replicas)

        before, used = plane.failed_calls(WEBHOOK), sum(cpu_seconds(each.pid) for each in replicas)
        begun = time.perf_counter()
        with ThreadPoolExecutor(CALLERS) as callers:
            found = list(callers.map(lambda _: post(api(), create=create), range(pods)))
        took = time.perf_counter() - begun
        calls, cpu = plane.failed_calls(WEBHOOK) - before, sum(cpu_seconds(each.pid) for each in replicas) - used
    times = sorted(seconds * 1000 for seconds, _ in found)
    missed = sum(not injected for _, injected in found)
    p99 = times[int(len(times) * 0.99)]
    print(
        f"| {WHAT[name]} | {pods:,} | {took:.1f} | {statistics.median(times):,.0f} | {p99:,.0f} | {times[-1]:,.0f} |"
        f" {calls:.0f} | {missed} | {cpu / pods * 1e6:,.0f} |",
        flush=True,
    )
    return missed + int(calls)


def _own_client(stack: ExitStack, plane: ControlPlane) -> Callable[[], httpx.Client]:
    """Return what gives each thread a client of its own, until the stack is closed."""
    mine = threading.local()

    def client() -> httpx.Client:
        if not hasattr(mine, "client"):
            mine.client = stack.enter_context(plane.client())
        return mine.client  # type: ignore[no-any-return]

    return client


def post(api: httpx.Client, *, create: bool) -> tuple[float, bool]:
    """Create a pod; returns how long that took, seconds, and whether it is injected."""
    begun = time.perf_counter()
    answer = api.post(
        f"/api/v1/namespaces/{NAMESPACE}/pods",
        params={} if create else {"dryRun": "All"},
        content=_BODY,
        headers={"content-type": "application/json"},
        timeout=httpx.Timeout(300),
    )
    seconds = time.perf_counter() - begun
    return seconds, answer.is_success and b'"plane-webhook/injected":"api"' in answer.content


_BODY = json.dumps(body("injected")).encode()


def served(stack: ExitStack, name: str, folder: Path) -> tuple[list[Process], str]:
    """Two replicas and their balancer, until the stack is closed; the URL is the balancer's."""
    tls, added, balancer = folder / "tls", folder / "injection.json", free_port()
    command("certs", "issue", "--dir", tls, "--host", "127.0.0.1")
    added.write_text(json.dumps(pod.additions(pod.pod())))
    ports = [str(free_port()) for _ in range(2)]
    argv: Callable[[str], list[str | Path]] = {
        "ours": lambda port: [COMMAND, "serve", "--cert-dir", tls, "--port", port, "--metrics-port", str(free_port())],
        "typed": lambda port: [programs("typed", "2 to 4 minutes") / "typed", added, tls, port],
    }[name]
    (folder / "haproxy.cfg").write_text(
        f"""
        defaults
            mode tcp
            timeout connect 10s
            timeout client 10m
            timeout server 10m
        listen webhook
            bind 127.0.0.1:{balancer}
            balance roundrobin
            {"".join(f"server replica-{port} 127.0.0.1:{port}{chr(10)}            " for port in ports)}
        \n"""
    )
    replicas = [Process(argv(port), log=folder / f"{name}-{port}.log") for port in ports]
    haproxy = Process([program("haproxy"), "-db", "-f", folder / "haproxy.cfg"], log=folder / "haproxy.log")
    for each in (*replicas, haproxy):
        stack.callback(each.kill)
    return replicas, f"https://127.0.0.1:{balancer}"


if __name__ == "__main__":
    sys.exit(main())
