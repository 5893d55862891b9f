"""Certificates and a running webhook for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edges.webhook import Webhook, issue


@pytest.fixture
def cert_dir(tmp_path: Path) -> Path:
    return issue(tmp_path / "tls")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "webhook.log"


@pytest.fixture(scope="module")
def webhook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    """One with the limits that are deployed, shared by the tests of a module that only send requests."""
    directory = tmp_path_factory.mktemp("webhook")
    with Webhook(issue(directory / "tls"), directory / "webhook.log") as webhook:
        yield webhook
