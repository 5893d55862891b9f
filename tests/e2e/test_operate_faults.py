"""`plane-webhook operate` in trouble, on a control plane of its own: nothing is done twice, and all comes right."""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography import x509

import certs
from certs.issuing import BACKDATED
from lab.controlplane import ControlPlane
from lab.faults import HOLD, SWALLOW, Flow, Proxy
from lab.operating import (
    ACCOUNT,
    HEAL,
    OWN,
    SECRET,
    Operate,
    bind,
    bundle,
    deployment,
    gauge,
    healed,
    kubelet,
    metrics,
    released,
    secret,
)
from lab.pods import api_pod, create, injected, unharmed
from lab.process import wait_for
from lab.webhook import Webhook
from webhook.cluster import certificates
from webhook.cluster.api import Api
from webhook.cluster.operate import Operator, Options
from webhook.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

SECRETS = f"/api/v1/namespaces/{OWN}/secrets"
AWAY = 6.0  # seconds that etcd is away


@pytest.fixture(scope="module")
def controlplane() -> Iterator[ControlPlane]:
    """One of this file's own: others count on theirs."""
    with ControlPlane() as plane:
        yield plane


def settled(plane: ControlPlane) -> bool:
    """Whether there is a good pair, and its authority alone is trusted."""
    files = secret(plane)
    try:
        certs.check(files["tls.crt"], files["tls.key"], files["ca.crt"], now=datetime.now(UTC))
    except (KeyError, certs.CertificateError):
        return False
    return bundle(plane) == files["ca.crt"]


def holder(plane: ControlPlane) -> str:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{OWN}/leases/{ACCOUNT}"
    return str(plane.api.get(path).json().get("spec", {}).get("holderIdentity", ""))


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize(("component", "seconds"), [("kube-apiserver", 2.0), ("etcd", AWAY)])
def test_after_the_api_server_or_etcd_was_away_it_goes_on(
    controlplane: ControlPlane, operate: Operate, component: str, seconds: float
) -> None:
    """The same process, and a Secret that is deleted afterwards is there again."""
    wait_for(lambda: settled(controlplane), 30, "all is well", need=[operate.process])
    controlplane.kill(component)
    time.sleep(seconds)
    controlplane.restart(component)
    began = time.monotonic()

    def deleted() -> bool:
        try:
            return controlplane.api.delete(f"{SECRETS}/{SECRET}").is_success
        except httpx.TransportError:
            return False

    wait_for(deleted, 60, "the API server is back", need=[operate.process])
    wait_for(lambda: settled(controlplane), 90, "a new pair", need=[operate.process])
    print(f"{component} away for {seconds:g} s: all is well {time.monotonic() - began:.0f} s after it came back")
    assert operate.runs == 1


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("writes", [2, 6])  # all from 1 to 8 were tried; each takes its time
def test_killed_after_any_write_the_next_one_goes_on_from_there(
    controlplane: ControlPlane, operate: Operate, writes: int
) -> None:
    """A Secret is to be made anew meanwhile, and a pod that slipped by to be healed; no call fails."""
    name = released(controlplane, f"killed-{writes}")
    bind(controlplane, name)
    wait_for(lambda: settled(controlplane), 30, "all is well", need=[operate.process])
    operate.terminate()
    controlplane.namespace(name, HEAL)
    with unharmed(controlplane), kubelet(controlplane, name):
        controlplane.api.delete(f"{SECRETS}/{SECRET}").raise_for_status()
        with Operate(controlplane, writes=writes) as first:
            assert first.process.wait(40) == -signal.SIGKILL
        operate.start()
        wait_for(
            lambda: settled(controlplane) and healed(controlplane, name, 1),
            60,
            "all is well",
            need=[operate.process],
        )
    controlplane.kubectl("delete", "namespace", name, "--wait=false")


def test_with_a_clock_that_is_a_year_ahead_no_certificate_is_made(controlplane: ControlPlane, operate: Operate) -> None:
    wait_for(lambda: settled(controlplane), 30, "all is well", need=[operate.process])
    operate.terminate()
    before = secret(controlplane)
    with Operate(controlplane, ahead=365 * 86_400) as ahead:
        wait_for(lambda: ahead.said("set the node's clock right"), 10, "it is said", need=[ahead.process])
        assert secret(controlplane) == before
        assert ahead.terminate() == 0
    operate.start()


@pytest.mark.parametrize("days", [365, -365])
def test_while_its_clock_stands_a_year_off_nothing_is_done_and_then_it_goes_on(
    controlplane: ControlPlane,
    operate: Operate,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    days: int,
) -> None:
    """It jumps between two passes, twice; the second time with a pair under way. The Lease is not lost by it."""
    wait_for(lambda: settled(controlplane), 30, "all is well", need=[operate.process])
    assert operate.terminate() == 0
    monkeypatch.setattr(certificates, "SETTLE", timedelta(0))
    api = Api.connect(operate.folder / "kubeconfig")
    told = Options(namespace=OWN, secret=SECRET, manage_certificates=True, metrics_host="", metrics_port=0)
    ahead = timedelta(0)
    operator = Operator(api, Settings(), told, now=lambda: datetime.now(UTC) + ahead)
    before = secret(controlplane), bundle(controlplane)

    def steps(many: int) -> list[bool]:
        return [operator.step() for _ in range(many)]

    assert steps(2) == [False, False]
    for jump in (timedelta(days=days), timedelta(0)):
        ahead = jump
        assert not any(steps(3))
        assert (secret(controlplane), bundle(controlplane)) == before
    controlplane.api.delete(f"{SECRETS}/{SECRET}").raise_for_status()
    assert steps(2) == [True, True], "a pair is made, and its authority trusted"
    between = bundle(controlplane)
    ahead = timedelta(days=days)
    assert not any(steps(3))
    assert (secret(controlplane), bundle(controlplane)) == ({}, between)
    ahead = timedelta(0)
    assert steps(1) == [True]
    made_at = x509.load_pem_x509_certificate(secret(controlplane)["tls.crt"]).not_valid_before_utc
    assert abs(datetime.now(UTC) - BACKDATED - made_at) < timedelta(minutes=1)
    assert operator.exporter.registry.get_sample_value("plane_webhook_operate_leader") == 1
    assert capfd.readouterr().out.count("set the node's clock right") == 2, "each time, and not with each pass"
    operate.start()  # the Lease is taken over when it has not changed for a while
    wait_for(lambda: settled(controlplane), 30, "all is well", need=[operate.process])


@pytest.mark.usefixtures("serving")
def test_one_that_was_cut_off_and_comes_back_to_another_that_acts_does_no_harm(
    controlplane: ControlPlane, operate: Operate
) -> None:
    wait_for(lambda: settled(controlplane), 30, "all is well", need=[operate.process])
    name = released(controlplane, "cut-off", replicas=2)
    bind(controlplane, name)
    with Operate(controlplane) as second, unharmed(controlplane), kubelet(controlplane, name):
        first = holder(controlplane)
        operate.process.signal(signal.SIGSTOP)
        controlplane.namespace(name, HEAL)
        controlplane.api.delete(f"{SECRETS}/{SECRET}").raise_for_status()
        wait_for(lambda: holder(controlplane) not in ("", first), 20, "the second takes over", need=[second.process])
        operate.process.signal(signal.SIGCONT)
        wait_for(lambda: settled(controlplane) and healed(controlplane, name, 2), 60, "all is well")
        wait_for(lambda: "plane_webhook_operate_leader 0.0" in metrics(operate), 10, "the first stands by")
        evictions = [
            each for each in metrics(second).splitlines() if each.startswith("plane_webhook_operate_evictions_t")
        ]
        assert [each.split()[-1] for each in evictions] == ["2.0", "0.0"], "made, and refused"
        assert second.terminate() == 0


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("flow", [SWALLOW, HOLD], ids=["swallowed", "held back and then delivered"])
def test_one_whose_connection_dies_in_silence_acts_no_more_and_does_no_harm_when_that_is_over(
    controlplane: ControlPlane, operate: Operate, flow: Flow
) -> None:
    """Its writes succeed and nothing comes back, in the middle of healing; another one takes over and goes on."""
    wait_for(lambda: settled(controlplane), 30, "all is well", need=[operate.process])
    name = released(controlplane, "swallowed" if flow is SWALLOW else "held", replicas=3)
    bind(controlplane, name)
    assert operate.terminate() == 0
    port = int(controlplane.url.rpartition(":")[2])
    with (
        Proxy(port) as proxy,
        Operate(controlplane, through=proxy.port) as first,
        unharmed(controlplane),
        kubelet(controlplane, name),
    ):
        wait_for(lambda: LEADS in metrics(first), 10, "it acts", need=[first.process])
        with Operate(controlplane) as second:
            was = holder(controlplane)
            controlplane.namespace(name, HEAL)
            wait_for(lambda: evicted(first) == 1, 30, "it evicts", need=[first.process])
            proxy.flow(up=flow, down=flow, fresh=True)
            wait_for(lambda: holder(controlplane) not in ("", was), 20, "the second takes over", need=[second.process])
            assert LEADS not in metrics(first)
            wait_for(lambda: healed(controlplane, name, 3), 60, "all is healed", need=[second.process])
            wait_for(lambda: first.said("no answer"), 15, "it says why", need=[first.process])
            wait_for(lambda: "operate_pods{" not in metrics(first), 1, "it counts no pods, for it can't know")
            controlplane.api.delete(f"{SECRETS}/{SECRET}").raise_for_status()
            wait_for(lambda: settled(controlplane), 60, "a new pair", need=[second.process])
            proxy.heal(cut=flow is SWALLOW)
            time.sleep(10)  # it tries again after its pause; below it shows that it could
            assert settled(controlplane)
            assert LEADS not in metrics(first)
            assert LEADS in metrics(second)
            assert evicted(second) == 2
            assert made(controlplane, name) == 3 + 3, "each was evicted once"
            assert second.terminate() == 0
        wait_for(lambda: LEADS in metrics(first), 40, "the first can still act", need=[first.process])
        assert first.terminate() == 0
    operate.start()


LEADS = "plane_webhook_operate_leader 1.0"


def evicted(operate: Operate) -> float:
    """How many pods it says that it has evicted."""
    lines = [each for each in metrics(operate).splitlines() if each.startswith("plane_webhook_operate_evictions_t")]
    return sum(float(each.split()[-1]) for each in lines if 'outcome="made"' in each)


def made(plane: ControlPlane, namespace: str) -> int:
    """How many pods its controllers have made there in all, by their own word."""
    events = plane.api.get(f"/api/v1/namespaces/{namespace}/events").json()["items"]
    return sum(each.get("count") or 1 for each in events if each["reason"] == "SuccessfulCreate")


def test_what_slips_by_a_webhook_that_hangs_is_found_and_healed(
    controlplane: ControlPlane, operate: Operate, serving: Webhook
) -> None:
    """Stopped, it answers nothing for the five seconds that the API server waits."""
    names = [controlplane.namespace(f"hung-{each}", HEAL) for each in range(4)]
    for name in names:
        wait_for(
            lambda name=name: create(controlplane, name, api_pod(), dry_run=True).is_success, 15, "pods can be made"
        )
        bind(controlplane, name)
    serving.process.signal(signal.SIGSTOP)
    try:
        controlplane.apply(*(deployment(name, 2) for name in names))
        wait_for(lambda: all(len(controlplane.pods(name)) == 2 for name in names), 60, "the pods are made")
    finally:
        serving.process.signal(signal.SIGCONT)
    slipped = sum(not injected(pod) for name in names for pod in controlplane.pods(name))
    print(f"the webhook hung while 8 pods were made: {slipped} slipped by")
    assert slipped == 8
    wait_for(
        lambda: sum(gauge(operate, name, "missed") for name in names) == slipped,
        10,
        "each is found",
        need=[operate.process],
    )
    with kubelet(controlplane, *names):
        wait_for(
            lambda: all(healed(controlplane, name, 2) for name in names),
            60,
            "each is healed",
            need=[operate.process],
        )
