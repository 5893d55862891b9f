"""The lab's node: a pod runs on it as on any, and nothing of it is left, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.node import images
from lab.node.keeper import NAME, hierarchies
from lab.process import wait_for

if TYPE_CHECKING:
    from lab.node import Node

pytestmark = pytest.mark.lab


def test_a_pod_runs(node: Node) -> None:
    node.registry.add("lab/busybox:1", images.busybox())
    node.kubectl("run", "one", "--image=lab/busybox:1", "--env=WHO=a pod", "--", "sh", "-c", "echo $WHO; sleep 60")
    node.wait_ready("default")
    assert node.kubectl("logs", "one") == "a pod\n"
    assert node.kubectl("exec", "one", "--", "cat", "/proc/1/comm") == "sleep\n"
    node.kubectl("delete", "pod", "one", "--now")


def test_an_image_that_nobody_has_is_a_pull_error(node: Node) -> None:
    node.kubectl("run", "none", "--image=lab/none:1")
    reason = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
    wait_for(lambda: "Err" in node.kubectl("get", "pod", "none", "-o", reason), 30, "the pull fails")
    node.kubectl("delete", "pod", "none", "--now")


@pytest.mark.usefixtures("possible_node")
def test_nothing_is_left_of_a_node_whose_python_is_killed() -> None:
    before = traces()
    script = "from lab.node import Node\nwith Node() as node:\n print(node._pid, flush=True)\n input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as python:
        assert python.stdout is not None
        inside = int(python.stdout.readline())
        left = traces() - before
        assert len(left) > len(hierarchies())
        python.send_signal(signal.SIGKILL)
    wait_for(lambda: not left & traces() and not Path(f"/proc/{inside}").exists(), 30, "nothing is left")


def traces() -> set[str]:
    """What the nodes of this machine could leave: cgroups, mounts, network interfaces, folders."""
    groups = {str(group) for place in hierarchies().values() for group in place.glob(f"{NAME}*")}
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    folders = {str(path) for path in Path("/tmp").glob(f"{NAME}*")}
    return groups | mounts | folders | {str(path) for path in Path("/sys/class/net").iterdir()}
