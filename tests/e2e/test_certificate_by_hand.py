"""docs/how-to/certificate-by-hand.md, run as it stands: installed, served, and replaced while pods are created."""

from __future__ import annotations

import json
import shutil
import ssl
from typing import TYPE_CHECKING

import pytest

from lab.controlplane.programs import binary
from lab.load import Load
from lab.operating import Kubelet, Operate, bundle, endpoint, kubelet, secret
from lab.pods import INJECT, WEBHOOK, api_pod, create, injected
from lab.process import free_port, wait_for
from lab.webhook import Webhook
from tests.pages import REPOSITORY, blocks, run

if TYPE_CHECKING:
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
