"""The lab itself: what the other end-to-end tests take for granted about the control plane and the chart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lab.cache import LabError
from lab.controlplane import CHART, ControlPlane
from lab.process import wait_for
from tests.e2e.neighbour import neighbour, registration

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.lab

RELEASE = "plane-app"
API = f"app.name=lab-upgrade-{RELEASE}-api"
WORKLOADS = {"api", "external-api", "worker", "worker-importers", "beat-worker", "pi-api", "web", "api-migrate"}


def names(pods: list[dict[str, Any]]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


def containers(pods: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {container["name"]: container for pod in pods for container in pod["spec"]["containers"]}


@pytest.mark.parametrize("shape", ["community", "enterprise", "bare", "s3ca"])
def test_the_chart_becomes_pods_of_its_shape(controlplane: ControlPlane, shape: str) -> None:
    namespace = controlplane.namespace(f"lab-{shape}")
    controlplane.helm("install", RELEASE, CHART, "--namespace", namespace, "--set", f"shape={shape}")
    controlplane.wait_for(lambda: len(controlplane.pods(namespace)) == len(WORKLOADS), 30, "a pod of each workload")
    found = containers(controlplane.pods(namespace))
    assert set(found) == {f"{RELEASE}-{name}" for name in WORKLOADS}
    api = found[f"{RELEASE}-api"]
    assert api.get("command") == found[f"{RELEASE}-external-api"].get("command")
    match shape:
        case "community":
            assert api["command"] == ["./bin/docker-entrypoint-api.sh"]
        case "bare":
            assert "command" not in api
            assert "args" not in api
        case _:
            assert api["command"][:2] == ["/bin/bash", "-c"]
            assert api["command"][2].endswith("\nexec ./bin/docker-entrypoint-api-ee.sh\n")
    assert ("s3-custom-ca" in json.dumps(api["volumeMounts"])) is (shape == "s3ca")
    assert {source.popitem()[0] for source in api["envFrom"]} == {"configMapRef", "secretRef"}


def test_an_upgrade_replaces_the_pods_and_the_same_again_does_not(controlplane: ControlPlane) -> None:
    namespace = controlplane.namespace("lab-upgrade")
    upgrade = ("upgrade", "--install", RELEASE, CHART, "--namespace", namespace, "--set", "replicas=2")

    def api_pods(tag: str) -> set[str]:
        """Return the pods once there are just two, of this tag; a rollout goes on when new pods are ready."""
        controlplane.settle(namespace)
        pods = controlplane.pods(namespace, API)
        images = [pod["spec"]["containers"][0]["image"] for pod in pods]
        return names(pods) if images == [f"makeplane/plane-backend:{tag}"] * 2 else set()

    controlplane.helm(*upgrade)
    first = controlplane.wait_for(lambda: api_pods("v1.0.0"), 30, "two API pods")
    controlplane.helm(*upgrade, "--set", "tag=v2.0.0")
    second = controlplane.wait_for(lambda: api_pods("v2.0.0"), 30, "two API pods of the new tag and no other")
    assert not first & second
    controlplane.helm(*upgrade, "--set", "tag=v2.0.0", "--wait", "--timeout", "30s")
    assert api_pods("v2.0.0") == second
    controlplane.helm(*upgrade, "--set", "tag=v2.0.0,timestamp=true")
    controlplane.wait_for(
        lambda: not api_pods("v2.0.0") & second and api_pods("v2.0.0"), 30, "a timestamp replaces the pods as well"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("appVars=true", "GUNICORN_MAX_REQUESTS: '1000'"),
        ("externalSecret=amqp-secret", "name: amqp-secret"),
        ("extraEnv[0].name=GUNICORN_MAX_REQUESTS,extraEnv[0].value=five", "value: five"),
        ("restricted=true,readOnlyRoot=true", "readOnlyRootFilesystem: true"),
        ("memoryLimit=3Gi", "memory: 3Gi"),
        ("timestamp=true", "timestamp: 20"),
    ],
)
def test_each_value_of_the_chart_shows(controlplane: ControlPlane, values: str, expected: str) -> None:
    def rendered(*args: str) -> str:
        documents = yaml.safe_load_all(controlplane.helm("template", RELEASE, CHART, *args))
        return yaml.safe_dump_all(documents, width=1000)

    assert expected not in rendered()
    assert expected in rendered("--set", values)


def test_a_namespace_that_enforces_restricted_refuses_what_is_not(controlplane: ControlPlane) -> None:
    namespace = controlplane.namespace("lab-restricted", {"pod-security.kubernetes.io/enforce": "restricted"})
    install = ("upgrade", "--install", RELEASE, CHART, "--namespace", namespace)
    controlplane.helm(*install)
    refused = controlplane.wait_for(
        lambda: [
            event["message"]
            for event in json.loads(controlplane.kubectl("get", "events", "-n", namespace, "-o", "json"))["items"]
            if event["reason"] == "FailedCreate"
        ],
        30,
        "an event that says why there is no pod",
    )
    assert 'violates PodSecurity "restricted' in refused[0]
    assert controlplane.pods(namespace) == []
    controlplane.helm(*install, "--set", "restricted=true")
    controlplane.wait_for(
        lambda: len(controlplane.pods(namespace)) == len(WORKLOADS), 30, "pods that keep to the restrictions"
    )


def test_a_service_leads_the_api_server_to_this_machine_and_it_counts_failed_calls(
    controlplane: ControlPlane, tmp_path: Path
) -> None:
    webhook = "echo.lab.test"
    namespace = controlplane.namespace("lab-service", {"lab": "echo"})
    name = controlplane.local_service(namespace, "echo")
    label = [{"op": "add", "path": "/metadata/labels", "value": {"seen-by": "echo"}}]
    with neighbour(lambda _: label, tmp_path, name) as direct:
        port = int(direct["url"].rstrip("/").rpartition(":")[2])
        service = {"namespace": namespace, "name": "echo", "port": port}
        echo = registration("echo", {"service": service, "caBundle": direct["caBundle"]})
        controlplane.apply(echo)
        # The API server learns of a registration by a watch: it acts soon, not at once.
        wait_for(lambda: "seen-by" in _dry_run(controlplane, namespace).text, 15, "the webhook is called")
        assert controlplane.counter("apiserver_admission_webhook_request_total", name=webhook, code="200") >= 1
        assert controlplane.failed_calls(webhook) == 0

    assert "seen-by" not in _dry_run(controlplane, namespace).text
    assert controlplane.failed_calls(webhook) == 1
    assert f'failing open {webhook}: failed calling webhook "{webhook}"' in controlplane.apiserver_log.read_text()

    echo["webhooks"][0]["failurePolicy"] = "Fail"
    controlplane.apply(echo)
    wait_for(lambda: _dry_run(controlplane, namespace).is_server_error, 15, "pods are refused")
    before = controlplane.failed_calls(webhook)
    assert f'failed calling webhook \\"{webhook}\\"' in _dry_run(controlplane, namespace).text
    assert controlplane.failed_calls(webhook) == before + 1
    controlplane.kubectl("delete", "mutatingwebhookconfiguration", "echo")


def test_what_goes_wrong_at_the_start_is_in_the_error() -> None:
    broken = ControlPlane(controller_manager=False, apiserver_args=["--no-such-flag"])
    with pytest.raises(LabError, match=r"(?s)kube-apiserver ended with exit code 1:.*unknown flag: --no-such-flag"):
        broken.__enter__()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_process_that_started_it(number: signal.Signals, tmp_path: Path) -> None:
    text = (
        "import time; from lab.controlplane import ControlPlane; from lab.process import exit_on_sigterm\n"
        "exit_on_sigterm()\n"
        "with ControlPlane(controller_manager=False) as plane:\n"
        "    print(*(process.pid for process in plane._processes), flush=True)\n"
        "    time.sleep(60)"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        cwd=CHART.parents[2],
    )
    with started:
        assert started.stdout
        pids = started.stdout.readline().split()
        assert len(pids) == 2
        assert all(Path("/proc", pid).exists() for pid in pids)
        started.send_signal(number)
    wait_for(lambda: not any(Path("/proc", pid).exists() for pid in pids), 5, "the processes are gone")
    assert (list(tmp_path.iterdir()) == []) is (number != signal.SIGKILL)  # which leaves no time to tidy up


def _dry_run(controlplane: ControlPlane, namespace: str) -> httpx.Response:
    """Ask for a pod that is then not made."""
    pod = {"metadata": {"name": "any"}, "spec": {"containers": [{"name": "any", "image": "any"}]}}
    return controlplane.api.post(f"/api/v1/namespaces/{namespace}/pods", params={"dryRun": "All"}, json=pod)
