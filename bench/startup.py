"""`python -m bench.startup`: what the launcher adds to a start, and the overlay to a worker's memory.

A start is that of Plane's entrypoint with a gunicorn that ends at once: the same container, with and without our words
in front, interleaved, so that whatever else the machine does meets both. Memory is that of a worker of the small Plane
that has published.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from lab import images
from lab.broker import Broker
from lab.cache import LabError, say
from lab.container import Container
from lab.injected import SHELLS, Json, code, inject, pod, script, with_code
from lab.packages import ensure_packages
from lab.process import exit_on_sigterm, free_port
from webhook.admission.injection import MOUNT_PATH

if TYPE_CHECKING:
    from lab.images import Image

# Runs in the container: alternates the commands, prints for each start its wall-clock and its processor time in ms.
STOPWATCH = """
import json, resource, subprocess, sys, time
def used():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
commands, rounds = json.loads(sys.stdin.read()), int(sys.argv[1])
found = [[] for _ in commands]
for _ in range(rounds):
    for times, command in zip(found, commands):
        cpu, wall = used(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(((time.perf_counter() - wall) * 1000, (used() - cpu) * 1000))
print(json.dumps(found))
"""


def main() -> int:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="starts of each command in each shell")
    parser.add_argument("--workers", type=int, default=5, help="workers whose memory is read, of each kind")
    given = parser.parse_args()
    exit_on_sigterm()
    try:
        ensure_packages("bubblewrap", "util-linux", "dash", "busybox-static")
        image = images.build()
        starts(image, given.rounds)
        calls(image, given.rounds)
        memory(image, given.workers)
    except LabError as error:
        say(str(error))
        return 2
    return 0


def starts(image: Image, rounds: int) -> None:
    """Print the medians of a start without us and with us, and their difference."""
    print(f"a start, ms: medians of {rounds} (wall clock; processor time)")
    with tempfile.TemporaryDirectory() as folder:
        small = code(Path(folder, "code"))
        script(small / "programs/gunicorn", "#!/usr/local/bin/python -S\n")
        what = inject(pod("/bin/sh", "-c", "exec sleep 1000 # docker-entrypoint-api.sh"))
        for shell in SHELLS:
            with Container.from_pod(what, image=with_code(image, small), shell=shell) as container:
                container.wait_for_log("launcher in place")
                commands = json.dumps([command(pod()), command(inject(pod()))])
                run = container.exec(["python", "-c", STOPWATCH, str(rounds)], stdin=commands, timeout=600)
                if run.returncode != 0:
                    raise LabError(f"a start failed:\n{run.stderr}")
                plain, ours = (
                    [statistics.median(column) for column in zip(*each, strict=True)] for each in json.loads(run.stdout)
                )
            print(
                f"  {shell:8} without {plain[0]:6.1f} ({plain[1]:5.1f})   with {ours[0]:6.1f} ({ours[1]:5.1f})"
                f"   added {ours[0] - plain[0]:6.1f} ({ours[1] - plain[1]:5.1f})"
            )


def calls(image: Image, rounds: int) -> None:
    """Print what a `python manage.py` takes that Plane's entrypoint runs and we leave alone, and one that we don't."""
    print(f"a call of python in the API's entrypoint, ms: medians of {rounds} (wall clock; processor time)")
    with tempfile.TemporaryDirectory() as folder:
        small = code(Path(folder, "code"))
        script(small / "manage.py", "#!/usr/bin/env python\n")
        what = inject(pod("/bin/sh", "-c", "exec sleep 1000 # docker-entrypoint-api.sh"))
        for shell in SHELLS:
            with Container.from_pod(what, image=with_code(image, small), shell=shell) as container:
                container.wait_for_log("launcher in place")
                path = container.spec.env["PATH"]
                words = [
                    [f"PATH={first}{path}", "python", "manage.py", name]
                    for name in ("wait_for_db", "register_instance")
                    for first in ("", f"{MOUNT_PATH}/bin:")
                ]
                commands = json.dumps([["env", *each] for each in words])
                run = container.exec(["python", "-c", STOPWATCH, str(rounds)], stdin=commands, timeout=600)
                if run.returncode != 0:
                    raise LabError(f"a call failed:\n{run.stderr}")
                found = [
                    [statistics.median(column) for column in zip(*each, strict=True)] for each in json.loads(run.stdout)
                ]
            for name, (plain, ours) in zip(("left alone", "taken up"), (found[:2], found[2:]), strict=True):
                print(
                    f"  {shell:8} {name:10} without {plain[0]:6.1f} ({plain[1]:5.1f})"
                    f"   with {ours[0]:6.1f} ({ours[1]:5.1f})"
                    f"   added {ours[0] - plain[0]:6.1f} ({ours[1] - plain[1]:5.1f})"
                )


def command(what: Json) -> list[str]:
    """The words of a pod's command as a kubelet hands them on; none of these names a variable."""
    return [word.replace("$$", "$") for word in what["spec"]["containers"][0]["command"]]


def memory(image: Image, workers: int) -> None:
    """Print the medians of a worker's resident memory without us and with us."""
    found: dict[str, list[float]] = {"without": [], "with": []}
    with Broker() as broker:
        address = f"amqp://guest:guest@127.0.0.1:{broker.port}//"
        for _ in range(workers):
            for name, what in (("without", pod(map_name="vars")), ("with", inject(pod(map_name="vars")))):
                port = free_port()
                maps = {"vars": {"AMQP_URL": address, "PORT": str(port), "GUNICORN_WORKERS": "1"}}
                with Container.from_pod(what, image=image, config_maps=maps) as container:
                    container.wait_ready(port)
                    for number in range(20):
                        httpx.post(f"http://127.0.0.1:{port}/api/exports/?id={number}", timeout=30).raise_for_status()
                    found[name].append(resident(container.processes()[-1].pid))
    plain, ours = statistics.median(found["without"]), statistics.median(found["with"])
    print(
        f"a worker's resident memory, MiB: median of {workers}\n"
        f"  without {plain:.1f}   with {ours:.1f}   added {ours - plain:.1f}"
    )


def resident(pid: int) -> float:
    """A process's resident memory, MiB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"^Rss:\s+(\d+)", rollup, re.MULTILINE)) / 1024


if __name__ == "__main__":
    sys.exit(main())
