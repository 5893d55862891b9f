"""On a real node: what we inject is run by a real kubelet and container engine, and so are we.

One node, one installation and one release for all files: each of them takes half a minute. A test leaves the release
injected and running.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab.broker import Broker
from lab.node import webhook as ours
from lab.node.plane import Release
from lab.pods import INJECT
from lab.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.images import Image
    from lab.node import Node
    from lab.redis import Redis


@pytest.fixture(scope="session")
def webhook(minutes_allowed: None, node: Node) -> None:  # noqa: ARG001 - it skips
    """plane-webhook, installed as README says; it goes with the node."""
    ours.install(node)


@pytest.fixture(scope="session")
def release(webhook: None, node: Node, image: Image, redis: Redis) -> Iterator[Release]:  # noqa: ARG001
    """A Plane-like release with its own broker and database, injected, as images with busybox run it."""
    with Broker() as broker, Postgres() as postgres:
        made = Release(node, node.namespace("plane", INJECT), broker, redis, postgres)
        made.prepare(image)
        made.upgrade("busybox")
        yield made
