"""A node is drained while the broker is away: what waits in the spool is delivered when both are back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab.node.plane import API, WORKER

if TYPE_CHECKING:
    from lab.node.plane import Release

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]  # the first one starts the node

EXPORTS = 20


def test_a_drained_node_loses_no_task_that_waits_in_the_spool(release: Release) -> None:
    node = release.node
    release.broker.kill()
    exports = [release.export() for _ in range(EXPORTS)]
    # All but ours: of two replicas the PodDisruptionBudget lets one go, and there is no other node for it.
    others = ("--pod-selector", "app.kubernetes.io/name!=plane-webhook")
    node.kubectl("drain", "node", "--delete-emptydir-data", "--timeout=100s", *others)
    assert release.pod(API)["status"]["phase"] == "Pending"
    release.broker.start()
    node.kubectl("uncordon", "node")
    release.wait_ready(API, WORKER, timeout=90)
    release.wait_completed(exports)
