"""What manifests/ has is taken by the API server as it is, and says what the commands say."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lab.operating import ACCOUNT, SECRET, Operate, endpoint, metrics
from lab.pods import INJECT, api_pod, create, injected, unharmed
from lab.process import wait_for
from lab.webhook import Webhook, command
from tests.pages import blocks, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.controlplane import ControlPlane

MANIFESTS = Path(__file__).parents[2] / "manifests"
OWN = "plane-webhook"


def built(controlplane: ControlPlane, name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(controlplane.kubectl("kustomize", MANIFESTS / name)))


def registration(tmp_path: Path) -> str:
    """What a user would apply, for the Service of the manifests."""
    command("certs", "issue", "--dir", tmp_path / "tls", "--host", "plane-webhook.plane-webhook.svc")
    return command("registration", "--service", "plane-webhook/plane-webhook", "--ca-file", tmp_path / "tls/ca.crt")


def test_the_registration_for_cert_manager_is_the_commands_without_an_authority(tmp_path: Path) -> None:
    """cert-manager's injector fills in the caBundle of what carries its annotation."""
    printed = yaml.safe_load(registration(tmp_path))
    del printed["webhooks"][0]["clientConfig"]["caBundle"]
    printed["metadata"]["annotations"] = {"cert-manager.io/inject-ca-from": "plane-webhook/plane-webhook"}
    assert yaml.safe_load((MANIFESTS / "cert-manager/registration.yaml").read_text()) == printed


@pytest.mark.lab
def test_the_base_is_applied_twice_and_its_pods_are_made_whatever_becomes_of_the_webhook(
    controlplane: ControlPlane, tmp_path: Path
) -> None:
    """Pod Security `restricted` is enforced there; and nobody answers the registration, which says Fail."""
    apply = ("apply", "--server-side", "--validate=strict", "-k", MANIFESTS / "base")
    controlplane.kubectl(*apply)
    controlplane.kubectl("label", "namespace", OWN, "plane-webhook/inject=enabled")
    nobody = registration(tmp_path).replace("failurePolicy: Ignore", "failurePolicy: Fail")
    controlplane.kubectl("apply", "--server-side", "--validate=strict", "-f", "-", input=nobody)
    with unharmed(controlplane):
        controlplane.kubectl("-n", OWN, "delete", "pods", "--all", "--wait=false")
        wait_for(lambda: len(controlplane.pods(OWN)) == 2, 30, "the webhook's own pods")
        assert not any(injected(pod) for pod in controlplane.pods(OWN))

        def deployment() -> dict[str, Any]:
            return json.loads(controlplane.kubectl("-n", OWN, "get", "deployment", "plane-webhook", "-o", "json"))

        before = deployment()
        controlplane.kubectl(*apply)
        assert deployment()["metadata"]["generation"] == before["metadata"]["generation"]
        controlplane.settle(OWN)
        budget = (
            "-n",
            OWN,
            "get",
            "poddisruptionbudget",
            "plane-webhook",
            "-o",
            "jsonpath={.status.disruptionsAllowed}",
        )
        wait_for(lambda: controlplane.kubectl(*budget) == "1", 30, "one of the two may go")
    controlplane.kubectl("delete", "mutatingwebhookconfiguration", "plane-webhook")
    controlplane.kubectl("delete", "namespace", OWN)


@pytest.mark.lab
def test_readme_deletes_each_superseded_configuration_and_not_the_one_in_use(
    controlplane: ControlPlane, tmp_path: Path
) -> None:
    shutil.copytree(MANIFESTS / "base", tmp_path / "base")
    file, text = tmp_path / "base/configuration.yaml", (MANIFESTS / "base/configuration.yaml").read_text()
    for patience in (2, 3, 4):
        file.write_text(text.replace("patience: 1 ", f"patience: {patience} "))
        controlplane.kubectl("apply", "--server-side", "-k", tmp_path / "base")
    names = ("-n", OWN, "get", "configmaps", "-o", "name")
    there = {name for name in controlplane.kubectl(*names).split() if "/plane-webhook-" in name}
    assert len(there) == 3
    controlplane.kubectl("-n", OWN, "create", "configmap", "plane-webhook-state")
    (block,) = blocks("README.md", "With kustomize")
    run(controlplane, block, tmp_path)
    left = {name for name in controlplane.kubectl(*names).split() if "/plane-webhook-" in name}
    volume = "jsonpath={.spec.template.spec.volumes[0].configMap.name}"
    used = controlplane.kubectl("-n", OWN, "get", "deployment", OWN, "-o", volume)
    assert left == {f"configmap/{used}", "configmap/plane-webhook-state"}
    controlplane.kubectl("-n", OWN, "delete", "deployment", OWN)
    run(controlplane, f"{block.strip()} || true", tmp_path)
    assert left <= set(controlplane.kubectl(*names).split()), "who can't see which is in use deletes none"
    controlplane.kubectl("delete", "namespace", OWN)


@pytest.mark.lab
def test_what_the_deployment_mounts_and_names_is_there(controlplane: ControlPlane) -> None:
    objects = built(controlplane, "base")
    (deployment,) = [each for each in objects if each["kind"] == "Deployment"]
    (configuration,) = [each for each in objects if each["kind"] == "ConfigMap"]
    template = deployment["spec"]["template"]
    volumes = {each["name"]: each for each in template["spec"]["volumes"]}
    assert volumes["configuration"]["configMap"]["name"] == configuration["metadata"]["name"]
    assert {each["metadata"]["namespace"] for each in objects if each["kind"] != "Namespace"} == {OWN}
    for kind in ("Service", "PodDisruptionBudget"):
        (other,) = [each for each in objects if each["kind"] == kind]
        selector = other["spec"]["selector"]
        assert selector.get("matchLabels", selector).items() <= template["metadata"]["labels"].items()
    issued = {
        each["spec"]["secretName"] for each in built(controlplane, "cert-manager") if each["kind"] == "Certificate"
    }
    assert volumes["tls"]["secret"]["secretName"] in issued


@pytest.mark.lab
def test_what_is_not_cert_managers_own_of_the_other_way_is_accepted(controlplane: ControlPlane) -> None:
    """Its own kinds aren't known here."""
    objects = built(controlplane, "cert-manager")
    theirs = [each for each in objects if each["apiVersion"].startswith("cert-manager.io/")]
    assert sorted(each["kind"] for each in theirs) == ["Certificate", "Certificate", "Issuer", "Issuer"]
    ours = [each for each in objects if each not in theirs]
    assert {each["kind"] for each in ours} > {"Deployment", "MutatingWebhookConfiguration"}
    controlplane.namespace(OWN)
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": ours})
    controlplane.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", input=listed)


@pytest.fixture
def with_cert_manager(controlplane: ControlPlane, tmp_path: Path) -> Iterator[Path]:
    """What is ours of it; in cert-manager's place a pair in the Secret, which ends in 20 days. Yield its folder."""
    ours = [each for each in built(controlplane, "cert-manager") if "cert-manager.io" not in each["apiVersion"]]
    tls = tmp_path / "tls"
    command("certs", "issue", "--days", "20", "--dir", tls, "--host", f"{OWN}.{OWN}.svc")
    files = [f"--from-file={tls / name}" for name in ("tls.crt", "tls.key", "ca.crt")]
    try:
        controlplane.apply(*ours)
        controlplane.kubectl("-n", OWN, "create", "secret", "generic", SECRET, *files)
        yield tls
    finally:
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": ours})
        controlplane.kubectl("delete", "-f", "-", "--ignore-not-found", input=listed)


@pytest.mark.lab
def test_with_cert_manager_operate_watches_and_may_do_no_more(
    controlplane: ControlPlane, with_cert_manager: Path
) -> None:
    can = ("auth", "can-i", f"--as=system:serviceaccount:{OWN}:{ACCOUNT}")
    for words, allowed in {
        ("list", "pods", "-n", "elsewhere"): True,
        ("get", f"mutatingwebhookconfiguration/{OWN}"): True,
        ("patch", f"mutatingwebhookconfiguration/{OWN}"): False,
        ("get", f"secret/{SECRET}", "-n", OWN): False,
        ("patch", f"secret/{SECRET}", "-n", OWN): False,
    }.items():
        assert controlplane.kubectl(*can, *words, check=False).split()[:1] == ["yes" if allowed else "no"], words

    namespace = controlplane.namespace("issued")
    create(controlplane, namespace, api_pod("early")).raise_for_status()
    controlplane.namespace(namespace, INJECT)
    with (
        Webhook(cert_dir=with_cert_manager) as webhook,
        Operate(controlplane, "--certificates=watch") as operate,
    ):
        controlplane.apply(endpoint(webhook))
        shown = ("get", "configmap", "plane-webhook-state", "--ignore-not-found", "-o", "jsonpath={.data.issued}")
        need = [operate.process]
        wait_for(
            lambda: "missed: 1" in controlplane.kubectl("-n", OWN, *shown), 40, "what slipped by is said", need=need
        )
        wait_for(lambda: operate.said("and was not renewed: look at cert-manager"), 20, "the end is said", need=need)
        gone = [{"op": "remove", "path": "/webhooks/0/matchConditions"}]
        controlplane.kubectl("patch", "mutatingwebhookconfiguration", OWN, "--type=json", "-p", json.dumps(gone))
        time.sleep(2)  # some passes
        assert not operate.said("403")
        assert "plane_webhook_operate_errors_total 0.0" in metrics(operate)
    controlplane.kubectl("delete", "namespace", namespace, "--wait=false")
