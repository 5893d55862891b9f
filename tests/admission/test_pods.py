"""How a pod in the cluster stands against what would become of it now: webhook.cluster.pods."""

from __future__ import annotations

import json
from typing import Any

import jsonpatch
import pytest

from webhook.admission import decide, injection, review
from webhook.cluster.pods import Judged, State, judge
from webhook.settings import Profile, parse


def pod(**container: Any) -> dict[str, Any]:
    only = {"name": "api", "image": "makeplane/plane-backend:v1", "command": ["./bin/docker-entrypoint-api.sh"]}
    return {"metadata": {"name": "x"}, "spec": {"containers": [{**only, **container}]}}


def made(tree: dict[str, Any], profile: Profile) -> dict[str, Any]:
    """The pod as it is stored when the webhook answered."""
    decision = decide(read(tree), profile)
    assert decision.injection is not None
    patched: dict[str, Any] = jsonpatch.apply_patch(tree, injection.operations(decision.injection))
    return patched


def read(tree: dict[str, Any]) -> review.Pod:
    parsed = review.parse_pod(json.dumps(tree).encode())
    assert parsed is not None
    return parsed


def state(tree: dict[str, Any], profile: Profile) -> State:
    return judge(read(tree), profile).state


DEFAULT = Profile()
WORKER = pod(command=["./bin/docker-entrypoint-worker.sh"])


def test_one_that_the_webhook_made_is_injected_and_one_that_it_did_not_see_is_missed() -> None:
    assert state(made(pod(), DEFAULT), DEFAULT) is State.INJECTED
    assert state(pod(), DEFAULT) is State.MISSED


def test_one_that_the_configuration_has_asked_for_since_is_missed_and_that_is_said() -> None:
    """The webhook answered, and the namespace was opted in: what came later is the configuration."""
    assert decide(read(WORKER), parse("workloads: [api]").profile("")).reason == "not-asked"
    judged = judge(read(WORKER), DEFAULT)
    assert judged.state is State.MISSED
    assert "or the configuration asked for it" in judged.sentence


@pytest.mark.parametrize(
    ("text", "api", "worker"),
    [
        ("publish: {patience: 2}", State.OUTDATED, State.OUTDATED),
        ("env: {celery_broker_pool_limit: 5}", State.OUTDATED, State.OUTDATED),
        ("env: {gunicorn_max_requests: 5}", State.OUTDATED, State.INJECTED),  # a worker has none
        ("precedence: chart", State.OUTDATED, State.OUTDATED),
        ("images: [makeplane/plane-backend, a/b]", State.INJECTED, State.INJECTED),
        ("workloads: [api, worker]", State.INJECTED, State.INJECTED),
        ("namespaces: {other: {publish: {patience: 2}}}", State.INJECTED, State.INJECTED),
        ("workloads: [api]", State.INJECTED, State.OUTDATED),
    ],
)
def test_only_a_change_that_concerns_the_pod_makes_it_outdated(text: str, api: State, worker: State) -> None:
    profile = parse(text).profile("plane")
    assert state(made(pod(), DEFAULT), profile) is api
    assert state(made(WORKER, DEFAULT), profile) is worker
    for tree in (pod(), WORKER):
        anew = made(tree, profile) if decide(read(tree), profile).injection else tree
        assert state(anew, profile) is (State.INJECTED if anew is not tree else State.OUT)


def test_of_two_containers_one_that_is_no_longer_asked_for_makes_the_pod_outdated() -> None:
    both = pod()
    both["spec"]["containers"] += [{**WORKER["spec"]["containers"][0], "name": "worker"}]
    tree = made(both, DEFAULT)
    assert state(tree, DEFAULT) is State.INJECTED
    assert state(tree, parse("workloads: [api]").profile("")) is State.OUTDATED


def test_a_label_that_comes_after_the_injection_changes_nothing() -> None:
    """It says what becomes of a new pod. This one runs with what it got, and the next has its template's labels."""
    tree = made(pod(), DEFAULT)
    tree["metadata"]["labels"] = {"plane-webhook/inject": "disabled"}
    assert state(tree, DEFAULT) is State.INJECTED
    assert state(tree, parse("publish: {patience: 2}").profile("")) is State.OUTDATED


def test_what_stays_open_in_a_pod_and_what_it_sets_itself_are_told() -> None:
    own = pod(env=[{"name": "CELERY_BROKER_POOL_LIMIT", "value": "3"}])
    judged = judge(read(made(own, DEFAULT)), DEFAULT)
    assert (judged.state, judged.risks) == (State.INJECTED, ("rotation-off-no-memory-limit",))
    assert judged.kept == ("CELERY_BROKER_POOL_LIMIT",)
    limited = pod(resources={"limits": {"memory": "1Gi"}})
    judged = judge(read(made(limited, DEFAULT)), DEFAULT)
    assert (judged.risks, judged.kept) == ((), ())


def test_limits_in_the_command_are_kept_and_a_pod_that_was_told_others_is_outdated() -> None:
    tree = made(pod(command=["gunicorn", "--max-requests", "5", "plane.asgi:application"]), DEFAULT)
    judged = judge(read(tree), DEFAULT)
    assert (judged.state, judged.kept) == (
        State.INJECTED,
        ("GUNICORN_MAX_REQUESTS", "GUNICORN_MAX_REQUESTS_JITTER"),
    )
    assert judge(read(tree), parse("env: {gunicorn_max_requests: 5}").profile("")).state is State.INJECTED
    words = tree["spec"]["containers"][0]["command"]
    words[5] = made(pod(), DEFAULT)["spec"]["containers"][0]["command"][5]  # as the version before this one
    assert state(tree, DEFAULT) is State.OUTDATED


def test_another_version_with_the_same_effect_is_no_reason() -> None:
    tree = made(pod(), DEFAULT)
    words = tree["spec"]["containers"][0]["command"]
    told = json.loads(words[5])
    words[5] = json.dumps({**told, "version": "0.0.9", "digest": "other"})
    assert state(tree, DEFAULT) is State.INJECTED
    del told["publish"]["spool_tasks"]  # which that version did not know
    words[5] = json.dumps(told)
    assert state(tree, DEFAULT) is State.INJECTED
    words[5] = "{"
    assert state(tree, DEFAULT) is State.OUTDATED


@pytest.mark.parametrize(
    "forged",
    [
        '{"publish": 5}',
        '{"env": [1]}',
        '{"version": {}}',
        '{"kept": 1}',
        '[{"',
        '{"publish": ' + '{"a":' * 20_000,
    ],
)
def test_what_somebody_else_wrote_in_place_of_our_settings_is_no_more_than_other_settings(forged: str) -> None:
    """`operate` reads the pods of whoever may create some: nothing in them may end it."""
    tree = made(pod(), DEFAULT)
    tree["spec"]["containers"][0]["command"][5] = forged
    assert state(tree, DEFAULT) is State.OUTDATED


def test_what_can_not_be_covered_says_why_and_what_is_nobodys_says_nothing() -> None:
    bare = pod()
    del bare["spec"]["containers"][0]["command"]
    assert judge(read(bare), DEFAULT) == Judged(State.UNCOVERED, "not-effective", "api", "api")
    assert "give the container its command" in judge(read(bare), DEFAULT).sentence
    assert state(pod(image="nginx", command=["nginx"]), DEFAULT) is State.OUT
    assert state({**pod(), "metadata": {"labels": {"plane-webhook/inject": "disabled"}}}, DEFAULT) is State.OUT
