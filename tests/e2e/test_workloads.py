"""A webhook that is configured for the API alone: workers and beat are as their chart made them, and are said so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab.pods import INJECT, essence, registered, unharmed, without_injection
from lab.webhook import Webhook
from tests.e2e.test_release import API, CELERY, OTHERS, release, touched

if TYPE_CHECKING:
    from lab.controlplane import ControlPlane

pytestmark = pytest.mark.lab


def test_workers_and_beat_stay_as_they_were_where_the_api_alone_is_asked_for(controlplane: ControlPlane) -> None:
    with release(controlplane, "api-alone", {}) as plain:
        before = plain.upgrade()
    with (
        Webhook(configuration="workloads: [api]") as webhook,
        registered(controlplane, webhook),
        unharmed(controlplane),
        release(controlplane, "api-alone", INJECT) as labelled,
    ):
        after = labelled.upgrade()
        said = {(line["workload"], line["reason"]) for line in webhook.log_lines(namespace="api-alone")}
        assert said >= {("api", "injected"), ("worker", "not-asked"), ("beat", "not-asked")}
    assert touched(after) == API
    for name in CELERY | OTHERS:
        assert essence(after[name]) == essence(before[name])
    for name in API:
        assert essence(without_injection(after[name])) == essence(before[name])
