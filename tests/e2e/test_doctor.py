"""`plane-webhook doctor` on a real cluster that is broken in each way that it finds: found, fixed as printed, gone."""

from __future__ import annotations

import ast
import base64
import json
import os
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

import certs
from lab.controlplane.programs import binary
from lab.operating import OWN, SECRET, Operate, deployment, secret
from lab.pods import INJECT, api_pod, create, injected
from lab.process import wait_for
from lab.webhook import COMMAND, Webhook
from tests.e2e.neighbour import neighbour, registration
from tests.pages import blocks
from webhook import __version__
from webhook.cluster.api import Api
from webhook.cluster.doctor import NOTES, PROBLEMS, as_json, examine
from webhook.cluster.registration import condition
from webhook.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.controlplane import ControlPlane
    from webhook.cluster.doctor import Finding

pytestmark = pytest.mark.lab

REPOSITORY = Path(__file__).parents[2]
PLANE = "doctored"
REGISTRATION = "mutatingwebhookconfiguration"
OPERATES = f"app.kubernetes.io/name={OWN}-operate"


def doctor(plane: ControlPlane, *words: str) -> tuple[int, str, str]:
    argv = [COMMAND, "doctor", "--kubeconfig", plane.kubeconfig, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def findings(plane: ControlPlane) -> list[dict[str, str]]:
    """What the command finds, without starting it: its import takes longer than its work."""
    found: list[dict[str, str]] = json.loads(as_json(examine(Api.connect(plane.kubeconfig), OWN, PLANE)))["findings"]
    return found


def run(plane: ControlPlane, command: str, folder: Path, *, where: Path = REPOSITORY) -> None:
    """As a user's shell would, in a clone of the repository."""
    for name, program in {"kubectl": binary("kubectl"), "helm": binary("helm"), "plane-webhook": COMMAND}.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(program)
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "KUBECONFIG": str(plane.kubeconfig)}
    done = subprocess.run(
        ["bash", "-c", command], env=env, cwd=where, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"


def well(plane: ControlPlane) -> bool:
    """Whether nothing is wrong, with a kubelet's part played for the Deployment of `operate`, which runs by itself."""
    plane.settle(OWN, OPERATES)
    return not findings(plane)


def wait(plane: ControlPlane, app: str, reason: str, message: str) -> str:
    """Play a kubelet whose container waits; the pod's name."""
    name: str = wait_for(lambda: plane.pods(OWN, f"app.kubernetes.io/name={app}"), 20, "a pod")[0]["metadata"]["name"]
    state = {"name": "x", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    waiting = {"waiting": {"reason": reason, "message": message}}
    merge = {"content-type": "application/merge-patch+json"}
    status = {"status": {"containerStatuses": [{**state, "state": waiting}]}}
    plane.api.patch(f"/api/v1/namespaces/{OWN}/pods/{name}/status", json=status, headers=merge).raise_for_status()
    return name


def test_an_operate_that_can_not_start_is_named_first_and_nothing_is_copied_or_deleted(
    installed: ControlPlane, tmp_path: Path
) -> None:
    """As an install with an image that can't be pulled leaves it: no certificate, no caBundle, nobody serves."""
    name = wait(installed, f"{OWN}-operate", "ImagePullBackOff", "no such image")
    found = examine(Api.connect(installed.kubeconfig), OWN, OWN).findings
    by_it = "registration-differs", "not-trusted", "certificate"
    assert [each.code for each in found[:5]] == ["operate-not-ready", *by_it[:2], "no-endpoint", by_it[2]]
    assert found[0].wrong == f"no replica is ready: {name}: ImagePullBackOff no such image"
    assert f"There is no secret/{SECRET}" in found[0].causes
    assert {each.fix for each in found if each.code in by_it} == {found[0].fix}, "and nothing that would fail"
    described = installed.kubectl(*shlex.split(found[0].fix, comments=True)[1:])
    assert f"Name:             {name}" in described
    run(installed, found[0].fix, tmp_path)

    def codes() -> dict[str, Finding]:
        installed.settle(OWN, OPERATES)
        return {each.code: each for each in examine(Api.connect(installed.kubeconfig), OWN, OWN).findings}

    wait_for(lambda: "operate-not-ready" not in codes(), 20, "it runs, for all that the cluster knows")
    for code in by_it:
        assert f"logs --selector {OPERATES} " in codes()[code].fix, "what keeps it from making one"


@pytest.fixture(scope="module")
def healthy(controlplane: ControlPlane, operate: Operate, serving: Webhook) -> Iterator[ControlPlane]:
    """A cluster with nothing wrong, and nobody who would mend it."""
    assert serving.ready()
    controlplane.namespace(PLANE, INJECT)
    wait_for(lambda: well(controlplane), 30, "nothing is wrong")
    assert operate.terminate() == 0
    yield controlplane
    controlplane.kubectl("delete", "namespace", PLANE, "--wait=false")


def patch(plane: ControlPlane, path: str, value: Any) -> None:
    operation = [{"op": "add" if value is not None else "remove", "path": path, "value": value}]
    plane.kubectl("patch", REGISTRATION, OWN, "--type=json", "-p", json.dumps(operation))


def unregister(plane: ControlPlane) -> None:
    plane.kubectl("delete", REGISTRATION, OWN)


def expire(plane: ControlPlane) -> None:
    merge = {"content-type": "application/merge-patch+json"}
    path = f"/api/v1/namespaces/{OWN}/secrets/{SECRET}"
    plane.api.patch(path, json={"stringData": {"tls.crt": "cut"}}, headers=merge).raise_for_status()


def mistrust(plane: ControlPlane) -> None:
    """Another authority than the certificate's: the API server forgets the connections that it has."""
    found = json.loads(plane.kubectl("get", REGISTRATION, OWN, "-o", "json"))
    assert base64.b64decode(found["webhooks"][0]["clientConfig"]["caBundle"]) == secret(plane)["ca.crt"]
    patch(plane, "/webhooks/0/clientConfig/caBundle", base64.b64encode(trustme.CA().cert_pem.bytes()).decode())


BREAK: dict[str, Callable[[ControlPlane], object]] = {
    "not-opted-in": lambda plane: plane.namespace(PLANE, {"plane-webhook/inject": "true"}),
    "not-trusted": mistrust,
    "registration-differs": lambda plane: patch(plane, "/webhooks/0/matchConditions/0/expression", "false"),
    "registration-differs elsewhere": lambda plane: patch(plane, "/webhooks/0/clientConfig/service/namespace", "other"),
    "webhook-scaled-to-zero": lambda plane: plane.kubectl(
        "-n", OWN, "scale", "deployment/plane-webhook", "--replicas=0"
    ),
    "operate-scaled-to-zero": lambda plane: plane.kubectl(
        "-n", OWN, "scale", "deployment/plane-webhook-operate", "--replicas=0"
    ),
}


@pytest.mark.parametrize("how", BREAK)
def test_what_is_broken_is_found_and_the_printed_fix_mends_it(healthy: ControlPlane, tmp_path: Path, how: str) -> None:
    code, _, more = how.partition(" ")
    BREAK[how](healthy)
    wait_for(lambda: code in {each["code"] for each in findings(healthy)}, 20, "it is found")
    found = {each["code"]: each for each in findings(healthy)}
    assert found.keys() <= {code, "not-called"}
    assert ("leads to the Service" in found[code]["wrong"]) == (more == "elsewhere")
    run(healthy, found[code]["fix"], tmp_path)
    wait_for(lambda: well(healthy), 60, "nothing is wrong any more")


def test_a_label_with_another_value_is_found_though_nobody_names_the_namespace(
    healthy: ControlPlane, tmp_path: Path
) -> None:
    def unlike() -> list[Finding]:
        found = examine(Api.connect(healthy.kubeconfig), OWN, None).findings
        return [each for each in found if each.where in ("namespace/meant", "namespace/kept-out")]

    healthy.namespace("kept-out", {"plane-webhook/inject": "disabled"})
    healthy.namespace("meant", {"plane-webhook/inject": "true"})
    (found,) = unlike()
    assert (found.code, found.where) == ("not-opted-in", "namespace/meant")
    assert "but plane-webhook/inject=true" in found.wrong
    run(healthy, found.fix, tmp_path)
    wait_for(lambda: not unlike(), 20, "it is opted in")
    healthy.kubectl("delete", "namespace", "kept-out", "meant", "--wait=false")


def test_pods_that_pod_security_refuses_are_found_and_let_in(healthy: ControlPlane, tmp_path: Path) -> None:
    healthy.namespace(PLANE, {**INJECT, "pod-security.kubernetes.io/enforce": "restricted"})
    healthy.kubectl("-n", PLANE, "create", "deployment", "bare", "--image=makeplane/plane-backend:v1",
                    "--", "./bin/docker-entrypoint-worker.sh")  # fmt: skip
    (found,) = wait_for(lambda: findings(healthy), 20, "it is found")
    assert (found["code"], found["where"]) == ("pods-refused", f"{PLANE}/deployment/bare")
    assert "violates PodSecurity" in found["wrong"]
    run(healthy, found["fix"], tmp_path)
    wait_for(lambda: healthy.pods(PLANE) and settled(healthy) and not findings(healthy), 30, "they are made")
    healthy.kubectl("-n", PLANE, "delete", "deployment", "bare")
    wait_for(lambda: not healthy.pods(PLANE), 20, "its pods are gone")
    healthy.namespace(PLANE, INJECT)


def test_a_policy_that_takes_a_pod_only_without_the_injection_is_found_and_the_fix_lets_it_in(
    healthy: ControlPlane, tmp_path: Path
) -> None:
    named = {"name": "no-memory", "labels": {"lab": "policy"}}
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    allowed = "!object.spec.?volumes.orValue([]).exists(v, v.?emptyDir.?medium.orValue('') == 'Memory')"
    # As many word it: that must not be taken for a right that doctor's user lacks.
    refusal = {"expression": allowed, "reason": "Forbidden", "message": "a volume in memory cannot be used here"}
    policy = {"matchConstraints": {"resourceRules": [pods]}, "validations": [refusal]}
    there = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": PLANE}}}
    binding = {"policyName": "no-memory", "validationActions": ["Deny"], "matchResources": there}
    kind = "ValidatingAdmissionPolicy"
    version = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": named}
    healthy.apply({**version, "kind": kind, "spec": policy}, {**version, "kind": f"{kind}Binding", "spec": binding})
    wait_for(lambda: not create(healthy, PLANE, api_pod(), dry_run=True).is_success, 15, "it is in force")
    (found,) = findings(healthy)
    assert (found["code"], found["where"]) == ("pods-refused", f"namespace/{PLANE}")
    assert "is refused, and taken without the injection" in found["wrong"]
    assert "'no-memory'" in found["wrong"]
    healthy.apply(deployment(PLANE, 1))
    both = [f"{PLANE}/deployment/plane-app-api-wl", f"namespace/{PLANE}"]
    wait_for(lambda: [each["where"] for each in findings(healthy)] == both, 20, "of Plane's own too")
    run(healthy, found["fix"], tmp_path)
    healthy.kubectl("-n", PLANE, "delete", "replicasets", "--all")  # it tries again by itself, later each time
    wait_for(lambda: healthy.pods(PLANE), 20, "it is made")
    healthy.kubectl("-n", PLANE, "delete", "deployment", "plane-app-api-wl")
    healthy.kubectl("delete", f"{kind},{kind}Binding", "--selector", "lab=policy")
    wait_for(lambda: not healthy.pods(PLANE), 20, "its pods are gone")
    healthy.namespace(PLANE, INJECT)
    wait_for(lambda: not findings(healthy), 20, "nothing is wrong any more")


def test_where_ours_is_refused_a_pod_of_planes_own_is_tried(healthy: ControlPlane, tmp_path: Path) -> None:
    least = {"type": "Container", "min": {"cpu": "10m"}}
    limits = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "least", "namespace": PLANE}}
    healthy.apply({**limits, "spec": {"limits": [least]}})
    (found,) = wait_for(lambda: findings(healthy), 15, "it is in force")
    assert (found["code"], found["where"]) == ("pods-refused", f"namespace/{PLANE}")
    assert "also without the injection" in found["wrong"]
    assert "minimum cpu usage per Container is 10m" in found["wrong"]
    run(healthy, found["fix"], tmp_path)
    healthy.apply(deployment(PLANE, 1))
    wait_for(lambda: healthy.pods(PLANE) and not findings(healthy), 20, "Plane's own is tried")
    patch(healthy, "/webhooks/0/matchConditions/0/expression", "false")
    wait_for(lambda: "not-called" in {each["code"] for each in findings(healthy)}, 15, "and shows what is wrong")
    patch(healthy, "/webhooks/0/matchConditions/0/expression", condition(Settings()))
    healthy.kubectl("-n", PLANE, "delete", "deployment/plane-app-api-wl", "limitrange/least")
    wait_for(lambda: not healthy.pods(PLANE) and not findings(healthy), 20, "it is as before")


def test_an_authority_that_is_not_there_is_found_too(healthy: ControlPlane, tmp_path: Path) -> None:
    patch(healthy, "/webhooks/0/clientConfig/caBundle", None)
    found = {each["code"]: each for each in findings(healthy)}
    assert found["not-trusted"]["wrong"] == "it has no caBundle"
    run(healthy, found["not-trusted"]["fix"], tmp_path)
    wait_for(lambda: not findings(healthy), 30, "nothing is wrong any more")


def test_replicas_that_are_not_ready_are_found_with_what_they_wait_for(healthy: ControlPlane, tmp_path: Path) -> None:
    """The kubelet's part is played here; the command says more, and changes nothing."""

    def ready(*, yes: bool) -> None:
        patch = [{"op": "replace", "path": "/endpoints/0/conditions/ready", "value": yes}]
        healthy.kubectl("-n", OWN, "patch", "endpointslice", OWN, "--type=json", "-p", json.dumps(patch))

    name = wait(healthy, OWN, "ImagePullBackOff", "no such\x1b[31m image")
    ready(yes=False)
    (found,) = findings(healthy)
    assert (found["code"], found["wrong"]) == (
        "no-endpoint",
        f"no replica is ready: {name}: ImagePullBackOff no such [31m image",
    )
    run(healthy, found["fix"], tmp_path)
    ready(yes=True)
    assert not findings(healthy)
    healthy.kubectl("-n", OWN, "delete", "pod", name, "--grace-period=0", "--force")


@pytest.fixture
def worker(healthy: ControlPlane) -> Iterator[str]:
    """A worker's Deployment, whose pod is made and injected."""
    healthy.kubectl("-n", PLANE, "create", "deployment", "plane-app-worker-wl", "--image=makeplane/plane-backend:v1",
                    "--", "./bin/docker-entrypoint-worker.sh")  # fmt: skip
    wait_for(lambda: healthy.pods(PLANE), 20, "a pod")
    yield "deployment/plane-app-worker-wl"
    healthy.kubectl("-n", PLANE, "delete", "deployment", "plane-app-worker-wl")
    wait_for(lambda: not healthy.pods(PLANE), 20, "its pods are gone")


def configure(plane: ControlPlane, text: str | None) -> None:
    """Change the ConfigMap that the Deployment mounts; None takes the file out of it."""
    deployment = json.loads(plane.kubectl("-n", OWN, "get", "deployment", OWN, "-o", "json"))
    (name,) = (each["configMap"]["name"] for each in deployment["spec"]["template"]["spec"]["volumes"]
               if each["name"] == "configuration")  # fmt: skip
    change = {"data": {"configuration.yaml": text}}
    plane.kubectl("-n", OWN, "patch", "configmap", name, "-p", json.dumps(change))


def test_settings_that_are_in_effect_nowhere_and_then_not_in_old_pods(
    healthy: ControlPlane, serving: Webhook, worker: str, tmp_path: Path
) -> None:
    """The configuration changes; the replicas still serve the old one; then they are new, and the pods still old."""
    (row,) = examine(Api.connect(healthy.kubeconfig), OWN, PLANE).pods
    assert (row.state, row.workload, row.owner, row.version) == ("injected", "worker", worker, __version__)
    assert row.settings == Settings().default.digest
    changed = "env: {celery_broker_pool_limit: 3}"
    copied = deployment(PLANE, 1)
    copied["metadata"]["name"] = "copied"
    (copied["spec"]["template"]["spec"],) = (each["spec"] for each in healthy.pods(PLANE))
    try:
        configure(healthy, changed)
        found = {each["code"]: each for each in findings(healthy)}
        assert found.keys() == {"old-settings-served", "other-settings"}
        run(healthy, found["old-settings-served"]["fix"], tmp_path)
        serving.configuration = tmp_path / "configuration.yaml"  # in a kubelet's place
        serving.configuration.write_text(changed)
        serving.process.kill()
        serving.start()
        wait_for(lambda: [each["code"] for each in findings(healthy)] == ["other-settings"], 20, "one is mended")
        (found,) = findings(healthy)
        run(healthy, found["fix"], tmp_path)
        wait_for(lambda: settled(healthy) and not findings(healthy), 30, "so is the other")
        healthy.apply(copied)
        (found,) = wait_for(lambda: findings(healthy), 20, "one that no restart mends")
        name = healthy.pods(PLANE, "a=b")[0]["metadata"]["name"]
        run(healthy, found["fix"], tmp_path)
        wait_for(lambda: settled(healthy) and name not in str(healthy.pods(PLANE)), 20, "it is made anew")
        assert [each["where"] for each in findings(healthy)] == [f"{PLANE}/deployment/copied"]
        assert "copied from an injected pod" in found["fix"]
    finally:
        healthy.kubectl("-n", PLANE, "delete", "deployment", "copied", "--ignore-not-found")
        wait_for(lambda: len(healthy.pods(PLANE)) == 1, 20, "its pod is gone")
        configure(healthy, (REPOSITORY / "manifests/base/configuration.yaml").read_text())
        serving.configuration = None
        serving.process.kill()
        serving.start()
        wait_for(lambda: [each["code"] for each in findings(healthy)] == ["other-settings"], 20, "it serves as before")


def settled(plane: ControlPlane) -> bool:
    plane.settle(PLANE)
    return True


def test_a_port_that_nobody_reaches_is_found(healthy: ControlPlane, serving: Webhook) -> None:
    """By the API server's own word where it refuses the pod, and by nothing but the missing injection under Ignore."""
    try:
        patch(healthy, "/webhooks/0/clientConfig/service/port", 1)
        (found,) = wait_for(lambda: findings(healthy), 20, "it is found")
        assert (found["code"], found["where"]) == ("not-called", f"namespace/{PLANE}")
        assert "8443" in found["fix"]
        assert found["causes"] == "tasks of pods that are created now can be lost"
        patch(healthy, "/webhooks/0/failurePolicy", "Fail")
        (found,) = wait_for(lambda: [e for e in findings(healthy) if "connection refused" in e["wrong"]], 20, "and why")
        assert found["causes"] == "pods of Plane's are refused now"
    finally:
        patch(healthy, "/webhooks/0/failurePolicy", "Ignore")
        patch(healthy, "/webhooks/0/clientConfig/service/port", serving.port)
    wait_for(lambda: not findings(healthy), 30, "nothing is wrong any more")


def test_a_webhook_that_nobody_calls_is_found_where_the_api_is_not_asked_for(healthy: ControlPlane) -> None:
    """What is tried is a pod of a workload that is."""
    was = (REPOSITORY / "manifests/base/configuration.yaml").read_text()
    expression = json.loads(healthy.kubectl("get", REGISTRATION, OWN, "-o", "json"))["webhooks"][0]["matchConditions"]
    try:
        configure(healthy, "workloads: [consumer]")
        assert not findings(healthy), "the consumer's pod comes out injected"
        patch(healthy, "/webhooks/0/matchConditions/0/expression", "false")
        wait_for(lambda: "not-called" in {each["code"] for each in findings(healthy)}, 20, "it is found")
    finally:
        configure(healthy, was)
        patch(healthy, "/webhooks/0/matchConditions", expression)
    wait_for(lambda: not findings(healthy), 30, "nothing is wrong any more")


def test_a_webhook_that_undoes_us_is_named_and_kept_off(healthy: ControlPlane, tmp_path: Path) -> None:
    def undo(_: Any) -> list[dict[str, Any]]:
        return [{"op": "add", "path": "/spec/containers/0/command", "value": ["./bin/docker-entrypoint-api.sh"]}]

    with neighbour(undo, tmp_path) as client_config:
        theirs = registration("zealous", client_config, reinvocationPolicy="IfNeeded", namespaceSelector={})
        healthy.apply(theirs)
        try:
            found = wait_for(
                lambda: {each["code"]: each for each in findings(healthy)}.get("undone"), 20, "it is found"
            )
            assert "zealous" in found["wrong"]
            run(healthy, found["fix"], tmp_path)
            wait_for(lambda: not findings(healthy), 30, "nothing is wrong any more")
        finally:
            healthy.kubectl("delete", REGISTRATION, "zealous")


def test_what_the_chart_sets_is_a_note_with_who_wins(healthy: ControlPlane, tmp_path: Path) -> None:
    data = {"CELERY_BROKER_POOL_LIMIT": "99\x1b[2J", "GUNICORN_MAX_REQUESTS": "1000", "OTHER": "secret"}
    healthy.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "vars", "namespace": PLANE}, "data": data}
    )
    own = [{"name": "GUNICORN_MAX_REQUESTS", "value": "5"}]
    pod = api_pod("chosen", env=own, envFrom=[{"configMapRef": {"name": "vars"}}])
    create(healthy, PLANE, pod).raise_for_status()
    (found,) = findings(healthy)
    assert doctor(healthy, "-n", PLANE)[0] == 0
    assert (found["kind"], found["code"], found["where"]) == ("note", "chart-sets", f"{PLANE}/pod/chosen")
    assert "GUNICORN_MAX_REQUESTS=1000 (the container's own env wins)" in found["wrong"]
    assert "CELERY_BROKER_POOL_LIMIT=99 [2J (10 of the webhook's configuration wins)" in found["wrong"]
    assert "secret" not in found["wrong"]
    run(healthy, found["fix"], tmp_path)
    healthy.kubectl("-n", PLANE, "delete", "pod", "chosen", "--grace-period=0", "--force")


def test_a_condition_of_somebody_else_is_a_note_and_no_fix_takes_it_away(healthy: ControlPlane, tmp_path: Path) -> None:
    patch(healthy, "/webhooks/0/matchConditions/-", {"name": "theirs", "expression": "true"})
    (found,) = findings(healthy)
    assert (found["kind"], found["code"]) == ("note", "condition-added")
    assert "theirs: true" in found["wrong"]
    patch(healthy, "/webhooks/0/matchConditions/0/expression", "false")
    differs = {each["code"]: each for each in findings(healthy)}["registration-differs"]
    run(healthy, differs["fix"], tmp_path)
    wait_for(lambda: [each["code"] for each in findings(healthy)] == ["condition-added"], 20, "ours is as it was")
    (found,) = findings(healthy)
    run(healthy, found["fix"], tmp_path)
    wait_for(lambda: not findings(healthy), 20, "nothing is left to say")


@pytest.mark.parametrize("name", [OWN, "kube-system"])
def test_a_namespace_that_the_registration_leaves_out_is_found(
    healthy: ControlPlane, tmp_path: Path, name: str
) -> None:
    """And nobody is told to label it."""
    for labelled in (False, True):
        if labelled:
            healthy.kubectl("label", "namespace", name, "plane-webhook/inject=enabled")
        (found,) = examine(Api.connect(healthy.kubeconfig), OWN, name).findings
        assert (found.code, found.where) == ("left-out", f"namespace/{name}")
        run(healthy, found.fix, tmp_path)
    everywhere = examine(Api.connect(healthy.kubeconfig), OWN, None).findings
    assert [each.where for each in everywhere if each.kind == "problem"] == [f"namespace/{name}"]
    healthy.kubectl("label", "namespace", name, "plane-webhook/inject-")


def test_a_pod_that_is_opted_out_is_a_note(healthy: ControlPlane, tmp_path: Path) -> None:
    pod = api_pod("out")
    pod["metadata"]["labels"] = {"plane-webhook/inject": "disabled"}
    create(healthy, PLANE, pod).raise_for_status()
    (found,) = findings(healthy)
    assert (found["kind"], found["code"]) == ("note", "opted-out")
    run(healthy, found["fix"], tmp_path)
    healthy.kubectl("-n", PLANE, "delete", "pod", "out", "--grace-period=0", "--force")


def test_each_code_has_a_test_that_sees_it() -> None:
    """But `port-blocked` and `not-in-effect`, which need a kubelet: tests/e2e/node/test_doctor.py has those."""
    texts = Path(__file__).read_text(), (Path(__file__).parent / "node/test_doctor.py").read_text()
    named = {each for text in texts for each in strings(text)}
    assert [code for code in {**PROBLEMS, **NOTES} if code not in named] == []
    assert strings('def test():\n    """Of "undone"."""  # "undone"\n    assert "not-called"') >= {"not-called"}
    assert "undone" not in strings('def test():\n    """Of "undone"."""  # "undone"\n')


def strings(program: str) -> set[object]:
    """What its code has as strings: a comment names no code, and a docstring is a sentence."""
    return {each.value for each in ast.walk(ast.parse(program)) if isinstance(each, ast.Constant)}


def test_pods_older_than_the_label_are_found_and_restarted(healthy: ControlPlane, tmp_path: Path) -> None:
    healthy.kubectl("label", "namespace", PLANE, "plane-webhook/inject-")  # whoever set it
    wait_for(lambda: not injected(create(healthy, PLANE, api_pod(), dry_run=True).json()), 15, "nobody is asked")
    healthy.kubectl("-n", PLANE, "create", "deployment", "plane-app-worker-wl", "--image=makeplane/plane-backend:v1",
                    "--", "./bin/docker-entrypoint-worker.sh")  # fmt: skip
    wait_for(lambda: healthy.pods(PLANE), 20, "a pod")
    healthy.namespace(PLANE, INJECT)
    wait_for(lambda: len(findings(healthy)) == 1, 15, "the API server has seen the label")
    (found,) = findings(healthy)
    assert (found["code"], found["where"]) == ("not-injected", f"{PLANE}/deployment/plane-app-worker-wl")
    code, printed, _ = doctor(healthy, "-n", PLANE)  # other tests' namespaces are in this cluster too
    assert code == 1
    assert found["fix"] in printed
    code, printed, _ = doctor(healthy, "-n", PLANE, "--output", "json")
    assert (code, json.loads(printed)["findings"]) == (1, [found])
    run(healthy, found["fix"], tmp_path)

    def over() -> bool:
        healthy.settle(PLANE)
        # While it is rolled out there may be two pods, or none that says anything.
        return len(healthy.pods(PLANE)) == 1 and not findings(healthy) and doctor(healthy, "-n", PLANE)[0] == 0

    wait_for(over, 60, "nothing is wrong any more")
    code, printed, said = doctor(healthy, "-n", PLANE)
    assert (code, said) == (0, ""), printed
    assert printed.splitlines()[1].split()[1:4] == ["injected", "(worker)", __version__]
    assert printed.endswith("\n\nnothing is wrong\n")
    healthy.kubectl("-n", PLANE, "delete", "deployment", "plane-app-worker-wl")


def test_pods_that_no_restart_makes_anew_are_deleted_one_by_one(healthy: ControlPlane, tmp_path: Path) -> None:
    """As a ReplicaSet's without a Deployment, or another API's: were all deleted at once, nobody would answer."""
    healthy.kubectl("label", "namespace", PLANE, "plane-webhook/inject-")
    wait_for(lambda: not injected(create(healthy, PLANE, api_pod(), dry_run=True).json()), 15, "nobody is asked")
    healthy.apply(deployment(PLANE, 2) | {"kind": "ReplicaSet"})
    wait_for(lambda: len(healthy.pods(PLANE)) == 2, 20, "its pods")
    healthy.namespace(PLANE, INJECT)
    wait_for(lambda: len(findings(healthy)) == 1, 15, "the API server has seen the label")
    for left in (1, 0):
        (found,) = findings(healthy)
        assert (found["code"], found["where"]) == ("not-injected", f"{PLANE}/replicaset/plane-app-api-wl")
        run(healthy, found["fix"], tmp_path)
        wait_for(lambda: len(healthy.pods(PLANE)) == 2, 20, "another one is made")
        assert sum(not injected(each) for each in healthy.pods(PLANE)) == left
    assert not findings(healthy)
    healthy.kubectl("-n", PLANE, "delete", "replicaset", "plane-app-api-wl")
    wait_for(lambda: not healthy.pods(PLANE), 20, "its pods are gone")


def test_the_pod_of_a_job_is_found_and_the_fix_leaves_it_alone(healthy: ControlPlane, tmp_path: Path) -> None:
    healthy.kubectl("label", "namespace", PLANE, "plane-webhook/inject-")
    wait_for(lambda: not injected(create(healthy, PLANE, api_pod(), dry_run=True).json()), 15, "nobody is asked")
    healthy.kubectl("-n", PLANE, "create", "job", "once", "--image=makeplane/plane-backend:v1",
                    "--", "python", "manage.py", "do_it")  # fmt: skip
    (before,) = wait_for(lambda: healthy.pods(PLANE), 20, "a pod")
    healthy.namespace(PLANE, INJECT)
    wait_for(lambda: len(findings(healthy)) == 1, 15, "the API server has seen the label")
    (found,) = findings(healthy)
    assert (found["code"], found["where"]) == ("not-injected", f"{PLANE}/job/once")
    run(healthy, found["fix"], tmp_path)
    (after,) = healthy.pods(PLANE)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    healthy.settle(PLANE)
    assert not findings(healthy), "it has ended"
    healthy.kubectl("-n", PLANE, "delete", "job", "once")


def test_what_can_not_be_covered_is_a_note_and_no_problem(healthy: ControlPlane) -> None:
    pod = api_pod("bare", command=None)
    create(healthy, PLANE, pod).raise_for_status()
    (found,) = findings(healthy)
    assert doctor(healthy, "-n", PLANE)[0] == 0
    assert (found["kind"], found["code"], found["where"]) == ("note", "not-covered", f"{PLANE}/pod/bare")
    assert "give the container its command" in found["causes"]
    healthy.kubectl("-n", PLANE, "delete", "pod", "bare", "--grace-period=0", "--force")


def test_a_secret_that_will_not_do_is_found_and_made_anew(
    healthy: ControlPlane, operate: Operate, tmp_path: Path
) -> None:
    expire(healthy)
    wait_for(lambda: [each["code"] for each in findings(healthy)] == ["certificate"], 20, "it is found")
    (found,) = findings(healthy)
    run(healthy, found["fix"], tmp_path)
    assert not secret(healthy)
    operate.start()  # which the fix counts on
    wait_for(lambda: not findings(healthy), 40, "nothing is wrong any more", need=[operate.process])
    assert operate.terminate() == 0


def test_a_certificate_that_was_not_renewed_in_time_is_found_and_made_anew(
    healthy: ControlPlane, operate: Operate, tmp_path: Path
) -> None:
    """Nobody renews it, for `operate` does not run; it holds for 20 days more."""
    pair = certs.generate([f"{OWN}.{OWN}.svc"], days=20, now=datetime.now(UTC))
    data = {name: base64.b64encode(content).decode() for name, content in pair.items()}
    patch(healthy, "/webhooks/0/clientConfig/caBundle", data["ca.crt"])
    healthy.kubectl("-n", OWN, "patch", "secret", SECRET, "-p", json.dumps({"data": data}))
    (found,) = wait_for(lambda: only(healthy, "certificate"), 30, "that alone is found")
    assert "and was not renewed" in found["wrong"]
    assert found["causes"].startswith("when what is served ends"), "until then all is well"
    run(healthy, found["fix"], tmp_path)
    operate.start()  # which the fix counts on
    wait_for(lambda: not findings(healthy), 60, "nothing is wrong any more", need=[operate.process])
    assert operate.terminate() == 0


def only(plane: ControlPlane, code: str) -> list[dict[str, str]]:
    """The findings where that is the only one."""
    found = findings(plane)
    return found if [each["code"] for each in found] == [code] else []


def test_a_certificate_that_you_made_is_found_in_time_and_replaced_as_the_how_to_says(
    healthy: ControlPlane, operate: Operate, serving: Webhook, tmp_path: Path
) -> None:
    """Without `operate`: what is printed is the first step, the how-to has the others."""
    block, _ = blocks("docs/how-to/certificate-by-hand.md", "With kustomize")
    steps = block.replace("\\\n", "").splitlines()
    (issue,) = (each for each in steps if each.startswith("plane-webhook certs issue"))
    (store,) = (each for each in steps if " create secret " in each)
    (register,) = (each for each in steps if each.startswith("plane-webhook registration"))
    (tmp_path / "manifests").symlink_to(REPOSITORY / "manifests")  # a clone, in which `tls` is nobody else's

    def do(*commands: str) -> None:
        for each in commands:
            run(healthy, each, tmp_path, where=tmp_path)

    gone = ["deployment/plane-webhook-operate", f"secret/{SECRET}", f"{REGISTRATION}/{OWN}"]
    do(*(f"kubectl -n {OWN} delete {each}" for each in gone), f"{issue} --days 20", store, register)
    patch(healthy, "/webhooks/0/clientConfig/service/port", serving.port)
    (found,) = wait_for(lambda: only(healthy, "certificate"), 30, "that alone is found")
    assert "and was not renewed" in found["wrong"]
    assert "docs/how-to/certificate-by-hand.md" in found["fix"]
    to_the_lab = register.replace("| kubectl", f"| sed 's/port: 443/port: {serving.port}/' | kubectl")
    do(found["fix"], to_the_lab, store)
    wait_for(lambda: not findings(healthy), 30, "nothing is wrong any more")

    do(*(f"kubectl -n {OWN} delete {each}" for each in gone[1:]), "kubectl apply --server-side -k manifests/operate")
    healthy.local_service(OWN, OWN)  # the lab's is another one
    patch(healthy, "/webhooks/0/clientConfig/service/port", serving.port)
    operate.start()
    wait_for(lambda: well(healthy), 60, "it is as before", need=[operate.process])
    assert operate.terminate() == 0


def test_where_a_registration_leads_to_nothing_it_says_what_that_causes(healthy: ControlPlane) -> None:
    """Somebody has deleted the namespace, and not uninstalled."""
    patch(healthy, "/webhooks/0/clientConfig/service/namespace", "nowhere")
    code, _, said = doctor(healthy, "--webhook-namespace", "nowhere")
    assert code == 2
    assert said.endswith(f"kubectl delete {REGISTRATION} {OWN}\n")
    patch(healthy, "/webhooks/0/clientConfig/service/namespace", OWN)


def test_it_says_when_it_could_not_look(healthy: ControlPlane, tmp_path: Path) -> None:
    code, printed, said = doctor(healthy, "--webhook-namespace", "elsewhere")
    assert (code, printed) == (2, "")
    assert "there is no Deployment plane-webhook in the namespace elsewhere" in said
    leads = f"The MutatingWebhookConfiguration {OWN} leads to the Service {OWN}/{OWN}\n"
    assert said.endswith(f"(--webhook-namespace), or install it. {leads}")
    gone = tmp_path / "kubeconfig"
    gone.write_text(healthy.kubeconfig.read_text().replace(healthy.url, "https://127.0.0.1:1"))
    code, printed, said = doctor(healthy, "--kubeconfig", str(gone))
    assert (code, printed) == (2, "")
    assert "could not look" in said


def test_nor_does_it_look_by_a_configuration_that_no_replica_could_start_with(healthy: ControlPlane) -> None:
    try:
        for text, wrong in (
            ("workloads: []", "workloads: should name at least one; found []"),
            (None, "it has no conf"),
        ):
            configure(healthy, text)
            code, printed, said = doctor(healthy)
            assert (code, printed) == (2, "")
            assert "configmap/plane-webhook-configuration-" in said
            assert f" in {OWN}: {wrong}" in said
    finally:
        configure(healthy, (REPOSITORY / "manifests/base/configuration.yaml").read_text())


def test_an_api_server_that_nobody_checks_is_said_once(healthy: ControlPlane, tmp_path: Path) -> None:
    config = json.loads(healthy.kubeconfig.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority"]
    config["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    code, printed, said = doctor(healthy, "-n", PLANE, "--kubeconfig", str(tmp_path / "kubeconfig"))
    assert (code, printed) == (0, "nothing is wrong\n")
    assert said == (
        "plane-webhook: the kubeconfig has insecure-skip-tls-verify: whoever answers is taken for the API server\n"
    )


def test_a_deleted_registration_is_found_and_applied_again(healthy: ControlPlane, tmp_path: Path) -> None:
    unregister(healthy)
    found = {each["code"]: each for each in findings(healthy)}
    assert found.keys() == {"not-registered", "not-called"}
    run(healthy, found["not-registered"]["fix"], tmp_path)
    assert "not-registered" not in {each["code"] for each in findings(healthy)}
