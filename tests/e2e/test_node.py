"""On a real node: what we inject is run by a real kubelet and container engine, and so are we.

The tests go in this order, from image to image, because each change of a release takes half a minute.
"""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from lab.broker import Broker
from lab.container import Container, Shell
from lab.node import images
from lab.node import webhook as ours
from lab.node.plane import API, INJECTED, WORKER, Release
from lab.postgres import Postgres
from lab.process import wait_for
from tests.e2e.cluster import INJECT, SHORT, WEBHOOK, api_pod, create, injected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.images import Image
    from lab.node import Node
    from lab.redis import Redis

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("minutes_allowed")]

GRACE = 30  # seconds; Kubernetes' default, which Plane's charts leave
RATE = 5  # pods created a second
RESTRICTED = {"restricted": True, "readOnlyRoot": True, "tmp": True}

LOOK = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
mounts = [line.split()[4:6] + [line.split(" - ")[1].split()[0]] for line in open("/proc/self/mountinfo")]
print(json.dumps({
    "argv": open("/proc/self/cmdline").read().split(chr(0))[3:-1],
    "env": {k: v for k, v in os.environ.items() if not k.startswith("KUBERNETES_")},
    "user": [os.getuid(), os.getgid(), sorted({*os.getgroups()} - {os.getgid()})],
    "capabilities": [status[each].strip() for each in ("CapEff", "CapBnd")],
    "cwd": os.getcwd(),
    "writable": [path for path in ("/", "/tmp", "/scratch", "/disk", "/settings") if os.access(path, os.W_OK)],
    "memory": [kind for path, _, kind in mounts if path == "/scratch"],
    "files": {name: [open("/settings/" + name).read(), oct(os.stat("/settings/" + name).st_mode & 0o777)]
              for name in sorted(os.listdir("/settings")) if not name.startswith("..")},
}, sort_keys=True))
"""


@pytest.fixture(scope="module")
def webhook(node: Node) -> Iterator[None]:
    with ours.installed(node):
        yield


@pytest.fixture(scope="module")
def release(webhook: None, node: Node, image: Image, redis: Redis) -> Iterator[Release]:  # noqa: ARG001
    """A Plane-like release with its own broker and database, injected, as images with busybox run it."""
    with Broker() as broker, Postgres() as postgres:
        made = Release(node, node.namespace("plane", INJECT), broker, redis, postgres)
        made.prepare(image)
        made.upgrade("busybox")
        yield made


@pytest.mark.parametrize(
    ("shell", "settings"),
    [
        pytest.param("dash", {}, id="dash"),
        pytest.param("bash", {}, id="bash"),
        pytest.param("busybox", RESTRICTED, id="busybox, restricted, user 1000, read-only root"),
    ],
)
def test_what_is_injected_runs_and_is_in_effect(release: Release, shell: Shell, settings: dict[str, bool]) -> None:
    if settings:
        release.node.kubectl("label", "namespace", "plane", "pod-security.kubernetes.io/enforce=restricted")
    release.upgrade(shell, **settings)
    for workload, kind in INJECTED.items():
        pod = release.pod(workload)
        assert pod["metadata"]["annotations"][SHORT] == kind
        assert "plane-webhook: in effect" in release.logs(pod)
        proof = release.execute(pod, "/plane-webhook/proof")
        assert json.loads(proof)["in_effect"]
        if settings:
            assert release.execute(pod, "sh", "-c", "id -u; touch /x 2>/dev/null || echo read-only").split() == [
                "1000",
                "read-only",
            ]
    done = release.export()
    wait_for(lambda: release.status(done) == "completed", 30, "the export arrives")


@pytest.mark.parametrize("workload", [API, WORKER])
def test_a_killed_container_comes_back_injected(release: Release, workload: str) -> None:
    pod = release.pod(workload)
    os.kill(release.node.pid_1(pod), signal.SIGKILL)

    def back() -> bool:
        (status,) = release.pod(workload)["status"]["containerStatuses"]
        return status["restartCount"] == 1 and status["ready"]

    wait_for(back, 60, "the container is back")
    assert release.pod(workload)["metadata"]["uid"] == pod["metadata"]["uid"]
    wait_for(lambda: "plane-webhook: in effect" in release.logs(pod), 60, "the launcher says so again")


@pytest.mark.parametrize(("workload", "says"), [(API, "Shutting down"), (WORKER, "Warm shutdown")])
def test_plane_gets_the_kubelets_term_and_ends_in_time(release: Release, workload: str, says: str) -> None:
    pod = release.pod(workload)
    name = pod["metadata"]["name"]
    with ThreadPoolExecutor(1) as thread:
        log = thread.submit(release.logs, pod, "--follow")
        began = time.monotonic()
        release.node.kubectl("-n", "plane", "delete", "pod", name, "--timeout=60s")
        assert time.monotonic() - began < GRACE - 5, "it wasn't killed"
        assert says in log.result()
    release.node.wait_ready("plane", f"app.name={release.label(workload)}")


def test_a_rolling_restart_of_ours_misses_no_pod_that_is_created(release: Release) -> None:
    node = release.node
    namespace = node.namespace("made-meanwhile", INJECT)
    failed = node.failed_calls(WEBHOOK)
    deployment = ("-n", ours.NAMESPACE, "rollout")
    node.kubectl(*deployment, "restart", "deployment/plane-webhook")
    with ThreadPoolExecutor(1) as thread:
        rolled = thread.submit(node.kubectl, *deployment, "status", "deployment/plane-webhook", "--timeout=110s")
        missed, made = [], 0
        until = None
        while until is None or time.monotonic() < until:
            if until is None and rolled.done():
                rolled.result()
                until = time.monotonic() + 10  # the old replicas drain
            made += 1
            answer = create(node, namespace, api_pod(), dry_run=True)
            if not answer.is_success or not injected(answer.json()):
                missed.append(answer.text[:300])
            time.sleep(1 / RATE)
    assert made > 10 * RATE / 2
    assert missed == []
    assert node.failed_calls(WEBHOOK) == failed


def test_the_simulated_kubelet_does_as_the_real_one(node: Node, image: Image) -> None:
    namespace = node.namespace("twins")
    settings = {"greeting": "hello $(WHO)", "colour": "teal"}
    node.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s", "namespace": namespace}, "data": settings}
    )
    node.registry.add("lab/plane:1", images.plane(image, "dash"))
    asked = {
        "metadata": {"name": "twin", "labels": {"app": "twin"}},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1001, "fsGroup": 1002},
            "volumes": [
                {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "disk", "emptyDir": {}},
                {"name": "settings", "configMap": {"name": "s", "defaultMode": 0o440}},
            ],
            "containers": [
                {
                    "name": "c",
                    "image": "lab/plane:1",
                    "command": ["python", "-c", LOOK],
                    "args": ["", "two  words", "$(WHO) $$(WHO) $(NOBODY)", "é\n'\""],
                    "envFrom": [{"configMapRef": {"name": "s"}, "prefix": "S_"}],
                    "env": [
                        {"name": "WHO", "value": "you"},
                        {"name": "TO", "value": "$(WHO), $(S_colour)"},
                        {"name": "EMPTY"},
                        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    ],
                    "volumeMounts": [
                        {"name": name, "mountPath": f"/{name}"} for name in ("scratch", "disk", "settings")
                    ],
                    "securityContext": {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    create(node, namespace, asked).raise_for_status()
    phase = "jsonpath={.status.phase}"
    wait_for(lambda: node.kubectl("-n", namespace, "get", "pod", "twin", "-o", phase) == "Succeeded", 60, "it ends")
    pod = node.pods(namespace)[0]
    real = json.loads(node.kubectl("-n", namespace, "logs", "twin"))
    with Container.from_pod(pod, image=image, config_maps={"s": settings}) as container:
        assert container.wait() == 0, container.stderr
        simulated = json.loads(container.stdout)
    differing = real.pop("env").items() ^ simulated.pop("env").items()
    # Bubblewrap sets the one; the other is the lab's, whose containers share the host's network.
    assert {name for name, _ in differing} == {"PWD", "BIND_HOST"}
    assert simulated == real
