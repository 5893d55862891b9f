"""What is injected, run by a real kubelet and container engine, through what a container and a node live through."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from lab.cache import LabError
from lab.container import Shell
from lab.load import Steady
from lab.node.plane import API, BEAT, INJECTED, WORKER, Release
from lab.pods import SHORT
from lab.process import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]  # the first one starts the node

GRACE = 30  # seconds; Kubernetes' default, which Plane's charts leave
RESTRICTED = {"restricted": True, "readOnlyRoot": True, "tmp": True}
ENFORCE = "pod-security.kubernetes.io/enforce"

# What a file in memory takes counts for the container and for none of its processes: so the kernel ends those first.
HOG = "import os; file = os.memfd_create('hog')\nwhile True: os.write(file, bytes(1 << 20))"


@pytest.fixture
def enforced(release: Release) -> Iterator[None]:
    """Have Pod Security take only what is `restricted`."""
    release.node.kubectl("label", "namespace", release.namespace, f"{ENFORCE}=restricted")
    yield
    release.node.kubectl("label", "namespace", release.namespace, f"{ENFORCE}-")


def ensure_in_effect(release: Release, pod: dict[str, Any]) -> None:
    """Wait until the launcher says so of what runs now; assert that the proof does too."""
    wait_for(lambda: "plane-webhook: in effect" in release.logs(pod), 60, "the launcher says that it is in effect")
    assert json.loads(release.execute(pod, "/plane-webhook/proof"))["in_effect"]  # LabError unless it exits 0


def restarted(release: Release, workload: str, pod: dict[str, Any]) -> dict[str, Any]:
    """Wait until the pod's container is there anew and ready; return how the one before ended."""
    (before,) = pod["status"]["containerStatuses"]

    def back() -> dict[str, Any] | None:
        (status,) = release.pod(workload)["status"]["containerStatuses"]
        return status if status["restartCount"] > before["restartCount"] and status["ready"] else None

    status = wait_for(back, 90, "the container is back")
    assert release.pod(workload)["metadata"]["uid"] == pod["metadata"]["uid"]
    return status["lastState"]["terminated"]


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_what_is_injected_runs_and_is_in_effect(release: Release, shell: Shell) -> None:
    release.upgrade(shell)
    ensure_all_in_effect(release)


@pytest.mark.usefixtures("enforced")
def test_a_restricted_namespace_another_user_and_a_read_only_root_change_nothing(release: Release) -> None:
    release.upgrade("busybox", **RESTRICTED)
    ensure_all_in_effect(release)
    for workload in INJECTED:
        who = release.execute(release.pod(workload), "sh", "-c", "id -u; touch /x 2>/dev/null || echo read-only")
        assert who.split() == ["1000", "read-only"]


def ensure_all_in_effect(release: Release) -> None:
    for workload, kind in INJECTED.items():
        pod = release.pod(workload)
        assert pod["metadata"]["annotations"][SHORT] == kind
        ensure_in_effect(release, pod)
    release.wait_completed([release.export()])


@pytest.mark.parametrize("workload", [API, WORKER])
def test_a_killed_container_comes_back_injected(release: Release, workload: str) -> None:
    pod = release.pod(workload)
    os.kill(release.node.pid_1(pod), signal.SIGKILL)
    restarted(release, workload, pod)
    ensure_in_effect(release, pod)


@pytest.mark.parametrize("workload", [API, BEAT])
def test_a_container_that_is_out_of_memory_comes_back_injected(release: Release, workload: str) -> None:
    pod = release.pod(workload)
    with pytest.raises(LabError, match="137"):
        release.execute(pod, "python", "-c", HOG)
    assert restarted(release, workload, pod)["reason"] == "OOMKilled"
    ensure_in_effect(release, pod)


def test_exec_probes_work_and_a_container_that_fails_one_comes_back_injected(release: Release) -> None:
    begun = {"exec": {"command": ["grep", "-q", "gunicorn", "/proc/1/cmdline"]}, "failureThreshold": 120}
    # Fails once when somebody has left the file.
    lives = {"exec": {"command": ["sh", "-c", "! rm /tmp/sick"]}, "failureThreshold": 1}
    patch_api(release, startupProbe={**begun, "periodSeconds": 1}, livenessProbe={**lives, "periodSeconds": 1})
    try:
        pod = release.pod(API)
        time.sleep(5)  # some probes
        assert release.pod(API)["status"]["containerStatuses"][0]["restartCount"] == 0
        release.execute(pod, "touch", "/tmp/sick")
        restarted(release, API, pod)
        assert "Liveness probe failed" in release.kubectl("get", "events")
        ensure_in_effect(release, pod)
    finally:
        patch_api(release, startupProbe=None, livenessProbe=None)


def patch_api(release: Release, **fields: Any) -> None:
    """Change fields of the API's container, as `kubectl patch` does, and wait until there is a new pod alone."""
    containers = [{"name": f"{release.name}-{API}", **fields}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    release.kubectl("patch", "deployment", release.deployment(API), "-p", json.dumps(patch))
    release.kubectl("rollout", "status", "deployment", release.deployment(API), "--timeout=100s")
    wait_for(lambda: len(release.pods(API)) == 1, 30, "the old pod leaves")


@pytest.mark.parametrize(("workload", "says"), [(API, "Shutting down"), (WORKER, "Warm shutdown")])
def test_plane_gets_the_kubelets_term_and_ends_in_time(release: Release, workload: str, says: str) -> None:
    pod = release.pod(workload)
    with ThreadPoolExecutor(1) as thread:
        log = thread.submit(release.logs, pod, "--follow")
        began = time.monotonic()
        release.kubectl("delete", "pod", pod["metadata"]["name"], "--timeout=60s")
        assert time.monotonic() - began < GRACE - 5, "it wasn't killed"
        assert says in log.result()
    release.wait_ready(workload)


def test_a_kubelet_and_a_container_engine_that_were_killed_find_all_as_it_was(release: Release) -> None:
    node, deployment = release.node, f"deployment/{release.deployment(API)}"
    before = {workload: release.pod(workload) for workload in INJECTED}
    with ExitStack() as stack:
        for component in ("kubelet", "containerd"):
            node.kill(component)
            stack.callback(node.restart, component)  # the kubelet last: it ends where there is no engine
        release.kubectl("scale", deployment, "--replicas=2")
        pods = wait_for(lambda: len(found := release.pods(API)) == 2 and found, 10, "another pod of the API")
        assert release.http.get("/").is_success, "what runs goes on"
    release.wait_ready(API)
    (new,) = (pod for pod in pods if pod["metadata"]["uid"] != before[API]["metadata"]["uid"])
    for pod in (new, *before.values()):
        ensure_in_effect(release, pod)
    now = {pod["metadata"]["uid"]: pod for workload in INJECTED for pod in release.pods(workload)}
    for pod in before.values():
        assert counts(now[pod["metadata"]["uid"]]) == counts(pod), "nothing was restarted"
    release.kubectl("scale", deployment, "--replicas=1")
    wait_for(lambda: len(release.pods(API)) == 1, 60, "one is enough again")


def counts(pod: dict[str, Any]) -> list[int]:
    return [status["restartCount"] for status in pod["status"]["containerStatuses"]]


def test_a_rolling_upgrade_under_load_fails_no_request_and_loses_no_export(release: Release) -> None:
    # Injected or not, gunicorn takes nothing more after TERM, and a Service leads to it for a moment: Plane's charts
    # have no preStop for that.
    patch_api(release, lifecycle={"preStop": {"sleep": {"seconds": 5}}})
    left = ("get", "pods", "-l", f"app.name={release.label(API)}", "-o", "name")
    wait_for(lambda: len(release.kubectl(*left).split()) == 1, 60, "the one without it is gone")
    before = {release.pod(workload)["metadata"]["uid"] for workload in INJECTED}
    exports: list[str] = []
    reading = Steady(lambda: release.http.get("/api/users/me/").raise_for_status(), 10)
    exporting = Steady(lambda: exports.append(release.export()), 2)
    with reading, exporting:
        release.upgrade("dash", timestamp=True)
        wait_for(lambda: len(release.pods(API)) == 1, 30, "what was upgraded leaves")
        time.sleep(7)
    assert reading.failures + exporting.failures == []
    assert not before & {release.pod(workload)["metadata"]["uid"] for workload in INJECTED}
    assert len(exports) == exporting.calls > 10
    release.wait_completed(exports)
    ensure_all_in_effect(release)
