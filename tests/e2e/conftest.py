"""What the end-to-end tests share: one control plane for all of them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from lab.cache import LabError
from lab.controlplane import ControlPlane
from lab.controlplane.programs import PROGRAMS, binary
from lab.operating import installed, operate, serving
from lab.webhook import Webhook
from tests.e2e.idling import Idling
from tests.e2e.idling import idling as background

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["installed", "operate", "serving"]  # fixtures


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing before the first test: in sight, and not on a test's time."""
    if session.config.option.collectonly or not any("controlplane" in _fixtures(item) for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with suppress(LabError), capture.global_and_fixture_disabled():  # each test that needs it says so again
        for name in PROGRAMS:
            binary(name)


@pytest.fixture(scope="session")
def controlplane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="session")
def webhook() -> Iterator[Webhook]:
    """The webhook as it comes, for all tests that don't stop it."""
    with Webhook() as running:
        yield running


@pytest.fixture(scope="session")
def idling(controlplane: ControlPlane) -> Iterator[Idling]:
    with background(controlplane) as connections:
        yield connections


@pytest.fixture(scope="session", autouse=True)
def _early(request: pytest.FixtureRequest) -> None:
    """Let connections begin to idle with the first test: their 95 seconds pass while others run."""
    if any("idling" in _fixtures(item) for item in request.session.items):
        request.getfixturevalue("idling")


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])
