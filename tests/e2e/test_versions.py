"""Each Kubernetes release that we claim takes the registration as it is printed, and acts on it.

LAB_KUBERNETES_VERSIONS="1.33.13 1.36.3 1.37.2" names the releases; by default it is the lab's own alone. One that isn't
there yet is built (3 to 5 minutes each).
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
import yaml

from lab.controlplane import ControlPlane
from lab.controlplane.programs import VERSIONS
from lab.pods import INJECT, api_pod, create, injected, registered, unharmed
from lab.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

OWN = VERSIONS["kubernetes"]


@pytest.fixture(scope="module", params=os.environ.get("LAB_KUBERNETES_VERSIONS", OWN).split())
def plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    if request.param == OWN:
        yield request.getfixturevalue("controlplane")
        return
    with ControlPlane(kubernetes=request.param, controller_manager=False) as running:
        yield running


@pytest.mark.parametrize(
    ("configuration", "way", "policy"),
    [(None, "--url", "Ignore"), ("workloads: [api]\nimages: []", "--service", "Fail")],
)
def test_the_registration_is_taken_as_it_is_and_acted_upon(
    plane: ControlPlane, configuration: str | None, way: str, policy: str
) -> None:
    namespace = plane.namespace("versions", INJECT)
    host = plane.local_service(plane.namespace("tools"), "injector")
    with Webhook(configuration=configuration, hosts=("127.0.0.1", host)) as webhook, unharmed(plane):
        where = f"tools/injector:{webhook.port}" if way == "--service" else webhook.url
        words = (way, where, "--failure-policy", policy)
        with registered(plane, webhook, *words):
            stored = json.loads(plane.kubectl("get", "mutatingwebhookconfiguration", "plane-webhook", "-o", "json"))
            printed = yaml.safe_load(webhook.registration(*words))
            assert stored["webhooks"] == printed["webhooks"]  # nothing defaulted, nothing dropped
            assert injected(create(plane, namespace, api_pod(), dry_run=True).json())
            other = api_pod(command=["./bin/docker-entrypoint-beat.sh"])
            assert injected(create(plane, namespace, other, dry_run=True).json()) == (configuration is None)
            beside = api_pod(image="i", command=["sleep"])
            beside["spec"]["initContainers"] = [{**api_pod()["spec"]["containers"][0], "restartPolicy": "Always"}]
            beside["spec"]["containers"][0]["name"] = "main"
            assert injected(create(plane, namespace, beside, dry_run=True).json())
            assert create(plane, namespace, {"metadata": {"name": "x"}, "spec": {}}).status_code == 422
