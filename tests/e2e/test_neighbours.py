"""A second mutating webhook, before and after ours: the API server calls them by name and, where needed, ours again."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from lab.pods import ENTRYPOINT, INJECT, PROVENANCE, api_pod, create, essence, injected, registered, unharmed
from lab.process import wait_for
from tests.e2e.neighbour import neighbour, registration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab.controlplane import ControlPlane
    from lab.pods import Pod
    from lab.webhook import Webhook
    from tests.e2e.neighbour import Operations

pytestmark = pytest.mark.lab

# In the order of these names they are called; ours is plane-webhook.
BEFORE, AFTER = "earlier-neighbour", "zealous-neighbour"
LAUNCHER = "/neighbour/launch"


@pytest.fixture(scope="module", autouse=True)
def _registered(controlplane: ControlPlane, webhook: Webhook) -> Iterator[None]:
    with registered(controlplane, webhook), unharmed(controlplane):
        yield


def add(path: str, value: Any) -> Operations:
    return [{"op": "add", "path": path, "value": value}]


def prepend_a_launcher(pod: Pod) -> Operations:
    commands = {
        at: each["command"] for at, each in enumerate(pod["spec"]["containers"]) if LAUNCHER not in each["command"]
    }
    return [op for at in commands for op in add(f"/spec/containers/{at}/command/0", LAUNCHER)]


def move_all_into_args(pod: Pod) -> Operations:
    """What every `launcher run --` does."""
    containers = [(f"/spec/containers/{at}", each) for at, each in enumerate(pod["spec"]["containers"])]
    return [
        op
        for path, each in containers
        if LAUNCHER not in each["command"]
        for op in (
            *add(f"{path}/args", ["--", *each["command"], *each.get("args", [])]),
            *add(f"{path}/command", [LAUNCHER, "run"]),
        )
    ]


def put_a_sidecar_first(pod: Pod) -> Operations:
    if any(each["name"] == "sidecar" for each in pod["spec"]["containers"]):
        return []
    return add("/spec/containers/0", {"name": "sidecar", "image": "i", "command": ["sidecar"]})


def put_another_api_first(pod: Pod) -> Operations:
    if any(each["name"] == "another" for each in pod["spec"]["containers"]):
        return []
    return add("/spec/containers/0", {"name": "another", "image": "i", "command": [ENTRYPOINT]})


def add_variables(pod: Pod) -> Operations:
    variables = [
        {"name": "NEIGHBOUR", "value": "$(GUNICORN_MAX_REQUESTS)"},
        *(each for each in pod["spec"]["containers"][0].get("env", []) if each["name"] != "NEIGHBOUR"),
    ]
    return add("/spec/containers/0/env", variables)


def take_our_volumes_name(pod: Pod) -> Operations:
    volumes = pod["spec"].get("volumes", [])
    if any("hostPath" in each for each in volumes):
        return []
    return add(
        "/spec/volumes", [*volumes, {"name": f"plane-webhook{'-9' * bool(volumes)}", "hostPath": {"path": "/x"}}]
    )


def replace_the_command(_: Pod) -> Operations:
    return add("/spec/containers/0/command", [ENTRYPOINT, "--theirs"])


def drop_what_is_not_theirs(_: Pod) -> Operations:
    return [
        *add("/metadata/annotations", {"theirs": "x"}),
        *add("/spec/volumes", []),
        *add("/spec/containers/0/volumeMounts", []),
    ]


def guards(container: dict[str, Any]) -> int:
    return [*container["command"], *container.get("args", [])].count("plane-webhook")


# What the neighbour does, and what ours says when it is called again afterwards.
DEEDS = [
    (prepend_a_launcher, "already-injected"),
    (move_all_into_args, "already-injected"),
    (put_a_sidecar_first, "already-injected"),
    (put_another_api_first, "injected"),
    (add_variables, "already-injected"),
    (take_our_volumes_name, "already-injected"),
    (replace_the_command, "injected"),
    (drop_what_is_not_theirs, "injected"),
]


def check_theirs(deed: str, stored: Pod, ours: dict[str, Any]) -> None:
    """Assert that what the neighbour did is there, once."""
    match deed:
        case "prepend_a_launcher":
            assert ours["command"].count(LAUNCHER) == 1
        case "move_all_into_args":
            assert [*ours["command"], *ours["args"]].count(LAUNCHER) == 1
            assert ours["args"].count(ENTRYPOINT) == 1
        case "put_a_sidecar_first" | "put_another_api_first":
            assert stored["spec"]["containers"].index(ours) == 1
        case "add_variables":
            assert sum(each["name"] == "NEIGHBOUR" for each in ours["env"]) == 1
        case "replace_the_command":
            assert ours["command"][-2:] == [ENTRYPOINT, "--theirs"]
        case "drop_what_is_not_theirs":
            assert stored["metadata"]["annotations"]["theirs"] == "x"


@pytest.mark.parametrize("name", [BEFORE, AFTER])
@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed[0].__name__)
def test_each_keeps_its_own_and_ours_is_there_once(
    controlplane: ControlPlane,
    webhook: Webhook,
    tmp_path: Path,
    name: str,
    deed: tuple[Callable[[Pod], Operations], str],
) -> None:
    patch, again = deed
    namespace = controlplane.namespace(f"{name}-{patch.__name__}".replace("_", "-"), {**INJECT, "lab": name})
    calls: list[Pod] = []

    def answer(pod: Pod) -> Operations:
        calls.append(pod)
        return patch(pod)

    # Kind neighbours are called again if ours changed what they left; those that would tread on ours again are not.
    policy = "Never" if patch in {replace_the_command, drop_what_is_not_theirs} else "IfNeeded"
    with neighbour(answer, tmp_path) as client_config:
        controlplane.apply(registration(name, client_config, reinvocationPolicy=policy))
        wait_for(
            lambda: create(controlplane, namespace, api_pod("probe"), dry_run=True) and calls, 15, "it is called too"
        )
        calls.clear()
        answered = create(controlplane, namespace, api_pod(args=["--an", "argument"]))
        assert answered.status_code == 201, answered.text
        controlplane.kubectl("delete", "mutatingwebhookconfiguration", name)
    stored = answered.json()
    assert calls
    assert injected(calls[0]) == (name == AFTER)
    assert injected(stored)
    (ours,) = [each for each in stored["spec"]["containers"] if each["name"] == "api"]
    assert guards(ours) == 1
    assert ours["args"][-2:] == ["--an", "argument"]
    assert len(ours["args"]) == 2 or patch is move_all_into_args
    if policy == "IfNeeded":
        reports = json.loads(stored["metadata"]["annotations"][PROVENANCE])["containers"]
        assert [(len(each["set"]), each["kept"]) for each in reports if each["name"] == "api"] == [(4, [])]
    (volume,) = [each["name"] for each in ours["volumeMounts"] if each["mountPath"] == "/plane-webhook"]
    (memory,) = [each["emptyDir"] for each in stored["spec"]["volumes"] if each["name"] == volume]
    assert memory == {"medium": "Memory", "sizeLimit": "1Mi"}
    assert {each["name"]: each.get("value") for each in ours["env"]}["GUNICORN_MAX_REQUESTS"] == "0"
    for other in (each for each in stored["spec"]["containers"] if each["name"] != "api"):
        assert guards(other) == (other["name"] == "another")
    check_theirs(patch.__name__, stored, ours)
    expected = ["injected", again] if name == AFTER else ["injected"]

    def said() -> list[str]:
        return [line["reason"] for line in webhook.log_lines(namespace=namespace, name="api")]

    wait_for(lambda: len(said()) >= len(expected), 5, "its lines in the log")
    assert said()[: len(expected)] == expected
    # Plugins of the API server itself are another reason to be called again, such as a token for the sidecar.
    assert set(said()[len(expected) :]) <= {"already-injected"}


def test_ours_twice_is_the_same_as_once(controlplane: ControlPlane, webhook: Webhook) -> None:
    """The same webhook under two names, as while a registration is being renamed."""
    namespace = controlplane.namespace("twice", {**INJECT, "lab": "zz-again"})
    once = create(controlplane, namespace, api_pod("once")).json()
    authority = base64.b64encode((webhook.cert_dir / "ca.crt").read_bytes()).decode()
    controlplane.apply(registration("zz-again", {"url": f"{webhook.url}/mutate", "caBundle": authority}))
    wait_for(
        lambda: (
            create(controlplane, namespace, api_pod("probe"), dry_run=True)
            and webhook.log_lines(namespace=namespace, name="probe", reason="already-injected")
        ),
        15,
        "a second call",
    )
    twice = create(controlplane, namespace, api_pod("twice")).json()
    controlplane.kubectl("delete", "mutatingwebhookconfiguration", "zz-again")
    assert essence(twice) == essence(once)
