"""docs/how-to/certificate-by-hand.md, run as it stands: installed, served, and replaced while pods are created."""

from __future__ import annotations

import shutil
import ssl
from typing import TYPE_CHECKING

import pytest

from lab.load import Load
from lab.operating import Kubelet, kubelet, secret
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
    shutil.copytree(REPOSITORY / "manifests", tmp_path / "manifests")
    registration = tmp_path / "manifests/chart/templates/registration.yaml"
    registration.write_text(registration.read_text().replace("port: 443\n", f"port: {port}\n"))
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
