"""`plane-webhook operate` beside others who write into what is its own: nothing of that keeps it from its work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from lab.operating import OWN, SECRET, Operate, gauge, metrics, secret
from lab.pods import INJECT
from lab.process import wait_for

if TYPE_CHECKING:
    from lab.controlplane import ControlPlane

pytestmark = pytest.mark.lab

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{OWN}/leases/{OWN}-operate"
MERGE = {"content-type": "application/merge-patch+json"}
LEADS = "plane_webhook_operate_leader 1.0"
ACTS = ("registered", "endpoints", "endpoints_answering", "certificate_not_after_timestamp_seconds")


def take(plane: ControlPlane, **spec: object) -> None:
    """Write another holder into its Lease, who never renews it."""
    plane.api.patch(LEASE, json={"spec": {"holderIdentity": "somebody", **spec}}, headers=MERGE).raise_for_status()


def test_a_lease_that_somebody_else_has_counted_to_the_end_is_taken_all_the_same(
    controlplane: ControlPlane, operate: Operate
) -> None:
    wait_for(lambda: LEADS in metrics(operate), 15, "it acts", need=[operate.process])
    take(controlplane, leaseTransitions=2**31 - 1)
    wait_for(lambda: LEADS not in metrics(operate), 10, "it stands by", need=[operate.process])
    wait_for(lambda: LEADS in metrics(operate), 20, "it acts again", need=[operate.process])


@pytest.mark.usefixtures("serving")
def test_one_that_stands_by_says_nothing_of_what_it_does_not_look_at(
    controlplane: ControlPlane, operate: Operate
) -> None:
    """What it saw when it acted last is of the past, and 0 would be a replica less and a certificate of 1970."""
    said = [f"plane_webhook_operate_{each} " for each in ACTS]
    wait_for(lambda: all(each in metrics(operate) for each in said), 15, "it acts", need=[operate.process])
    wait_for(lambda: "plane_webhook_operate_endpoints 1.0" in metrics(operate), 15, "it looks")
    take(controlplane)
    wait_for(lambda: LEADS not in metrics(operate), 10, "it stands by", need=[operate.process])
    now = metrics(operate)
    assert not [each for each in said if f"\n{each}" in now]
    wait_for(lambda: LEADS in metrics(operate), 20, "it acts again", need=[operate.process])
    wait_for(lambda: all(each in metrics(operate) for each in said), 5, "and says so")


def test_while_one_thing_is_refused_it_acts_on_and_says_so_once(controlplane: ControlPlane, operate: Operate) -> None:
    """A Secret that nobody may change, until it is deleted."""
    wait_for(lambda: LEADS in metrics(operate), 15, "it acts", need=[operate.process])
    path = f"/api/v1/namespaces/{OWN}/secrets/{SECRET}"
    spoilt = {"immutable": True, "data": {"tls.key": None}}
    controlplane.api.patch(path, json=spoilt, headers=MERGE).raise_for_status()
    wait_for(lambda: operate.said("field is immutable"), 15, "it is said", need=[operate.process])
    end = time.monotonic() + 12
    while time.monotonic() < end:
        assert LEADS in metrics(operate)
        time.sleep(0.2)
    assert len(operate.said("field is immutable")) == 1
    controlplane.api.delete(path).raise_for_status()
    wait_for(lambda: secret(controlplane).get("tls.key"), 10, "a Secret as it should be", need=[operate.process])


def test_a_namespace_that_the_registration_leaves_out_is_said_once_and_not_counted(
    controlplane: ControlPlane, operate: Operate
) -> None:
    controlplane.kubectl("label", "namespace", OWN, "plane-webhook/inject=enabled")
    controlplane.namespace("beside", INJECT)
    wait_for(lambda: gauge(operate, "beside", "missed") == 0, 20, "it has looked", need=[operate.process])
    wait_for(lambda: operate.said("leaves it out"), 20, "it is said", need=[operate.process])
    time.sleep(3)
    (said,) = operate.said("leaves it out")
    assert said.startswith(f"the namespace {OWN} is opted in, and the registration leaves it out")
    assert gauge(operate, OWN, "missed") == -1
    controlplane.kubectl("label", "namespace", OWN, "plane-webhook/inject-")
    controlplane.kubectl("delete", "namespace", "beside", "--wait=false")
