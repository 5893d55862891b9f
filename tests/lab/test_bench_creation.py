"""The benchmark of creation runs: webhook, floor and policy make the same pod; no time is looked at."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.lab


def test_the_short_form_runs() -> None:
    short = [sys.executable, "-m", "bench.creation", "--rounds", "1", "--posts", "2"]
    done = subprocess.run(short, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    stored = [int(row.split("|")[-2].replace(",", "")) for row in rows]
    assert len(rows) == 7
    assert stored[4:6] == pytest.approx([stored[3]] * 2, abs=20)
    assert stored[3] > stored[0] + 20_000
    assert stored[6] < stored[3] - 20_000
