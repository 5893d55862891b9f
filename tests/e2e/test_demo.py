"""`make demo` where no node can run: it tells the rest on a control plane alone, and says what it leaves out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.fixtures import need
from tests.pages import REPOSITORY

pytestmark = pytest.mark.lab

# Root alone could have a node. It gets what a machine with cgroup v2 only shows it: no hierarchy of v1.
WITHOUT_CGROUPS = ["unshare", "--mount", "sh", "-c", 'umount -R /sys/fs/cgroup; exec "$@"', "sh"]
PREFIX = WITHOUT_CGROUPS if os.geteuid() == 0 else []


@pytest.mark.usefixtures("image")
def test_without_a_node_the_demo_says_what_it_leaves_out_and_shows_the_rest() -> None:
    need("rabbitmq-server", "redis-server", "bubblewrap")
    done = subprocess.run([*PREFIX, sys.executable, "-m", "lab.demo"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("    No kubelet runs the pods here (a node needs ")
    assert "): the loss itself isn't shown.\n" in done.stdout
    said = [line.strip() for line in done.stdout.splitlines()]
    assert "`helm get manifest` knows of it: no" in said
    assert "POST /api/exports/ -> 200; tasks in RabbitMQ: 1" in said
    assert "in effect: True, exit code 0" in said


@pytest.mark.skipif(not (REPOSITORY / ".venv/.ready").exists(), reason="`make` would set up .venv first")
def test_that_is_said_before_anything_is_set_up(tmp_path: Path) -> None:
    make = shutil.which("make")
    assert make
    words = [
        *PREFIX,
        "/usr/bin/env",
        *("-u", "MAKELEVEL", "-u", "MAKEFLAGS"),  # it may be make that runs the tests
        f"PATH={tmp_path}",
        make,
        "demo",
    ]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith("    No kubelet runs the pods here (a node needs ")
    assert "The demo could not go on: the lab needs the Debian packages " in done.stderr
