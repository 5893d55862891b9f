"""On a real node: what we inject is run by a real kubelet and container engine, and so are we."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lab.broker import Broker
from lab.container import Shell
from lab.node import webhook as ours
from lab.node.plane import INJECTED, Release
from lab.postgres import Postgres
from lab.process import wait_for
from tests.e2e.cluster import INJECT, SHORT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.images import Image
    from lab.node import Node
    from lab.redis import Redis

pytestmark = pytest.mark.lab

GRACE = 30  # seconds; Kubernetes' default, which Plane's charts leave
RESTRICTED = {"restricted": True, "readOnlyRoot": True}


@pytest.fixture(scope="module")
def certificates(node: Node) -> Iterator[Path]:
    with ours.installed(node) as folder:
        yield folder


@pytest.fixture(scope="module")
def release(certificates: Path, node: Node, image: Image, redis: Redis) -> Iterator[Release]:  # noqa: ARG001
    """A Plane-like release with its own broker and database, injected, as images with busybox run it."""
    with Broker() as broker, Postgres() as postgres:
        made = Release(node, node.namespace("plane", INJECT), broker, redis, postgres)
        made.prepare(image)
        made.upgrade("busybox")
        yield made
        node.helm("uninstall", "plane-app", "--namespace", "plane")


@pytest.mark.parametrize("shell", ["busybox", "dash", "bash"])
def test_what_is_injected_runs_and_is_in_effect(release: Release, shell: Shell) -> None:
    release.upgrade(shell)
    for workload, kind in INJECTED.items():
        pod = release.pod(workload)
        assert pod["metadata"]["annotations"][SHORT] == kind
        assert "plane-webhook: in effect" in release.logs(pod)
        name = pod["metadata"]["name"]
        proof = release.node.kubectl("-n", "plane", "exec", name, "--", "/plane-webhook/proof")
        assert json.loads(proof)["in_effect"]
    done = release.export()
    wait_for(lambda: release.status(done) == "completed", 30, "the export arrives")
