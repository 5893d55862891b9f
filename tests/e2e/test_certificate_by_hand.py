"""docs/how-to/certificate-by-hand.md, run as it stands: installed, served, and replaced while pods are created."""

from __future__ import annotations

import base64
import json
import shutil
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

import certs
from lab.controlplane.programs import binary
from lab.load import Load
from lab.operating import SECRET, Kubelet, Operate, bundle, endpoint, kubelet, secret
from lab.pods import INJECT, WEBHOOK, api_pod, create, injected
from lab.process import free_port, wait_for
from lab.webhook import Webhook
from tests.pages import REPOSITORY, blocks, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.controlplane import ControlPlane

pytestmark = pytest.mark.lab

OWN = "plane-webhook"
PAGE = "docs/how-to/certificate-by-hand.md"


def served(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=5).strip()


def clone(folder: Path, port: int) -> None:
    """What the page's commands need of this repository; the webhook's Service leads to a port, for here is no proxy."""
    shutil.copytree(REPOSITORY / "manifests", folder / "manifests")
    registration = folder / "manifests/chart/templates/registration.yaml"
    registration.write_text(registration.read_text().replace("port: 443\n", f"port: {port}\n"))


@pytest.mark.parametrize("way", ["With Helm", "With kustomize"])
def test_the_pages_commands_install_it_and_replace_its_certificate_under_load(
    controlplane: ControlPlane, tmp_path: Path, way: str
) -> None:
    port = free_port()  # where the webhook's Service leads: no kube-proxy is here
    install, replace = (
        block.replace("REGISTRY", "registry.example.com").replace(
            f"--service {OWN}/{OWN}", f"--service {OWN}/{OWN}:{port}"
        )
        for block in blocks(PAGE, way)
    )
    clone(tmp_path, port)
    namespace = controlplane.namespace("by-hand", INJECT)
    with kubelet(controlplane, OWN):
        run(controlplane, install, tmp_path)
    assert controlplane.kubectl("-n", OWN, "get", "deployments", "-o", "name") == "deployment.apps/plane-webhook\n"

    files = tmp_path / "mounted"
    with Kubelet(controlplane, files):
        wait_for((files / "tls.key").exists, 10, "the Secret's files")
        webhook = Webhook(cert_dir=files)
        webhook.port = port
        with webhook:
            controlplane.local_service(OWN, OWN)

            def works() -> bool:
                return injected(create(controlplane, namespace, api_pod(), dry_run=True).json())

            wait_for(works, 15, "a pod is injected")
            before, failed = served(port), controlplane.failed_calls(WEBHOOK)
            with Load(controlplane, namespace) as load:
                run(controlplane, replace, tmp_path)
                wait_for(lambda: served(port) != before, 30, "another certificate is served")
                load.go_on(2)
            assert load.failures == []
            assert controlplane.failed_calls(WEBHOOK) == failed
            assert secret(controlplane)["tls.crt"].decode().startswith(served(port))
    if way == "With Helm":
        controlplane.helm("uninstall", OWN, "--namespace", OWN)
    else:
        controlplane.kubectl("delete", "mutatingwebhookconfiguration", OWN)
    controlplane.kubectl("delete", "namespace", OWN, namespace)


@pytest.mark.parametrize("program", ["helm", "helm4"])
def test_who_makes_it_is_changed_and_changed_back(controlplane: ControlPlane, tmp_path: Path, program: str) -> None:
    """From `operate` no call fails on the way. Back to it some do, until it has acted: that is said there."""
    port = free_port()
    clone(tmp_path, port)
    namespace = controlplane.namespace("by-hand", INJECT)
    install = ("install", OWN, tmp_path / "manifests/chart", "--namespace", OWN, "--create-namespace")
    controlplane.helm(*install, "--set", "operate.logs={by-hand}", "--set", "replicas=3", program=program)
    own, back = (
        blocks(PAGE, heading)[0].replace("helm upgrade", f"{binary(program)} upgrade")
        for heading in ("From operate to your own", "From your own to operate")
    )
    stop, _, issue = own.partition("mkdir tls\n")
    files = tmp_path / "mounted"
    webhook = Webhook(cert_dir=files)
    webhook.port = port

    def works() -> bool:
        return injected(create(controlplane, namespace, api_pod(), dry_run=True).json())

    with kubelet(controlplane, OWN), Kubelet(controlplane, files), Operate(controlplane) as operate:
        wait_for((files / "tls.key").exists, 30, "operate makes the Secret", need=[operate.process])
        with webhook:
            controlplane.local_service(OWN, OWN)
            controlplane.apply(endpoint(webhook))
            wait_for(works, 15, "a pod is injected")
            before, failed = served(port), controlplane.failed_calls(WEBHOOK)
            with Load(controlplane, namespace) as load:
                run(controlplane, stop, tmp_path)
                assert operate.terminate() == 0  # as its kubelet does
                (tmp_path / "tls").mkdir()
                if program == "helm4":
                    with pytest.raises(AssertionError, match='conflict with "plane-webhook-operate"'):
                        run(controlplane, issue, tmp_path)
                    issue = issue.replace(" upgrade ", " upgrade --force-conflicts ")
                run(controlplane, issue, tmp_path)
                wait_for(lambda: served(port) != before, 30, "another certificate is served")
                load.go_on(2)
            assert load.failures == []
            assert controlplane.failed_calls(WEBHOOK) == failed
            assert controlplane.kubectl("-n", OWN, "get", "deployments", "-o", "name") == f"deployment.apps/{OWN}\n"
            assert bundle(controlplane) == (tmp_path / "tls/ca.crt").read_bytes()
            before = served(port)

            run(controlplane, back, tmp_path)
            assert bundle(controlplane) == b""
            deployment = controlplane.kubectl("-n", OWN, "get", "deployment", OWN, "-o", "json")
            assert json.loads(deployment)["spec"]["replicas"] == 3  # what else was set is set
            operate.start()
            wait_for(works, 15, "a pod is injected again", need=[operate.process])
            assert served(port) == before
    controlplane.kubectl("-n", OWN, "delete", "endpointslice,service", OWN)
    controlplane.helm("uninstall", OWN, "--namespace", OWN, program=program)
    controlplane.kubectl("delete", "namespace", OWN, namespace)


CERT_MANAGER = ("Certificate", "Issuer")


@pytest.fixture
def kinds_of_cert_manager(controlplane: ControlPlane) -> Iterator[None]:
    """Its kinds, of any shape: what is asked is what becomes of objects, not what it makes of them."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    for kind in CERT_MANAGER:
        names = {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower()}
        spec = {"group": "cert-manager.io", "scope": "Namespaced", "names": names, "versions": [version]}
        metadata = {"name": f"{names['plural']}.cert-manager.io"}
        controlplane.apply(
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": metadata,
                "spec": spec,
            }
        )
        controlplane.kubectl("wait", "--for=condition=established", f"crd/{metadata['name']}", "--timeout=30s")
    yield
    controlplane.kubectl("delete", "crd", *(f"{kind.lower()}s.cert-manager.io" for kind in CERT_MANAGER))


@pytest.mark.usefixtures("kinds_of_cert_manager")
def test_what_cert_manager_made_is_operates_and_nothing_of_it_is_left(
    controlplane: ControlPlane, tmp_path: Path
) -> None:
    """What cert-manager would have written is written here: both Secrets, of its type, and the caBundle."""
    (move,) = blocks(PAGE, "From cert-manager to operate")
    clone(tmp_path, free_port())
    controlplane.kubectl("apply", "--server-side", "-k", tmp_path / "manifests/cert-manager")
    tls = tmp_path / "tls"
    certs.issue(tls, [f"{OWN}.{OWN}.svc"], days=20, force=False, now=datetime.now(UTC) - timedelta(days=15))
    data = {each: base64.b64encode((tls / each).read_bytes()).decode() for each in ("tls.crt", "tls.key", "ca.crt")}
    for name in (SECRET, f"{OWN}-ca"):
        metadata = {"name": name, "namespace": OWN, "annotations": {"cert-manager.io/certificate-name": OWN}}
        made = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": data}
        controlplane.kubectl(
            "apply", "--server-side", "--field-manager=cert-manager", "-f", "-", input=json.dumps(made)
        )
    patch = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": data["ca.crt"]}]
    registered = ("mutatingwebhookconfiguration", OWN)
    controlplane.kubectl("patch", *registered, "--type=json", "-p", json.dumps(patch), "--field-manager=cainjector")

    run(controlplane, move, tmp_path)
    left = controlplane.kubectl("-n", OWN, "get", "certificates,issuers", "-o", "name")
    assert (left, "cert-manager" in controlplane.kubectl("get", *registered, "-o", "json")) == ("", False)
    assert bundle(controlplane) == (tls / "ca.crt").read_bytes()
    with Operate(controlplane) as operate:
        wait_for(lambda: operate.said("the condition is set"), 30, "operate sets it", need=[operate.process])
        wait_for(
            lambda: secret(controlplane)["tls.crt"] != (tls / "tls.crt").read_bytes(),
            60,
            "operate renews it",
            need=[operate.process],
        )
        assert secret(controlplane)["ca.crt"] in bundle(controlplane)
    controlplane.kubectl("delete", "-k", tmp_path / "manifests/operate")
