"""A helm release in a namespace that opted in: API, workers and beat come out injected, and nothing else differs."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from lab.controlplane import CHART
from lab.pods import INJECT, api_pod, create, essence, injected, registered, unharmed, without_injection
from lab.process import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.controlplane import ControlPlane
    from lab.pods import Pod
    from lab.webhook import Webhook

pytestmark = pytest.mark.lab

RELEASE = "plane-app"
API = {f"{RELEASE}-api", f"{RELEASE}-external-api"}
CELERY = {f"{RELEASE}-{name}" for name in ("worker", "worker-importers", "beat-worker")}
OURS = API | CELERY
OTHERS = {f"{RELEASE}-{name}" for name in ("pi-api", "web", "api-migrate")}
VARIABLES = [
    {"name": "GUNICORN_MAX_REQUESTS", "value": "0"},
    {"name": "GUNICORN_MAX_REQUESTS_JITTER", "value": "0"},
    {"name": "CELERY_TASK_PUBLISH_RETRY", "value": "True"},
    {"name": "CELERY_BROKER_POOL_LIMIT", "value": "10"},
]
WANTED = {**dict.fromkeys(API, VARIABLES), **dict.fromkeys(CELERY, VARIABLES[2:])}


@pytest.fixture(scope="module", autouse=True)
def _registered(controlplane: ControlPlane, webhook: Webhook) -> Iterator[None]:
    with registered(controlplane, webhook), unharmed(controlplane):
        yield


class Release:
    """A release of the lab's chart in a namespace of its own."""

    def __init__(self, plane: ControlPlane, namespace: str, labels: dict[str, str]) -> None:
        self.plane = plane
        self.namespace = plane.namespace(namespace, labels)

    def upgrade(self, **values: str) -> dict[str, Pod]:
        """Install or upgrade it; return its pods once the rollouts are over."""
        words = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
        self.plane.helm("upgrade", "--install", RELEASE, CHART, "--namespace", self.namespace, *words)
        return self.pods()

    def kubectl(self, *words: str) -> str:
        return self.plane.kubectl("-n", self.namespace, *words)

    def restart(self) -> dict[str, Pod]:
        """Restart the Deployments as the README has it; return the new pods."""
        time.sleep(1)  # kubectl stamps a restart to the second, and refuses another one with the same stamp
        self.kubectl("rollout", "restart", "deployment")
        return self.pods()

    def deployments(self) -> dict[str, Any]:
        listed = json.loads(self.kubectl("get", "deployments", "-o", "json"))["items"]
        return {each["metadata"]["name"]: each for each in listed}

    def pods(self) -> dict[str, Pod]:
        """Return the pods by the name of their container when no rollout goes on any more."""

        def settled() -> bool:
            self.plane.settle(self.namespace)
            return (
                all(
                    each["status"].get("observedGeneration") == each["metadata"]["generation"]
                    and each["status"].get("updatedReplicas")
                    == each["status"].get("replicas")
                    == each["spec"]["replicas"]
                    and each["status"].get("availableReplicas") == each["spec"]["replicas"]
                    for each in self.deployments().values()
                )
                and self.complete()
            )

        wait_for(settled, 60, f"the rollouts in {self.namespace} are over")
        return self.found()

    def complete(self) -> bool:
        """Tell whether each workload has its pod, and a Job's is done with: then its controller lets go of it."""
        pods = self.found()
        return pods.keys() == OURS | OTHERS and not any("finalizers" in pod["metadata"] for pod in pods.values())

    def found(self) -> dict[str, Pod]:
        pods = self.plane.pods(self.namespace)
        jobs = [pod for pod in pods if pod["metadata"]["ownerReferences"][0]["kind"] == "Job"]
        newest = max(jobs, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)
        return {pod["spec"]["containers"][0]["name"]: pod for pod in pods if pod not in jobs or pod == newest}


@contextmanager
def release(plane: ControlPlane, namespace: str, labels: dict[str, str]) -> Iterator[Release]:
    """A release that is gone, its pods too, when the block ends."""
    made = Release(plane, namespace, labels)
    yield made
    plane.helm("uninstall", RELEASE, "--namespace", namespace)
    wait_for(lambda: not plane.pods(namespace), 60, f"the pods of {namespace} are gone")


def names(pods: dict[str, Pod]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods.values()}


def touched(pods: dict[str, Pod]) -> set[str]:
    return {name for name, pod in pods.items() if injected(pod)}


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("community", {}),
        ("community", {"restricted": "true", "readOnlyRoot": "true", "appVars": "true", "timestamp": "false"}),
        ("enterprise", {"extraEnv[0].name": "EXTRA", "extraEnv[0].value": "x", "externalSecret": "amqp"}),
        ("s3ca", {"memoryLimit": ""}),
    ],
)
def test_each_pod_that_publishes_is_injected_and_nothing_else_is_changed(
    controlplane: ControlPlane, shape: str, values: dict[str, str]
) -> None:
    """The same release is installed twice in one namespace: before it carries the label, and with it."""
    namespace = f"install-{shape}-{len(values)}"
    with release(controlplane, namespace, {}) as plain:
        before = plain.upgrade(shape=shape, **values)
        made_before = plain.deployments()
    with release(controlplane, namespace, INJECT) as labelled:
        after = labelled.upgrade(shape=shape, **values)
        made_after = labelled.deployments()
        assert "plane-webhook" not in controlplane.helm("get", "manifest", RELEASE, "--namespace", namespace)
    assert before.keys() == after.keys() == OURS | OTHERS
    assert touched(after) == OURS
    for name in OTHERS:
        assert essence(after[name]) == essence(before[name])
    for name, wanted in WANTED.items():
        assert essence(without_injection(after[name])) == essence(before[name])
        assert [each for each in after[name]["spec"]["containers"][0]["env"] if each in VARIABLES] == wanted
    for name, deployment in made_before.items():
        assert made_after[name]["spec"] == deployment["spec"]


def test_an_api_without_a_command_stays_as_it_is_and_that_is_said(controlplane: ControlPlane, webhook: Webhook) -> None:
    with release(controlplane, "install-bare", {}) as plain:
        before = plain.upgrade(shape="bare")
    with release(controlplane, "install-bare", INJECT) as labelled:
        after = labelled.upgrade(shape="bare")
    for name in API:
        assert "command" not in after[name]["spec"]["containers"][0]
        assert essence(after[name]) == essence(before[name])
    told = {(line["workload"], line["reason"]) for line in webhook.log_lines(namespace="install-bare")}
    assert told >= {("api", "not-effective"), ("worker", "injected"), ("beat", "injected")}


def test_an_upgrade_an_opt_out_and_a_label_that_is_taken_away(controlplane: ControlPlane, webhook: Webhook) -> None:
    with release(controlplane, "upgrade", INJECT) as running:
        first = running.upgrade()
        column = "custom-columns=INJECTED:.metadata.annotations.plane-webhook/injected"  # as the README has it
        shown = running.kubectl("get", "pods", "--no-headers", "-o", column).split()
        assert sorted(shown) == ["<none>"] * 3 + ["api"] * 2 + ["beat"] + ["worker"] * 2
        second = running.upgrade(tag="v2.0.0", shape="enterprise")
        assert not names(first) & names(second)
        assert touched(second) == OURS
        image = second[f"{RELEASE}-api"]["spec"]["containers"][0]["image"]
        assert image.endswith(":v2.0.0")
        assert "plane-webhook" not in controlplane.helm("get", "manifest", RELEASE, "--namespace", "upgrade")

        # The same again: nothing for anybody to do.
        made, sets = running.deployments(), running.kubectl("get", "replicasets", "-o", "name")
        assert names(running.upgrade(tag="v2.0.0", shape="enterprise")) == names(second)
        again = running.deployments()
        assert {name: each["metadata"]["generation"] for name, each in again.items()} == {
            name: each["metadata"]["generation"] for name, each in made.items()
        }
        assert running.kubectl("get", "replicasets", "-o", "name") == sets

        # One workload opts out: its pods don't even cost a call.
        patch = {"spec": {"template": {"metadata": {"labels": {"plane-webhook/inject": "disabled"}}}}}
        running.kubectl("patch", "deployment", f"{RELEASE}-external-api-wl", "--patch", json.dumps(patch))
        calls = webhook.reviews
        assert touched(running.pods()) == OURS - {f"{RELEASE}-external-api"}
        assert webhook.reviews == calls

        # The namespace does: pods that run stay as they are, new ones are as their chart made them.
        running.kubectl("label", "namespace", "upgrade", "plane-webhook/inject-")
        assert touched(running.pods()) == OURS - {f"{RELEASE}-external-api"}
        plain = running.restart()
        assert not touched(plain)
        assert plain[f"{RELEASE}-api"]["spec"]["containers"][0]["command"][0] == "/bin/bash"
        assert webhook.reviews == calls

        # And opts in again, by the README's own two commands.
        running.kubectl("label", "namespace", "upgrade", "plane-webhook/inject=enabled")
        assert touched(running.restart()) == OURS - {f"{RELEASE}-external-api"}


def test_a_namespace_that_enforces_restricted_takes_injected_pods_and_refuses_for_its_own_reasons_only(
    controlplane: ControlPlane,
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    with release(controlplane, "restricted", {**INJECT, **labels}) as running:
        pods = running.upgrade(restricted="true", readOnlyRoot="true")
        assert touched(pods) == OURS
    careless = api_pod(resources={"limits": {"memory": "1Gi"}})
    refused = create(controlplane, "restricted", careless)
    plain = create(controlplane, controlplane.namespace("restricted-plain", labels), careless)
    assert refused.status_code == plain.status_code == 403
    assert refused.json()["message"] == plain.json()["message"]
    assert refused.headers.get_list("warning") == plain.headers.get_list("warning")


def test_a_server_side_dry_run_shows_the_injection_and_makes_nothing(
    controlplane: ControlPlane, webhook: Webhook
) -> None:
    """An API server refuses a dry run where a webhook is not known to be free of side effects."""
    namespace = controlplane.namespace("dry-run", INJECT)
    pod = {"apiVersion": "v1", "kind": "Pod", **api_pod("rehearsed")}
    shown = controlplane.kubectl(
        "-n", namespace, "create", "--dry-run=server", "-f", "-", "-o", "json", input=json.dumps(pod)
    )
    assert injected(json.loads(shown))
    assert controlplane.pods(namespace) == []
    (line,) = wait_for(lambda: webhook.log_lines(namespace=namespace), 5, "a line in the log")
    assert (line["dry_run"], line["name"], line["reason"]) == (True, "rehearsed", "injected")


def test_warnings_reach_whoever_makes_the_pod(controlplane: ControlPlane) -> None:
    namespace = controlplane.namespace("warned", INJECT)
    limited = api_pod("limited", resources={"limits": {"memory": "1Gi"}})
    assert "warning" not in create(controlplane, namespace, limited).headers
    warning = create(controlplane, namespace, api_pod("unlimited")).headers["warning"]
    assert "rotation-off-no-memory-limit" in warning
