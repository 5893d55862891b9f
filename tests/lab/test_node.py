"""The lab's node: a pod runs on it as on any, and nothing of it is left, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.node import Node, images, keeper
from lab.node.keeper import NAME, hierarchies
from lab.process import wait_for

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


@pytest.mark.usefixtures("possible_node")
def test_a_keeper_that_is_killed_takes_the_node_along_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    before = traces()
    with Node():
        own = {Path(trace) for trace in traces() - before if trace.startswith("/sys/fs/cgroup/")}
        (name,) = {group.name for group in own}
        pid = int(name.removeprefix(NAME))
        (unshare,) = children(pid)
        (inside,) = children(unshare)
        os.kill(pid, signal.SIGKILL)  # a child of ours, so the pid is its own until it has been waited for
        wait_for(lambda: not Path(f"/proc/{inside}").exists(), 30, "PID 1 of the node is gone")
    assert traces() - before == {str(group) for group in own}, "its cgroups, which nobody was left to remove"
    again = [sys.executable, "-I", keeper.__file__, tmp_path / "next"]
    subprocess.run(again, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    assert traces() - before == set()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("prefix", "first", "said"),
    [
        ((), "import os; os.getuid() or os.setuid(65534)", "a node needs root: its namespaces, cgroups and mounts are"),
        (
            ("unshare", "--mount", "sh", "-c", 'umount -R /sys/fs/cgroup; exec "$@"', "sh"),
            "",
            "a node needs cgroup v1 hierarchies, and this machine has none for cpu, devices, freezer, memory, pids",
        ),
    ],
    ids=["not root", "cgroup v2 only"],
)
def test_where_no_node_can_run_it_says_what_is_missing(prefix: tuple[str, ...], first: str, said: str) -> None:
    if prefix and os.geteuid() != 0:
        pytest.skip("without root that is what is said first")
    script = f"from lab import node\n{first}\nnode.ensure_possible()"
    done = subprocess.run([*prefix, sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"LabError: {said}" in done.stderr


def traces() -> set[str]:
    """What the nodes of this machine could leave: cgroups, mounts, network interfaces, folders."""
    groups = {str(group) for place in hierarchies().values() for group in place.glob(f"{NAME}*")}
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    folders = {str(path) for path in Path("/tmp").glob(f"{NAME}*")}
    return groups | mounts | folders | {str(path) for path in Path("/sys/class/net").iterdir()}
