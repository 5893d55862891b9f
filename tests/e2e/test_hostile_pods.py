"""Pods that nobody sane would make: each is created, or refused in the same words, as if there were no webhook."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from lab.pods import (
    ENTRYPOINT,
    INJECT,
    PROVENANCE,
    api_pod,
    create,
    essence,
    registered,
    unharmed,
    without_injection,
)
from lab.process import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.controlplane import ControlPlane
    from lab.pods import Pod
    from lab.webhook import Webhook

pytestmark = pytest.mark.lab

KIB = 1024
FULL = 256 * KIB  # what all annotations together may have
STORED = 1536 * KIB  # what etcd takes


def annotated(size: int, **more: str) -> Pod:
    """An API pod with annotations of this many bytes, keys included."""
    pod = api_pod()
    rest = size - sum(len(key) + len(value) for key, value in more.items()) - len("filler")
    pod["metadata"]["annotations"] = {**more, "filler": "x" * rest}
    return pod


def containers(*each: dict[str, Any], **spec: Any) -> Pod:
    return {"metadata": {"name": "api"}, "spec": {"containers": list(each), **spec}}


def api(name: str = "api", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "i", "command": [ENTRYPOINT], **more}


def volume(source: dict[str, Any], name: str = "plane-webhook", **mount: Any) -> Pod:
    """An API pod with a volume of that name, mounted somewhere."""
    pod = api_pod(volumeMounts=[{"name": name, "mountPath": "/elsewhere", **mount}])
    pod["spec"]["volumes"] = [{"name": name, **source}]
    return pod


def meta(**metadata: Any) -> Pod:
    pod = api_pod()
    pod["metadata"] |= metadata
    return pod


ODD = "\u202e\u2028\u0000\u0007\ufeff\ud83d\ude00'\"`$(PATH)$$\\\n\t e\u0301 \U0010ffff"
HOST = {"hostPath": {"path": "/etc"}}

# A pod, and what the webhook says of it; "" where it is not to be asked.
PODS: dict[str, tuple[Pod, str]] = {
    # --- nothing to work on
    "no spec": ({"metadata": {"name": "api"}}, ""),
    "an empty spec": ({"metadata": {"name": "api"}, "spec": {}}, ""),
    "containers null": ({"metadata": {"name": "api"}, "spec": {"containers": None}}, ""),
    "no containers": (containers(), ""),
    "an empty container": (containers({}), ""),
    "a null container": ({"metadata": {"name": "api"}, "spec": {"containers": [None]}}, ""),
    "no metadata": ({"spec": {"containers": [api()]}}, "injected"),
    "null metadata": ({"metadata": None, "spec": {"containers": [api()]}}, "injected"),
    "null labels and annotations": (meta(labels=None, annotations=None), "injected"),
    "empty labels and annotations": (meta(labels={}, annotations={}), "injected"),
    # --- commands
    "command null": (containers(api(command=None)), ""),
    "command empty": (containers(api(command=[])), ""),
    "command null, the entrypoint in args": (containers(api(command=None, args=[ENTRYPOINT])), "not-effective"),
    "command and args null, Plane's image": (
        containers(api(command=None, args=None, image="makeplane/plane-backend:v1")),
        "not-effective",
    ),
    "an empty word first": (containers(api(command=["", ENTRYPOINT])), "injected"),
    "a null word": (containers(api(command=[ENTRYPOINT, None])), "injected"),
    "all lists null": (containers(api(args=None, env=None, volumeMounts=None, ports=None), volumes=None), "injected"),
    "all lists empty": (containers(api(args=[], env=[], volumeMounts=[], ports=[]), volumes=[]), "injected"),
    "20,000 words": (containers(api(args=["word"] * 20_000)), "injected"),
    "a word of 1 MiB": (containers(api(args=["x" * (1 << 20)])), "injected"),
    "100,000 words of nobody's": (containers({"name": "c", "image": "i", "command": ["true"] * 100_000}), ""),
    "odd characters": (
        containers(api(args=[ODD, *ODD], env=[{"name": "ODD", "value": ODD}], workingDir="/" + ODD[6:])),
        "injected",
    ),
    # --- environment
    "3,000 variables": (
        containers(api(env=[{"name": f"VARIABLE_{number}", "value": "x" * 20} for number in range(3000)])),
        "injected",
    ),
    "a variable twice": (containers(api(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])), "injected"),
    "our variables, all the user's": (
        containers(
            api(
                env=[
                    {"name": "GUNICORN_MAX_REQUESTS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "GUNICORN_MAX_REQUESTS_JITTER"},
                    {"name": "CELERY_TASK_PUBLISH_RETRY", "value": None},
                    {"name": "CELERY_BROKER_POOL_LIMIT", "value": ""},
                ]
            )
        ),
        "injected",
    ),
    "a variable that is none": (containers(api(env=[{"name": "GUNICORN MAX=", "value": "1"}])), "injected"),
    "a variable without a name": (containers(api(env=[{"value": "1"}, {}])), "injected"),
    # --- volumes and mounts
    "our volume's name on a host path": (volume(HOST), "injected"),
    "our volume's name and nothing else": (volume({}), "injected"),
    "our volume's name twice": (containers(api(), volumes=[{"name": "plane-webhook"}] * 2), "injected"),
    "fifty names of ours": (
        containers(api(), volumes=[{"name": f"plane-webhook-{number}", **HOST} for number in range(50)]),
        "injected",
    ),
    "a mount of the user's at our path": (volume(HOST, mountPath="/plane-webhook"), "mount-taken"),
    "a mount of the user's below": (volume(HOST, mountPath="/plane-webhook/bin"), "mount-taken"),
    "a mount at our path, spelt oddly": (volume(HOST, mountPath="//plane-webhook/./"), "mount-taken"),
    "a mount that goes up": (volume(HOST, mountPath="/x/../plane-webhook"), "mount-taken"),
    "a mount of what is not declared": (
        containers(api(volumeMounts=[{"name": "nowhere", "mountPath": "/x"}])),
        "injected",
    ),
    "a block device at our path": (
        containers(
            api(volumeDevices=[{"name": "disk", "devicePath": "/plane-webhook"}]),
            volumes=[{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}],
        ),
        "mount-taken",
    ),
    # --- annotations
    "annotations of all that is allowed": (annotated(FULL), "annotations-full"),
    "annotations with some room": (annotated(FULL - 100), "annotations-full"),
    "annotations with room enough": (annotated(FULL - 1000), "injected"),
    "one byte more than allowed": (annotated(FULL + 1), "annotations-full"),
    "an odd claim to be ours": (meta(annotations={PROVENANCE: ODD}), "injected"),
    "odd annotations": (meta(annotations={"a.b/c-d_e.F": ODD, "a": "", "b": None}), "injected"),
    "an annotation that is none": (meta(annotations={"a/b~1c/~0": ODD}), "injected"),
    # --- several containers
    "two of one name": (containers(api(), api()), "injected"),
    "three containers of Plane": (containers(api("a"), {"name": "b", "image": "i"}, api("c"), api("d")), "injected"),
    "Plane as an init container only": (containers({"name": "c", "image": "i"}, initContainers=[api()]), "injected"),
    "Plane as an ephemeral container": (
        containers({"name": "c", "image": "i"}, ephemeralContainers=[{**api(), "targetContainerName": "c"}]),
        "",
    ),
    "names that are none": (containers(api("A_b/~"), api(""), api("x" * 64)), "pod-unreadable"),
    "a name of 63": (containers(api("x" * 63)), "injected"),
    "two hundred containers of Plane": (containers(*(api(f"c{number}") for number in range(200))), "pod-too-large"),
    # --- as large as may be
    "100 kB less than can be stored": (containers(api(args=["x" * (STORED - 100 * KIB)])), "injected"),
    "2 kB less than can be stored": (containers(api(args=["x" * (STORED - 2 * KIB)])), "pod-too-large"),
    "more than can be stored": (containers(api(args=["x" * STORED])), "pod-too-large"),
    "what doubles in JSON": (containers(api(args=['"' * (STORED // 2)])), "pod-too-large"),
    # --- refused whatever we do
    "a name that is none": (api_pod("Not A Name"), "injected"),
    "an account that isn't there": (containers(api(), serviceAccountName="nobody"), ""),
    "a port that is none": (containers(api(ports=[{"containerPort": 123_456}])), "injected"),
    "an unknown field": (containers(api(noSuchField=1), alsoUnknown={"x": 1}), "injected"),
    "a text for a number": (containers(api(), terminationGracePeriodSeconds="soon"), ""),
}


def outcome(plane: ControlPlane, namespace: str, pod: Pod) -> tuple[int, Any]:
    """The status, and the pod or why there is none."""
    answer = create(plane, namespace, pod)
    content = answer.json()
    if not answer.is_success:
        return answer.status_code, content["message"].replace(namespace, "NAMESPACE")
    plane.api.delete(
        f"/api/v1/namespaces/{namespace}/pods/{content['metadata']['name']}", params={"gracePeriodSeconds": 0}
    ).raise_for_status()
    return answer.status_code, content


@pytest.fixture(scope="module")
def without(controlplane: ControlPlane) -> dict[str, tuple[int, Any]]:
    """What becomes of each pod where there is no webhook."""
    namespace = controlplane.namespace("hostile-without")
    return {name: outcome(controlplane, namespace, pod) for name, (pod, _) in PODS.items()}


@pytest.fixture(scope="module", params=["Ignore", "Fail"])
def namespace(request: pytest.FixtureRequest, controlplane: ControlPlane, webhook: Webhook) -> Iterator[str]:
    """A namespace of its own for each failure policy."""
    name = controlplane.namespace(f"hostile-{request.param.lower()}", INJECT)
    with registered(controlplane, webhook, "--failure-policy", request.param), unharmed(controlplane):
        yield name


@pytest.mark.parametrize("name", PODS)
def test_a_hostile_pod_fares_as_it_would_without_us(
    controlplane: ControlPlane, webhook: Webhook, namespace: str, without: dict[str, tuple[int, Any]], name: str
) -> None:
    pod, reason = PODS[name]
    said = len(webhook.log_lines(namespace=namespace))
    status, result = outcome(controlplane, namespace, pod)
    expected_status, expected = without[name]
    assert status == expected_status, result
    if isinstance(expected, str):
        assert result == expected
    elif reason == "injected":
        if PROVENANCE in expected["metadata"].get("annotations", {}):  # the user's, which ours replaces
            del expected["metadata"]["annotations"]
        assert essence(without_injection(result)) == essence(expected)
    else:
        assert essence(result) == essence(expected)
    # A line is written when the answer is out. That one comes which must not, the last test would see.
    wait_for(lambda: len(webhook.log_lines(namespace=namespace)) >= said + bool(reason), 5, "a line in the log")
    assert [line["reason"] for line in webhook.log_lines(namespace=namespace)[said:]] == ([reason] if reason else [])


def test_a_pod_that_was_injected_is_left_alone_and_half_of_one_is_completed(
    controlplane: ControlPlane, webhook: Webhook, namespace: str
) -> None:
    """What comes of copying a pod, in whole or in part."""

    def reason(pod: Pod) -> tuple[str, Pod]:
        said = len(webhook.log_lines(namespace=namespace))
        status, stored = outcome(controlplane, namespace, pod)
        assert status == 201, stored
        lines = wait_for(lambda: webhook.log_lines(namespace=namespace)[said:], 5, "a line in the log")
        return lines[0]["reason"], stored

    first, stored = reason(api_pod(args=["--an", "argument"]))
    assert first == "injected"
    copied = {"metadata": {"name": "copy", "annotations": stored["metadata"]["annotations"]}, "spec": stored["spec"]}
    second, again = reason(copied)
    assert second == "already-injected"
    assert essence(again)["spec"] == essence(stored)["spec"]
    assert again["metadata"]["annotations"] == stored["metadata"]["annotations"]

    claimed = api_pod(args=["--an", "argument"])
    claimed["metadata"]["annotations"] = stored["metadata"]["annotations"]
    unmarked = {"metadata": {"name": "copy"}, "spec": copy.deepcopy(stored["spec"])}
    bare = copy.deepcopy(copied)
    bare["spec"]["volumes"] = bare["spec"]["containers"][0]["volumeMounts"] = []
    unset = copy.deepcopy(copied)
    unset["spec"]["containers"][0]["env"] = []
    for part in (claimed, unmarked, bare, unset):
        third, completed = reason(part)
        assert third == "injected"
        assert essence(completed)["spec"] == essence(stored)["spec"]
