"""A connection that has been idle for a while is used again, or another one is dialled; no call fails.

The API server closes idle connections after 90 s, and doesn't try again when the other side was quicker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.idling import AGES, NAMES

if TYPE_CHECKING:
    from lab.controlplane import ControlPlane
    from tests.e2e.idling import Idling

pytestmark = pytest.mark.lab

KEPT, DROPPED = 85, 95


def test_no_call_fails_on_a_connection_that_has_been_idle(controlplane: ControlPlane, idling: Idling) -> None:
    idling.finish()
    assert idling.results == {age: [True, True] for age in AGES}
    assert {age: controlplane.failed_calls(f"{NAMES[age]}.lab.test") for age in AGES} == dict.fromkeys(AGES, 0)
    # Whoever closes them, it is not the webhook: that could only be found out by failing.
    assert idling.own_is_kept
    # That the ages are what they are for: connections were kept, and later on dropped.
    assert {age for age in AGES if idling.dialled[age]} >= {age for age in AGES if age >= DROPPED}
    assert {age for age in AGES if not idling.dialled[age]} >= {age for age in AGES if age <= KEPT}
