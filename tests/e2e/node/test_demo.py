"""`make demo` on the node: what it says is what comes of it, on one screen."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600), pytest.mark.usefixtures("minutes_allowed", "possible_node")]


def test_the_demo_shows_the_loss_and_that_it_is_over() -> None:
    done = subprocess.run([sys.executable, "-m", "lab.demo"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.findall(r"(\d+) of \d+ lost|(injected as \w+|not injected)|names plane-webhook (\d+) times", done.stdout)
    assert ["".join(each) for each in said] == ["not injected", "10", "injected as api", "0", "injected as api", "0"]
    lines = done.stdout.splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 120
    assert "\033" not in done.stdout, "colours are for terminals"
