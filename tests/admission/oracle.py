"""What an injection is, written down a second time: from the documentation, not from webhook.admission.

Here are the review that the API server would send, the patch as it would apply it, and the pod without what we add.
"""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import dataclass
from typing import Any

import jsonpatch

from webhook import __version__, payload
from webhook.admission import Answer, answer
from webhook.settings import Profile, Settings

Json = dict[str, Any]

PROVENANCE = "plane-webhook/provenance"
INJECTED = "plane-webhook/injected"
ANNOTATIONS_LIMIT = 256 * 1024
GUNICORN = ("GUNICORN_MAX_REQUESTS", "GUNICORN_MAX_REQUESTS_JITTER")
CELERY = ("CELERY_TASK_PUBLISH_RETRY", "CELERY_BROKER_POOL_LIMIT")


def review(pod: object, **request: object) -> bytes:
    """Return an AdmissionReview of the creation of `pod`; `request` replaces or adds fields."""
    made = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "plane",
        "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": pod,
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        **request,
    }
    return json.dumps({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": made}).encode()


@dataclass(frozen=True)
class Outcome:
    """An answer, and the pod as the API server has it after that."""

    answer: Answer
    response: Json
    pod: Any

    @property
    def patched(self) -> bool:
        return "patch" in self.response


def admit(pod: object, settings: Settings, **request: object) -> Outcome:
    """Have `pod` decided and its patch applied; checks everything that holds for every answer."""
    body = review(pod, **request)
    given = answer(body, settings)
    made = json.loads(given.body)
    response = made.pop("response")
    assert made == {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}
    assert response.pop("uid") == json.loads(body)["request"]["uid"] == given.uid
    assert response.pop("allowed") is True
    assert response.pop("auditAnnotations") == {"reason": given.reason.value}
    assert response.pop("warnings", []) == list(given.warnings)
    # More than 4,096 characters in all, and the API server cuts each warning down to 256.
    assert sum(map(len, given.warnings)) <= 4096
    if "patch" in response:
        assert response.keys() == {"patch", "patchType"}
        assert response["patchType"] == "JSONPatch"
        operations = json.loads(base64.b64decode(response["patch"], validate=True))
        assert operations
        assert all(set(each) == {"op", "path", "value"} and each["op"] == "add" for each in operations)
        patched = jsonpatch.apply_patch(copy.deepcopy(pod), operations)
    else:
        assert not response
        patched = pod
    return Outcome(given, response, patched)


def variables(profile: Profile, workload: str) -> dict[str, str]:
    """What the documentation promises: names to texts; gunicorn's for the API alone."""
    env = profile.env
    texts = {
        "GUNICORN_MAX_REQUESTS": str(env.gunicorn_max_requests),
        "GUNICORN_MAX_REQUESTS_JITTER": str(env.gunicorn_max_requests_jitter),
        "CELERY_TASK_PUBLISH_RETRY": "True" if env.celery_task_publish_retry else "False",
        "CELERY_BROKER_POOL_LIMIT": str(env.celery_broker_pool_limit),
    }
    return {name: texts[name] for name in (*(GUNICORN if workload == "api" else ()), *CELERY)}


def prefix(profile: Profile, workload: str, kept: list[str], *, limits: bool = True) -> list[Any]:
    """Return the words before Plane's command as they arrive in the container; the settings as a dict, not as text.

    `limits`: those of gunicorn are ours to set.
    """
    wanted = variables(profile, workload)
    if not limits:
        wanted = {name: text for name, text in wanted.items() if name not in GUNICORN}
    settings = {
        "version": __version__,
        "digest": profile.digest,
        "workload": workload,
        "precedence": profile.precedence,
        "env": wanted,
        "kept": kept,
        "publish": profile.publish.model_dump(mode="json"),
    }
    exports = " ".join(f"{name}={value}" for name, value in wanted.items())
    return ["/bin/sh", "-c", payload.GUARD, "plane-webhook", exports, settings, payload.PACKED]


PREFIX_WORDS = 7


def arrived(words: list[str]) -> list[Any]:
    """Return the first words of a stored command as the kubelet hands them on: each doubled dollar is one."""
    assert all(word.replace("$$", "").count("$") == 0 for word in words)
    texts: list[Any] = [word.replace("$$", "$") for word in words]
    return [*texts[:5], json.loads(texts[5]), *texts[6:]]


def without_injection(patched: Json, original: Json) -> Json:
    """Return `patched` without what the documentation says that we add to `original`; anything else stays."""
    pod = copy.deepcopy(patched)
    spec = pod.get("spec") or {}
    for container, old in containers(pod, original):
        extra = len(container.get("command") or []) - len(old.get("command") or [])
        assert extra in (0, PREFIX_WORDS)
        if extra:
            assert arrived(container["command"][:PREFIX_WORDS])[:4] == ["/bin/sh", "-c", payload.GUARD, "plane-webhook"]
            del container["command"][:PREFIX_WORDS]
        for variable in _cut(container, old, "env"):
            assert variable.keys() == {"name", "value"}
            assert variable["name"] in GUNICORN + CELERY
        for mount in _cut(container, old, "volumeMounts"):
            assert mount == {"name": mount["name"], "mountPath": "/plane-webhook"}
    for volume in _cut(spec, original.get("spec") or {}, "volumes"):
        assert volume == {"name": volume["name"], "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    _cut_annotation(pod, original)
    return pod


def containers(pod: Json, other: Json) -> list[tuple[Json, Json]]:
    """The containers of two pods side by side, init containers too."""
    specs = pod.get("spec"), other.get("spec")
    return [
        pair
        for place in ("containers", "initContainers")
        for pair in zip(_list(specs[0], place), _list(specs[1], place), strict=True)
    ]


def same(one: object, other: object) -> bool:
    """Whether two trees are equal, order of keys and kinds of numbers included."""
    return json.dumps(one) == json.dumps(other)


def _list(tree: Json | None, key: str) -> list[Any]:
    return (tree or {}).get(key) or []


def _cut(tree: Json, old: Json, key: str) -> list[Json]:
    """Remove from the list at `key` what was appended to it, or the list if there was none."""
    before = _list(old, key)
    extra = _list(tree, key)[len(before) :]
    if extra and old.get(key) is None:
        _restore(tree, old, key)
    else:
        del _list(tree, key)[len(before) :]
    return extra


def _cut_annotation(pod: Json, original: Json) -> None:
    old = original.get("metadata")
    if old is None:
        _restore(pod, original, "metadata", {"annotations"})
    elif old.get("annotations") is None:
        _restore(pod["metadata"], old, "annotations", {PROVENANCE, INJECTED})
    else:
        _restore(pod["metadata"]["annotations"], old["annotations"], PROVENANCE)
        _restore(pod["metadata"]["annotations"], old["annotations"], INJECTED)


def _restore(tree: Json, old: Json, key: str, expected: set[str] | None = None) -> None:
    if expected is not None and isinstance(tree.get(key), dict):
        assert tree[key].keys() == expected
    if key in old:
        tree[key] = old[key]
    else:
        tree.pop(key, None)
