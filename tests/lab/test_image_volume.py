"""What docs/explanation/delivery.md says of image volumes, the way not taken, on a real kubelet and containerd."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from lab.node import images
from lab.process import wait_for

if TYPE_CHECKING:
    from lab.node import Node

pytestmark = pytest.mark.lab


def pod(name: str, reference: str) -> dict[str, Any]:
    mount = {"name": "files", "mountPath": "/files"}
    container = {"name": "plane", "image": "lab/busybox:1", "command": ["sleep", "600"], "volumeMounts": [mount]}
    volume = {"name": "files", "image": {"reference": reference}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [container], "volumes": [volume], "terminationGracePeriodSeconds": 0},
    }


@pytest.fixture
def busybox(node: Node) -> Node:
    node.registry.add("lab/busybox:1", images.busybox())
    return node


def test_it_is_read_only_for_everybody_and_what_it_holds_can_be_read(busybox: Node) -> None:
    busybox.apply(pod("files", "lab/busybox:1"))
    busybox.wait_ready("default")
    mounts = busybox.kubectl("exec", "files", "--", "cat", "/proc/mounts").splitlines()
    (options,) = [line.split()[3].split(",") for line in mounts if line.split()[1] == "/files"]
    assert "ro" in options
    assert "bin" in busybox.kubectl("exec", "files", "--", "ls", "/files").split()
    refused = busybox.kubectl("exec", "files", "--", "touch", "/files/x", check=False)
    assert "Read-only file system" in refused
    busybox.kubectl("delete", "pod", "files", "--now")


def test_where_the_image_cannot_be_pulled_the_container_does_not_start(busybox: Node) -> None:
    """Plane's own image is there; this alone is not."""
    busybox.apply(pod("none", "lab/none:1"))

    def state() -> dict[str, Any]:
        status = json.loads(busybox.kubectl("get", "pod", "none", "-o", "json"))["status"]
        found: dict[str, Any] = (status.get("containerStatuses") or [{}])[0].get("state", {})
        return found

    wait_for(lambda: state().get("waiting", {}).get("reason") == "ErrImagePull", 60, "the volume's image is not found")
    assert "lab/none:1" in state()["waiting"]["message"]
    busybox.kubectl("delete", "pod", "none", "--now")
