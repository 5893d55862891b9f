"""`plane-webhook doctor` on a real cluster that is broken in each way that it finds: found, fixed as printed, gone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.controlplane.programs import binary
from lab.process import wait_for
from lab.webhook import COMMAND, Webhook
from tests.e2e.cluster import INJECT, api_pod, create, injected
from tests.e2e.operating import OWN, SECRET, Operate, secret
from webhook.cluster.api import Api
from webhook.cluster.doctor import as_json, examine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.controlplane import ControlPlane

pytestmark = pytest.mark.lab

REPOSITORY = Path(__file__).parents[2]
PLANE = "doctored"
REGISTRATION = "mutatingwebhookconfiguration"


def doctor(plane: ControlPlane, *words: str) -> tuple[int, str, str]:
    argv = [COMMAND, "doctor", "--kubeconfig", plane.kubeconfig, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def findings(plane: ControlPlane) -> list[dict[str, str]]:
    """What the command finds, without starting it: its import takes longer than its work."""
    found: list[dict[str, str]] = json.loads(as_json(examine(Api.connect(plane.kubeconfig), OWN, PLANE)))["findings"]
    return found


def run(plane: ControlPlane, command: str, folder: Path) -> None:
    """As a user's shell would, in a clone of the repository."""
    (folder / "kubectl").unlink(missing_ok=True)
    (folder / "kubectl").symlink_to(binary("kubectl"))
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "KUBECONFIG": str(plane.kubeconfig)}
    done = subprocess.run(
        ["bash", "-c", command], env=env, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.fixture(scope="module")
def healthy(controlplane: ControlPlane, operate: Operate, serving: Webhook) -> Iterator[ControlPlane]:
    """A cluster with nothing wrong, and nobody who would mend it."""
    assert serving.ready()
    controlplane.namespace(PLANE, INJECT)
    wait_for(lambda: not findings(controlplane), 30, "nothing is wrong")
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


BREAK: dict[str, Callable[[ControlPlane], object]] = {
    "not-opted-in": lambda plane: plane.namespace(PLANE),
    "no-authority": lambda plane: patch(plane, "/webhooks/0/clientConfig/caBundle", None),
    "registration-differs": lambda plane: patch(plane, "/webhooks/0/matchConditions/0/expression", "false"),
    "webhook-scaled-to-zero": lambda plane: plane.kubectl(
        "-n", OWN, "scale", "deployment/plane-webhook", "--replicas=0"
    ),
    "operate-scaled-to-zero": lambda plane: plane.kubectl(
        "-n", OWN, "scale", "deployment/plane-webhook-operate", "--replicas=0"
    ),
}


@pytest.mark.parametrize("code", BREAK)
def test_what_is_broken_is_found_and_the_printed_fix_mends_it(healthy: ControlPlane, tmp_path: Path, code: str) -> None:
    BREAK[code](healthy)
    found = {each["code"]: each for each in findings(healthy)}
    assert code in found
    assert found.keys() <= {code, "not-called"}
    run(healthy, found[code]["fix"], tmp_path)
    wait_for(lambda: not findings(healthy), 30, "nothing is wrong any more")


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
    code, printed, _ = doctor(healthy)
    assert code == 1
    assert found["fix"] in printed
    code, printed, _ = doctor(healthy, "-n", PLANE, "--output", "json")
    assert (code, json.loads(printed)) == (1, {"findings": [found]})
    run(healthy, found["fix"], tmp_path)

    def over() -> bool:
        healthy.settle(PLANE)
        return not findings(healthy)

    wait_for(over, 30, "nothing is wrong any more")
    assert doctor(healthy) == (0, "nothing is wrong\n", "")
    healthy.kubectl("-n", PLANE, "delete", "deployment", "plane-app-worker-wl")


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


def test_it_says_when_it_could_not_look(healthy: ControlPlane, tmp_path: Path) -> None:
    code, printed, said = doctor(healthy, "--webhook-namespace", "elsewhere")
    assert (code, printed) == (2, "")
    assert "there is no Deployment plane-webhook in the namespace elsewhere" in said
    gone = tmp_path / "kubeconfig"
    gone.write_text(healthy.kubeconfig.read_text().replace(healthy.url, "https://127.0.0.1:1"))
    code, printed, said = doctor(healthy, "--kubeconfig", str(gone))
    assert (code, printed) == (2, "")
    assert "could not look" in said


def test_a_deleted_registration_is_found_and_applied_again(healthy: ControlPlane, tmp_path: Path) -> None:
    unregister(healthy)
    found = {each["code"]: each for each in findings(healthy)}
    assert found.keys() == {"not-registered", "not-called"}
    run(healthy, found["not-registered"]["fix"], tmp_path)
    assert "not-registered" not in {each["code"] for each in findings(healthy)}
