"""The peers' most telling unit tests come out with our patches as without. The rest of them: `make peers`."""

from __future__ import annotations

import pytest

from tests.peers.compare import compare
from tests.peers.suites import SUITES, Peers, Suite, fetch

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def peers() -> Peers:
    return fetch("requirements")


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.package)
def test_with_our_patches_as_without(peers: Peers, suite: Suite) -> None:
    comparison = compare(peers, suite, short=True)
    assert "passed" in comparison.alone.values()
    assert not comparison.faults(), comparison.text()
