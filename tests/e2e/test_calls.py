"""No call fails while all is well, whatever is restarted or renewed; and what becomes of pods when calls do fail.

The API server's own counters say so: it counts each call that failed, those that it ignored too.
"""

from __future__ import annotations

import shutil
import signal
import socket
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import certs
from lab.faults import Proxy
from lab.load import Load, connections
from lab.packages import ensure_packages, program
from lab.pods import INJECT, WEBHOOK, apart, api_pod, create, injected, registered, unharmed
from lab.process import Process, free_port, wait_for
from lab.webhook import Webhook

if TYPE_CHECKING:
    from lab.controlplane import ControlPlane

pytestmark = pytest.mark.lab

MANIFESTS = Path(__file__).parents[2] / "manifests"
# Seconds until all nodes have heard that an endpoint is gone; usually it is about one.
HEARD = 3.0


@pytest.fixture(scope="module")
def namespace(controlplane: ControlPlane) -> str:
    return controlplane.namespace("calls", INJECT)


def test_a_stopped_webhook_is_ignored_or_named_and_one_that_is_back_is_called_again(
    controlplane: ControlPlane, namespace: str
) -> None:
    elsewhere = controlplane.namespace("calls-elsewhere")
    stranger = api_pod("stranger", command=["sleep"], image="busybox")
    with Webhook() as webhook, registered(controlplane, webhook):
        webhook.process.kill()
        before = controlplane.failed_calls(WEBHOOK)
        answer = create(controlplane, namespace, api_pod("ignored"))
        assert answer.status_code == 201
        assert not injected(answer.json())
        assert controlplane.failed_calls(WEBHOOK) == before + 1
        assert f"failing open {WEBHOOK}" in controlplane.apiserver_log.read_text()

        policy = webhook.registration("--failure-policy", "Fail")
        controlplane.kubectl("apply", "--server-side", "-f", "-", input=policy)
        wait_for(lambda: create(controlplane, namespace, api_pod(), dry_run=True).is_error, 15, "Fail is in force")
        before = controlplane.failed_calls(WEBHOOK)
        answer = create(controlplane, namespace, api_pod("refused"))
        assert answer.status_code == 500
        assert f'failed calling webhook "{WEBHOOK}"' in answer.json()["message"]
        assert controlplane.failed_calls(WEBHOOK) == before + 1
        # Nobody but Plane's pods in namespaces that opted in depends on us.
        assert create(controlplane, namespace, stranger).status_code == 201
        assert create(controlplane, elsewhere, api_pod()).status_code == 201
        opted_out = api_pod("opted-out")
        opted_out["metadata"]["labels"] = {"plane-webhook/inject": "disabled"}
        assert create(controlplane, namespace, opted_out).status_code == 201
        assert controlplane.failed_calls(WEBHOOK) == before + 1

        webhook.start()
        with unharmed(controlplane):
            assert injected(create(controlplane, namespace, api_pod("back")).json())


def test_when_a_certificate_ends_replicas_say_so_and_pods_slip_by_once_the_open_connection_has_ended(
    controlplane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    """What docs/how-to/certificate-by-hand.md and an alert say of that day; the proxy ends the connection."""
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=20)  # certificates know whole seconds
    for name, content in certs.generate(["127.0.0.1"], days=1, now=ends - timedelta(days=1)).items():
        (tmp_path / name).write_bytes(content)
    with Webhook(cert_dir=tmp_path) as webhook, Proxy(webhook.port) as proxy:
        webhook.url = f"https://127.0.0.1:{proxy.port}"
        with registered(controlplane, webhook):
            wait_for(lambda: not webhook.ready(), 40, "it is unready")
            assert datetime.now(UTC) > ends
            (said,) = wait_for(lambda: webhook.log_lines(level="error"), 10, "it says so")
            assert "expired" in said["message"]
            with unharmed(controlplane):
                for number in range(5):
                    assert injected(create(controlplane, namespace, api_pod(f"still-{number}")).json())
            proxy.cut()
            before = controlplane.failed_calls(WEBHOOK)
            answer = create(controlplane, namespace, api_pod("expired"))
            assert answer.status_code == 201
            assert not injected(answer.json())
            assert "warning" not in answer.headers
            assert controlplane.failed_calls(WEBHOOK) == before + 1
            assert "certificate has expired" in controlplane.apiserver_log.read_text()


def test_registered_by_a_service(controlplane: ControlPlane, namespace: str) -> None:
    """And never for the pods of the Service's own namespace or of kube-system, even where they carry the label."""
    own = controlplane.namespace("webhook-tools", INJECT)
    host = controlplane.local_service(own, "injector")
    system = controlplane.namespace("kube-system", INJECT)
    with Webhook(hosts=(host,)) as webhook, unharmed(controlplane):
        where = f"{own}/injector:{webhook.port}"
        with registered(controlplane, webhook, "--service", where, "--failure-policy", "Fail"):
            assert injected(create(controlplane, namespace, api_pod("by-service")).json())
            calls = webhook.reviews
            for exempt in (own, system):
                answer = create(controlplane, exempt, api_pod("exempt"))
                assert answer.status_code == 201
                assert not injected(answer.json())
            assert webhook.reviews == calls
    controlplane.kubectl("label", "namespace", system, "plane-webhook/inject-")


def test_a_certificate_is_replaced_under_load(controlplane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """As `certs issue` has it: clients are handed the new ca.crt first, the server its new pair afterwards."""
    new = tmp_path / "new"
    with Webhook() as webhook, registered(controlplane, webhook), unharmed(controlplane):
        with Load(controlplane, namespace, callers=2) as load:
            load.go_on(1)
            shutil.copytree(webhook.cert_dir, new)
            webhook.issue(new, "--force")
            _register(controlplane, webhook, new / "ca.crt")
            load.go_on(1)
            for name in ("ca.crt", "tls.crt", "tls.key"):
                shutil.copy(new / name, webhook.cert_dir / name)
            wait_for(lambda: webhook.metric("certificate_reloads_total") == 2, 10, "the new pair is in service")
            load.go_on(1)
            # Who trusts the new authority alone meets the new certificate.
            newest, end, _ = (new / "ca.crt").read_text().partition("-----END CERTIFICATE-----\n")
            (tmp_path / "newest.crt").write_text(newest + end)
            _register(controlplane, webhook, tmp_path / "newest.crt")
            load.go_on(1)
        assert load.failures == []
        assert webhook.metric("certificate_reload_errors_total") == 0


def _register(plane: ControlPlane, webhook: Webhook, authority: Path) -> None:
    """Apply the registration with another bundle, and return when the API server has dialled for it."""
    before = connections(webhook.port)
    plane.kubectl("apply", "--server-side", "-f", "-", input=webhook.registration("--ca-file", authority))
    wait_for(lambda: connections(webhook.port) - before, 10, "the API server dials with the new bundle")


def test_sigterm_under_load_while_another_replica_serves(
    controlplane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    """HAProxy stands for the Service: it sends nobody to the pod that is deleted any more, as soon as it has heard.

    Like kube-proxy, it doesn't try again elsewhere. Its checks are those of the manifest's readiness probe.
    """
    ensure_packages("haproxy")
    deployment = yaml.safe_load((MANIFESTS / "base/deployment.yaml").read_text())["spec"]["template"]["spec"]
    probe = deployment["containers"][0]["readinessProbe"]
    admin = tmp_path / "admin.sock"
    with ExitStack() as stack:
        leaving = stack.enter_context(Webhook())
        staying = stack.enter_context(Webhook(cert_dir=leaving.cert_dir))
        port = free_port()
        (tmp_path / "haproxy.cfg").write_text(
            f"""
            global
                stats socket {admin} level admin
            defaults
                mode tcp
                retries 0
                timeout connect 2s
                timeout client 10m
                timeout server 10m
                timeout check {probe["timeoutSeconds"]}s
            listen webhook
                bind 127.0.0.1:{port}
                balance roundrobin
                option httpchk GET {probe["httpGet"]["path"]}
                default-server check check-ssl verify none inter {probe["periodSeconds"]}s fall 3 rise 1
                server leaving 127.0.0.1:{leaving.port}
                server staying 127.0.0.1:{staying.port}
            \n"""
        )
        haproxy = Process([program("haproxy"), "-db", "-f", tmp_path / "haproxy.cfg"], log=tmp_path / "haproxy.log")
        stack.callback(haproxy.kill)
        wait_for(admin.exists, 10, "HAProxy is up", need=[haproxy])
        stack.enter_context(unharmed(controlplane))
        where = f"https://127.0.0.1:{port}"
        stack.enter_context(registered(controlplane, leaving, "--url", where, called=False))
        # Callers of one registration soon have connections that stay; here somebody has to dial all the time.
        callers = [f"sigterm-{number}" for number in range(20)]
        stack.enter_context(apart(controlplane, yaml.safe_load(leaving.registration("--url", where)), callers))
        load = stack.enter_context(Load(controlplane, namespace))
        wait_for(lambda: min(leaving.reviews, staying.reviews) > 20, 20, "both replicas are called", need=[haproxy])
        load.failures.clear()  # of the time before the registration was in force

        begun = time.monotonic()
        leaving.process.signal(signal.SIGTERM)
        told = False
        while callers and (leaving.process.alive() or len(callers) > 5):
            assert injected(create(controlplane, callers.pop(), api_pod(), dry_run=True).json())
            time.sleep(0.4)
            if not told and time.monotonic() > begun + HEARD:
                _say(admin, "set server webhook/leaving state drain")
                told = True
        assert leaving.process.wait(deployment["terminationGracePeriodSeconds"]) == 0
        load.go_on(1)
        assert load.failures == []


def _say(socket_path: Path, command: str) -> None:
    """Tell HAProxy something over its socket for administrators."""
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(socket_path))
        admin.sendall(f"{command}\n".encode())
        assert admin.recv(1000).strip() == b""
