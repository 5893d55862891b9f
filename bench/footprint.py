"""`python -m bench.footprint`: how soon `serve` answers after its start, and what memory it takes, idle and after work.

Times are wall-clock, from the start of the process: to the first answered review, and until it says that it is ready.
Memory is resident: RSS, and PSS, which shares the pages of files among the processes that have them.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from bench.peers import pod
from bench.peers.contenders import Contenders
from lab.cache import LabError, say
from lab.process import Process, exit_on_sigterm, free_port
from lab.webhook import COMMAND, command

MOMENTS = ("first answered review", "ready")
# What it is built from, before a line of its own runs.
LIBRARIES = "asyncio, cryptography.x509, fastapi, httptools, msgspec, prometheus_client, uvicorn, uvloop, yaml"
# As in the image, which has all modules compiled: here the first start does that.
COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.footprint", description=__doc__)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--reviews", type=int, default=100_000, help="at the least")
    given = parser.parse_args()
    exit_on_sigterm()
    try:
        with tempfile.TemporaryDirectory(prefix="plane-webhook-footprint-") as folder:
            starts = [started(Path(folder)) for _ in range(given.starts + 1)][1:]
        print(f"a start, s: median of {given.starts} (range)")
        for what, times in zip(MOMENTS, zip(*starts, strict=True), strict=True):
            print(f"  {what:22} {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})")
        libraries(given.starts)
        work(given.reviews)
    except LabError as error:
        say(str(error))
        return 2
    return 0


def started(folder: Path) -> tuple[float, ...]:
    """Start it once; returns seconds until each of the moments."""
    tls, port = folder / "tls", free_port()
    if not tls.exists():
        command("certs", "issue", "--dir", tls, "--host", "127.0.0.1")
    body, url = pod.review(pod.pod()), f"https://127.0.0.1:{port}"
    argv = [COMMAND, "serve", "--cert-dir", tls, "--host", "127.0.0.1", "--port", str(port), "--metrics-port", "0"]
    with httpx.Client(verify=False, trust_env=False, headers={"content-type": "application/json"}) as client:  # noqa: S501 - on loopback
        begun = time.perf_counter()
        process = Process(argv, log=folder / "serve.log", env=COMPILED)
        try:
            moments = []
            for request in (
                client.build_request("POST", f"{url}/mutate", content=body),
                client.build_request("GET", f"{url}/readyz"),
            ):
                while not succeeds(client, request):
                    process.check()
                    time.sleep(0.002)
                moments.append(time.perf_counter() - begun)
        finally:
            process.kill()
    return tuple(moments)


def libraries(starts: int) -> None:
    """Print what a Python takes that has imported the libraries, and does nothing: nothing here can take less."""
    # Without the cyclic collector, as `serve` imports them.
    text = f"import gc, sys; gc.disable(); import {LIBRARIES}; print(flush=True); sys.stdin.read()"
    times = []
    for _ in range(starts + 1):
        begun = time.perf_counter()
        argv = [sys.executable, "-c", text]
        with subprocess.Popen(argv, env=COMPILED, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            times.append(time.perf_counter() - begun)
            taken = memory(process.pid)
            process.communicate()
    times = times[1:]
    print(f"  its libraries' import  {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})")
    print(f"memory of its libraries alone, MiB: RSS and PSS {taken}")


def succeeds(client: httpx.Client, request: httpx.Request) -> bool:
    """Whether it is answered, and well."""
    try:
        return client.send(request).is_success
    except httpx.TransportError:
        return False


def work(reviews: int) -> None:
    """Print the memory of one that has answered just one review, and of the same one after many."""
    name = "ours"
    with Contenders(pod.pod(), [name]) as contenders:
        print(f"memory, MiB: RSS and PSS\n  at rest {memory(contenders.pid(name))}")
        done, cpu = 0, 0.0
        while done < reviews:
            found = contenders.load(name, 16, min(10, reviews / 10_000))
            done += found["reviews"]
            cpu += found["cpu"] * found["reviews"] / 1e6
        print(f"  after {done:,} reviews {memory(contenders.pid(name))}")
        print(f"processor's time of 10,000 reviews, 16 at a time: {cpu / done * 10_000:.1f} s")


def memory(pid: int) -> str:
    """RSS and PSS."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return " ".join(f"{int(kib) / 1024:.1f}" for kib in re.findall(r"^(?:Rss|Pss):\s+(\d+)", text, re.MULTILINE))


if __name__ == "__main__":
    sys.exit(main())
