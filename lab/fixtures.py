"""Fixtures of the tests that run real parts: made when first asked for, shared by the whole session."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lab import images
from lab.broker import Broker
from lab.cache import LabError
from lab.node import Node, ensure_possible
from lab.node.programs import built
from lab.packages import ensure_packages
from lab.postgres import Postgres
from lab.redis import Redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lab.images import Image


def need(*packages: str) -> None:
    """Install what is missing, or skip with what there is to install."""
    try:
        ensure_packages(*packages)
    except LabError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def image() -> Image:
    """The image that Plane's containers run in."""
    need("bubblewrap", "util-linux", "dash", "busybox-static")
    return images.build()


def of_kind(kind: str, configuration: Mapping[str, str] | None = None) -> Broker:
    """A broker of one of `rabbitmq.KINDS`, to be started; skips with the reason why it can't be had."""
    try:
        return Broker(configuration, kind=kind)
    except LabError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A broker that stays up: tests that stop one start their own, and each takes what it published."""
    need("rabbitmq-server", "bubblewrap")
    with Broker() as running:
        yield running


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """A Redis that stays up: tests that stop one start their own."""
    need("redis-server", "bubblewrap")
    with Redis() as running:
        yield running


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL with an empty database, each test's own."""
    need("postgresql", "bubblewrap", "util-linux")
    with Postgres() as running:
        yield running


@pytest.fixture(scope="session")
def possible_node() -> None:
    """Skip where no node can run, or where its programs would have to be built first: tests don't take minutes."""
    try:
        ensure_possible()
    except LabError as error:
        pytest.skip(str(error))
    if not built():
        pytest.skip("the node's programs aren't built: `make node` does that, once, in 8 to 15 minutes")


@pytest.fixture(scope="session")
def minutes_allowed() -> None:
    """Skip what takes minutes on the node where nobody asked for it."""
    if "LAB_NODE" not in os.environ:
        pytest.skip("takes 10 to 20 minutes on a real node: `make node` runs it")


@pytest.fixture(scope="session")
def node(possible_node: None) -> Iterator[Node]:  # noqa: ARG001 - it skips
    """A node that stays up, for tests that make namespaces of their own."""
    with Node() as running:
        yield running
