"""Whatever a pod looks like: an answer that allows it, a patch that applies, and nothing touched that isn't ours."""

from __future__ import annotations

import copy
import json
import posixpath
from collections import Counter
from typing import Any

from hypothesis import assume, event, example, given
from hypothesis import strategies as st

from tests.admission import oracle
from tests.property import strategies
from webhook import payload
from webhook.admission import Answer, MalformedReview, Reason, answer
from webhook.admission.target import ENTRYPOINT_MARK, FOREIGN_IMAGES
from webhook.settings import Profile, Settings

UNCHANGED = set(Reason) - {Reason.INJECTED}


@given(strategies.pods, strategies.settings)
def test_any_pod(pod: Any, settings: Settings) -> None:
    before = copy.deepcopy(pod)
    outcome = oracle.admit(pod, settings)
    event(outcome.answer.reason.value)
    assert pod == before
    assert outcome.patched or oracle.same(outcome.pod, before)
    assert not (outcome.patched and outcome.answer.reason in UNCHANGED)
    assert outcome.patched or outcome.answer.reason is not Reason.INJECTED
    if outcome.patched:
        check_patched(before, outcome.pod, settings.profile("plane"))
        again = oracle.admit(outcome.pod, settings)
        assert not again.patched
        assert (again.answer.workload, again.answer.container) == (outcome.answer.workload, outcome.answer.container)
        assert again.answer.risks == outcome.answer.risks
        assert again.answer.reason is Reason.ALREADY_INJECTED


def check_patched(before: Any, after: Any, profile: Profile) -> None:
    assert oracle.same(oracle.without_injection(after, before), before)
    old_names = Counter(each.get("name") for each in before["spec"].get("volumes") or [])
    new_names = Counter(each.get("name") for each in after["spec"].get("volumes") or [])
    assert all(count == 1 for name, count in new_names.items() if count > old_names[name])
    for new, old in oracle.containers(after, before):
        assert new.get("args") == old.get("args")
        command = old.get("command") or []
        assert (new.get("command") or [])[-len(command) :] == command or not command
        if new != old:
            check_container(old, new, new_names, profile)
    annotations = after["metadata"]["annotations"]
    size = sum(len(key.encode()) + len((value or "").encode()) for key, value in annotations.items())
    assert size <= oracle.ANNOTATIONS_LIMIT
    rows = {row["name"]: row for row in json.loads(annotations[oracle.PROVENANCE])["containers"]}
    assert all(not set(row["set"]) & set(row["kept"]) for row in rows.values())


def check_container(old: Any, new: Any, volumes: Counter[str], profile: Profile) -> None:
    old_env = Counter(each.get("name") for each in old.get("env") or [])
    new_env = Counter(each.get("name") for each in new.get("env") or [])
    assert all(count == 1 for name, count in new_env.items() if count > old_env[name])
    wrapped = len(new.get("command") or []) > len(old.get("command") or [])
    if wrapped:
        own = any("--max-requests" in word for word in command_line(old))
        kept = [name for name in strategies.NAMES if old_env[name] or (own and name in oracle.GUNICORN)]
        arrived = oracle.arrived(new["command"][: oracle.PREFIX_WORDS])
        assert any(
            arrived == oracle.prefix(profile, workload, [name for name in kept if name in expected], limits=limits)
            for workload in profile.workloads
            for limits in ((False,) if own else (True, False))
            for expected in [oracle.variables(profile, workload)]
        )
    if profile.precedence == "chart":
        assert new.get("env") == old.get("env")
    ours = [mount for mount in new.get("volumeMounts") or [] if resolved(mount.get("mountPath")) == "/plane-webhook"]
    if wrapped:
        assert len(ours) == 1
        assert volumes[ours[0]["name"]] == 1 or ours[0] in (old.get("volumeMounts") or [])


def command_line(container: Any) -> list[str]:
    return (container.get("command") or []) + (container.get("args") or [])


def resolved(path: str | None) -> str:
    return posixpath.normpath("/" + (path or "").lstrip("/"))


@given(strategies.plane_pods, strategies.settings, strategies.settings, st.data())
def test_an_injected_pod_that_was_changed_since(
    pod: Any, first: Settings, second: Settings, data: st.DataObject
) -> None:
    patched = oracle.admit(pod, first).pod
    assume(patched != pod)
    changed = data.draw(strategies.changed_since(patched))
    outcome = oracle.admit(changed, second)
    event(outcome.answer.reason.value)
    if outcome.patched:
        assert oracle.same(oracle.without_injection(outcome.pod, changed), changed)
        assert not oracle.admit(outcome.pod, second).patched
    for new, old in oracle.containers(outcome.pod, changed):
        assert command_line(new).count(payload.GUARD.replace("$", "$$")) <= 1
        before, after = (
            [resolved(mount.get("mountPath")) for mount in each.get("volumeMounts") or []] for each in (old, new)
        )
        assert after == before or after.count("/plane-webhook") == 1


@given(strategies.pods, strategies.settings)
def test_what_is_planes_bears_a_mark_that_the_match_condition_looks_for(pod: Any, settings: Settings) -> None:
    """The text's half of it; that the condition's CEL finds the marks is tried on a real API server."""
    told = oracle.admit(pod, settings).answer
    if told.reason in (Reason.NOT_PLANE, Reason.POD_UNREADABLE):
        return
    images = (*FOREIGN_IMAGES, *settings.profile("plane").images)
    assert any(
        any(ENTRYPOINT_MARK in word for word in command_line(container))
        or any(image in (container.get("image") or "") for image in images)
        for container, _ in oracle.containers(pod, pod)
    )


@given(strategies.damaged(strategies.pods), strategies.settings)
def test_a_pod_in_which_anything_may_stand(pod: Any, settings: Settings) -> None:
    outcome = oracle.admit(pod, settings)
    if outcome.patched:
        assert oracle.same(oracle.without_injection(outcome.pod, pod), pod)
        assert not oracle.admit(outcome.pod, settings).patched


OTHER_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "uid": strategies.texts,
        "name": strategies.json_trees,
        "namespace": st.none() | strategies.texts,
        "operation": st.sampled_from(("CREATE", "UPDATE", "DELETE", "CONNECT", None, "")),
        "subResource": st.none() | strategies.texts,
        "resource": strategies.json_trees,
        "dryRun": st.none() | st.booleans() | strategies.json_trees,
        "xyz": strategies.json_trees,
    },
)


@given(strategies.json_trees | strategies.pods, OTHER_FIELDS)
def test_a_review_about_anything(pod: Any, fields: dict[str, Any]) -> None:
    try:
        outcome = oracle.admit(pod, Settings(), **fields)
    except MalformedReview:
        return
    asked = {"operation": "CREATE", "resource": None, **fields}
    if asked["operation"] != "CREATE" or asked.get("subResource") or asked["resource"]:
        assert outcome.answer.reason is Reason.NOT_A_POD_CREATION or asked["resource"]
        assert not outcome.patched or asked["operation"] == "CREATE"


@given(
    st.binary(max_size=200)
    | strategies.damaged(st.just(json.loads(oracle.review({})))).map(lambda t: json.dumps(t).encode())
)
def test_any_bytes(body: bytes) -> None:
    decide(body)


REAL = oracle.review(
    {
        "metadata": {"annotations": {"a": "é\U0001f600"}},
        "spec": {"containers": [{"name": "api", "command": ["./bin/docker-entrypoint-api.sh"]}]},
    }
)


@given(st.integers(0, len(REAL)), st.integers(0, 8), st.binary(max_size=8))
@example(0, 0, b"\xef\xbb\xbf")
@example(0, 0, b" ")
def test_a_real_review_with_bytes_changed(at: int, removed: int, added: bytes) -> None:
    decide(REAL[:at] + added + REAL[at + removed :])


def decide(body: bytes) -> None:
    given = given_or_why(body)
    # However it is read: a long one isn't parsed in one go.
    assert given_or_why(body + b" " * (2 << 20)) == given
    if isinstance(given, str):
        return
    response = json.loads(given.body)["response"]
    assert response["allowed"] is True
    assert json.dumps(response["uid"], ensure_ascii=False).encode() in body or b"\\" in body


def given_or_why(body: bytes) -> Answer | str:
    try:
        return answer(body, Settings())
    except MalformedReview as malformed:
        return str(malformed)
