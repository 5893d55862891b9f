"""The benchmarks of growth and of many pods at once run, in short; no time is looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench.growth import AXES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.lab


def run(*words: str | Path) -> str:
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_both_ends_of_each_axis_are_measured_and_drawn(tmp_path: Path) -> None:
    printed = run("bench.growth", "--short", "--output", tmp_path)
    print(printed)
    records = json.loads((tmp_path / "growth.json").read_text())["records"]
    ends = {(axis, value) for axis, each in AXES.items() for value in (each.values[0], each.values[-1])}
    assert {(each["axis"], each["value"]) for each in records if each["name"] == "ours"} == ends
    assert all(each["reviews"] and not each["failed"] for each in records)
    picture = (tmp_path / "growth.svg").read_text()
    assert picture.count('fill="none"') == 3 * len(AXES)
    assert "slopes: containers " in printed


def test_no_pod_of_many_at_once_is_missed() -> None:
    row = run("bench.storm", "--pods", "300", "--only", "ours").splitlines()[-1].split(" | ")
    assert row[1] == "300"
    assert row[6:8] == ["0", "0"]
