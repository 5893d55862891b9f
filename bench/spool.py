"""`python -m bench.spool`: what keeping a task costs the call that publishes it: Plane's Redis, or a file in the pod.

The contenders put the same message, sealed by the same key, in shuffled rounds: the payload's own spool, and SQLite
with a write-ahead log, which waits for the disk at each put (`FULL`) or leaves it to the kernel (`NORMAL`: what a crash
of the node forgets). Several processes at once are gunicorn's workers. Run in the Python of Plane's image.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from bench.effect.results import aligned
from lab import images
from lab.cache import LabError, say
from lab.process import exit_on_sigterm
from lab.redis import Redis
from webhook import payload

CONTENDERS = ("redis", "sqlite, full", "sqlite, normal")
WRITERS = (1, 4)  # processes
PUTS = 300  # of a process in a round
LIMIT = 300.0  # seconds for a round

PUTTER = """
import json, sqlite3, sys, time
from plane_webhook.message import Message
from plane_webhook.spool import Spool
how, where, redis, count, secret = sys.argv[1:]
spool = Spool(redis, secret, 1000000, 1 << 30)
prepared = dict(body=b"x" * 300, priority=0, content_type="application/json", content_encoding="utf-8",
                headers={"task": "plane.some_task", "id": "id"}, properties={"correlation_id": "id"})
message = Message(prepared, "celery", "celery", True, [])
if how == "redis":
    put = lambda: spool.put(message)
else:
    file = sqlite3.connect(where, timeout=60, isolation_level=None)
    file.execute("PRAGMA journal_mode=WAL")
    file.execute("PRAGMA synchronous=" + how.split()[-1])
    file.execute("CREATE TABLE IF NOT EXISTS queue (number INTEGER PRIMARY KEY, entry BLOB)")
    put = lambda: file.execute("INSERT INTO queue (entry) VALUES (?)", (spool._seal(message, time.time()),))
put()
sys.stdin.readline()
took = []
for _ in range(int(count)):
    begun = time.perf_counter()
    put()
    took.append(time.perf_counter() - begun)
print(json.dumps(took))
"""


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.spool", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    exit_on_sigterm()
    took: dict[tuple[str, int], list[float]] = defaultdict(list)
    try:
        image = images.build()
        with Redis() as redis, tempfile.TemporaryDirectory() as folder:
            for number in range(given.rounds):
                say(f"round {number + 1} of {given.rounds}")
                each = [(how, writers) for how in CONTENDERS for writers in WRITERS]
                for how, writers in random.sample(each, len(each)):
                    took[how, writers] += _round(image, redis, how, writers, Path(folder) / f"{number}-{writers}-{how}")
    except LabError as error:
        say(str(error))
        return 2
    rows = [("put a task of 300 bytes", "processes", "p50", "p99", "max")]
    for (how, writers), seconds in sorted(took.items()):
        ordered = sorted(seconds)
        at = [ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1]]
        rows.append((how, str(writers), *[f"{1000 * each:.2f} ms" for each in at]))
    print(aligned(rows))
    return 0


def _round(image: images.Image, redis: Redis, how: str, writers: int, file: Path) -> list[float]:
    """The seconds of each put."""
    secret = "a secret of this bench"
    argv = [image.root / "bin/python", "-B", "-c", PUTTER, how, file, f"{redis.url}0", str(PUTS), secret]
    library = Path(payload.__file__).parent / "lib"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(library), "SECRET_KEY": secret, "HOSTNAME": "pod"}
    running = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        for _ in range(writers)
    ]
    try:
        for each in running:
            assert each.stdin
            each.stdin.write("\n")
            each.stdin.flush()
        found = [json.loads(each.communicate(timeout=LIMIT)[0]) for each in running]
    except (subprocess.TimeoutExpired, ValueError, OSError) as error:
        raise LabError(f"{how}, {writers} processes: {error}") from error
    finally:
        for each in running:
            each.kill()
            each.wait()
    return [seconds for one in found for seconds in one]


if __name__ == "__main__":
    sys.exit(main())
