"""The measurements of a review run, in short: that they do is what is looked at here, and no time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.peers.contenders import WHAT

pytestmark = pytest.mark.lab


def test_all_that_need_no_library_of_go_make_the_same_pod_and_are_measured(tmp_path: Path) -> None:
    """Beside others that do the same, uvicorn's floor for one; the ratio to that is printed for people."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.peers", "--short", "--output", tmp_path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "peers.json").read_text())
    measured = {(each["name"], each["connections"]) for each in result["records"]}
    assert measured == {(name, connections) for name in WHAT if name != "typed" for connections in (1, 16)}
    assert all(each["reviews"] and each["cpu"] > 0 and not each["failed"] for each in result["records"])
    assert "plane-webhook against the floor" in done.stdout
    assert (tmp_path / "peers.svg").read_text().startswith("<svg")


def test_what_a_decision_takes_is_measured() -> None:
    short = [sys.executable, "-m", "bench.decision", "--runs", "1", "--times", "1"]
    done = subprocess.run(short, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert len(rows) == 7
    assert all(float(time.rstrip(" |")) > 0 for _, time in rows)
