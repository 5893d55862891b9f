"""No call fails while all is well, whatever is restarted or renewed; and what becomes of pods when calls do fail.

The API server's own counters say so: it counts each call that failed, those that it ignored too.
"""

from __future__ import annotations

import base64
import http.client
import shutil
import ssl
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e.cluster import INJECT, WEBHOOK, api_pod, create, injected, registered, unharmed
from tests.e2e.load import Load, connections
from tests.lab.packages import program
from tests.lab.process import Process, free_port, wait_for
from tests.lab.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.controlplane import ControlPlane

pytestmark = pytest.mark.lab

MANIFESTS = Path(__file__).parents[2] / "manifests"

# Seconds between two calls on a connection. The API server closes idle ones after 90 s: around that is where a client
# that is about to use a connection and a server that is about to close it would meet.
AGES = (5, 30, 60, 85, 89, 89.8, 89.9, 90, 90.1, 90.2, 91, 95)
KEPT, DROPPED = 85, 95


@pytest.fixture(scope="module", autouse=True)
def idling(controlplane: ControlPlane) -> Iterator[Idling]:
    """Connections that idle while the other tests of this module run."""
    with Webhook() as webhook:
        idling = Idling(controlplane, webhook)
        yield idling
        idling.stop()


class Idling:
    """A connection for each age: a call at once, another one when the connection is so old."""

    def __init__(self, plane: ControlPlane, webhook: Webhook) -> None:
        self.plane, self.webhook = plane, webhook
        self.dialled: dict[float, bool] = {}  # whether the second call took another connection
        self.results: dict[float, list[bool]] = {}  # whether the pods were injected
        self._over = threading.Event()
        for age in AGES:
            plane.namespace(self.name(age), {"lab": self.name(age)})
        plane.apply(*(self._registration(age, copies) for copies, age in enumerate(AGES, 1)))
        self._raw = http.client.HTTPSConnection("127.0.0.1", webhook.port, timeout=20, context=_trusting(webhook))
        self.answers_raw()
        self._raw.auto_open = 0  # from now on it is this connection or none
        begun = {age: self._first(age) for age in AGES}
        self._thread = threading.Thread(target=self._second, args=(begun,))
        self._thread.start()

    @staticmethod
    def name(age: float) -> str:
        return f"idle-{age}".replace(".", "-")

    def _registration(self, age: float, copies: int) -> dict[str, Any]:
        """Return one more registration of the webhook, for one namespace, for which the API server dials separately.

        Registrations that trust the same bundle share connections: here each has another number of copies in it.
        """
        registration = yaml.safe_load(self.webhook.registration())
        (webhook,) = registration["webhooks"]
        registration["metadata"]["name"] = self.name(age)
        webhook["name"] = f"{self.name(age)}.lab.test"
        webhook["namespaceSelector"] = {"matchLabels": {"lab": self.name(age)}}
        authority = (self.webhook.cert_dir / "ca.crt").read_bytes()
        webhook["clientConfig"]["caBundle"] = base64.b64encode(authority * copies).decode()
        return registration

    def _call(self, age: float) -> bool:
        return injected(create(self.plane, self.name(age), api_pod(), dry_run=True).json())

    def _first(self, age: float) -> float:
        wait_for(lambda: self._call(age), 15, f"the registration {self.name(age)} is in use")
        self.results[age] = [self._call(age)]
        return time.monotonic()

    def _second(self, begun: dict[float, float]) -> None:
        for age, moment in sorted(begun.items(), key=lambda item: item[0] + item[1]):
            if self._over.wait(max(0.0, moment + age - time.monotonic())):
                return
            before = connections(self.webhook.port)
            self.results[age].append(self._call(age))
            self.dialled[age] = bool(connections(self.webhook.port) - before)

    def answers_raw(self) -> bool:
        """Tell whether a connection of our own, which no client ever closes, is still good."""
        self._raw.request("GET", "/livez")
        response = self._raw.getresponse()
        response.read()
        return response.status == http.HTTPStatus.OK and not response.will_close

    def finish(self) -> None:
        self._thread.join()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._raw.close()
        self.plane.kubectl("delete", "mutatingwebhookconfiguration", *map(self.name, AGES))


def _trusting(webhook: Webhook) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=webhook.cert_dir / "ca.crt")


@pytest.fixture(scope="module")
def namespace(controlplane: ControlPlane) -> str:
    return controlplane.namespace("calls", INJECT)


def test_a_stopped_webhook_is_ignored_or_named_and_one_that_is_back_is_called_again(
    controlplane: ControlPlane, namespace: str
) -> None:
    elsewhere = controlplane.namespace("calls-elsewhere")
    stranger = api_pod("stranger", command=["sleep"])
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
        with Load(controlplane, namespace) as load:
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
    """HAProxy stands for the Service: it takes a replica out when the manifest's own readiness probe would."""
    deployment = yaml.safe_load((MANIFESTS / "base/deployment.yaml").read_text())["spec"]["template"]["spec"]
    probe = deployment["containers"][0]["readinessProbe"]
    with ExitStack() as stack:
        leaving = stack.enter_context(Webhook())
        staying = stack.enter_context(Webhook(cert_dir=leaving.cert_dir))
        port = free_port()
        misses = probe.get("failureThreshold", 3)  # Kubernetes' own default
        (tmp_path / "haproxy.cfg").write_text(
            f"""
            defaults
                mode tcp
                timeout connect 2s
                timeout client 10m
                timeout server 10m
                timeout check {probe["timeoutSeconds"]}s
            listen webhook
                bind 127.0.0.1:{port}
                balance roundrobin
                option httpchk GET {probe["httpGet"]["path"]}
                default-server check check-ssl verify none inter {probe["periodSeconds"]}s fall {misses} rise 1
                server leaving 127.0.0.1:{leaving.port}
                server staying 127.0.0.1:{staying.port}
            \n"""
        )
        haproxy = Process([program("haproxy"), "-db", "-f", tmp_path / "haproxy.cfg"], log=tmp_path / "haproxy.log")
        stack.callback(haproxy.kill)
        stack.enter_context(unharmed(controlplane))
        where = f"https://127.0.0.1:{port}"
        stack.enter_context(registered(controlplane, leaving, "--url", where, called=False))
        load = stack.enter_context(Load(controlplane, namespace))
        wait_for(lambda: min(leaving.reviews, staying.reviews) > 20, 20, "both replicas are called", need=[haproxy])
        load.failures.clear()  # of the time before the registration was in force
        begun = time.monotonic()
        assert leaving.terminate(deployment["terminationGracePeriodSeconds"]) == 0
        assert time.monotonic() - begun > probe["periodSeconds"] * misses
        load.go_on(1)
        assert load.failures == []


def test_no_call_fails_on_a_connection_that_has_been_idle(controlplane: ControlPlane, idling: Idling) -> None:
    """Last in its module: most of the time has passed by now."""
    idling.finish()
    assert idling.results == {age: [True, True] for age in AGES}
    assert {age: controlplane.failed_calls(f"{idling.name(age)}.lab.test") for age in AGES} == dict.fromkeys(AGES, 0)
    # Whoever closes them, it is not the webhook: that could only be found out by failing.
    assert idling.answers_raw()
    # That the ages are what they are for: connections were kept, and later on dropped.
    assert {age for age in AGES if idling.dialled[age]} >= {age for age in AGES if age >= DROPPED}
    assert {age for age in AGES if not idling.dialled[age]} >= {age for age in AGES if age <= KEPT}
