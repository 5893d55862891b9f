"""The registration's condition, evaluated by the API server: misses no pod, hardly ever asks in vain, never runs out.

Measured with Kubernetes 1.36.3, whose budget for an expression is a million units of cost. The condition evaluates any
pod that a request can bring (3 MiB of arguments) as long as `docker-ent` isn't in it, pods that are nothing but that up
to all that etcd stores, and 8,000 containers. A pod of a real chart (10 kB) thus costs less than a hundredth of the
budget. The API server's time grows in proportion to the length: 0.2 s at 200,000 words. (Word by word, with a macro,
50,000 took ten seconds and 200,000 a timeout.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from lab.pods import ENTRYPOINT, INJECT, WEBHOOK, api_pod, create, injected, registered, unharmed
from lab.process import wait_for
from lab.webhook import Webhook
from tests.property.strategies import IMAGES, commands, fields, plane_commands, words
from webhook.admission import decide
from webhook.admission.review import Pod
from webhook.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.controlplane import ControlPlane

pytestmark = pytest.mark.lab

CONFIGURATIONS = {"the default": None, "the API alone": "workloads: [api]"}

# Lists of the shapes that a typed pod can have; the generated ones have valid names, so that each is created.
parts = fields({"command": commands, "args": st.lists(words, max_size=3)}, image=st.sampled_from(IMAGES))
plane = fields({"args": st.lists(words, max_size=2)}, image=st.sampled_from(IMAGES), command=plane_commands)
either = parts | plane
pods = st.tuples(st.lists(either, min_size=1, max_size=3), st.lists(either, max_size=2), st.booleans()).map(
    lambda parts: {
        "metadata": {"name": "any"},
        "spec": {
            "containers": [{**each, "name": f"c{index}"} for index, each in enumerate(parts[0])],
            "initContainers": [
                {**each, "name": f"i{index}", **({"restartPolicy": "Always"} if parts[2] else {})}
                for index, each in enumerate(parts[1])
            ],
        },
    }
)

FOREIGN: dict[str, dict[str, Any]] = {
    "no command": {"image": "nginx:1"},
    "an image that resembles Plane's": {"image": "makeplane/plane-frontend:v1"},
    "an entrypoint in another folder": {"image": "i", "command": ["/bin/bash", "-c", "exec ./bin/entrypoint-api.sh"]},
    "half of the name in each word": {"image": "i", "command": ["docker-entry", "point-api.sh"]},
    "another program's entrypoint": {"image": "postgres:16", "command": ["docker-entrypoint.sh"], "args": ["postgres"]},
}
# What is Plane's and stays as it is: each is answered all the same, so that a log line and a metric say so.
SAID: dict[str, tuple[str, dict[str, Any]]] = {
    "an unknown entrypoint": ("not-known", {"image": "i", "command": ["./bin/docker-entrypoint-new-thing.sh"]}),
    "an unknown command": ("not-known", {"image": "r.local/makeplane/plane-backend:v1", "command": ["/start"]}),
    "the outbox poller": ("other-means", {"image": "i", "args": ["./bin/docker-entrypoint-outbox-poller.sh"]}),
    "silo": ("other-means", {"image": "r.local/makeplane/silo-commercial:v1"}),
    "the migrator": ("not-a-publisher", {"image": "i", "command": ["./bin/docker-entrypoint-migrator.sh"]}),
    "no command": ("not-effective", {"image": "makeplane/plane-backend:v1"}),
}


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def running(request: pytest.FixtureRequest, controlplane: ControlPlane) -> Iterator[Webhook]:
    """A webhook with each configuration, registered with Fail: what goes wrong is then seen at once."""
    controlplane.namespace("condition", INJECT)
    with (
        Webhook(configuration=CONFIGURATIONS[request.param]) as webhook,
        registered(controlplane, webhook, "--failure-policy", "Fail"),
    ):
        yield webhook


def made(controlplane: ControlPlane, pod: dict[str, Any]) -> dict[str, Any]:
    answer = create(controlplane, "condition", pod, dry_run=True)
    assert answer.status_code == 201, answer.text[:1000]
    return answer.json()


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
@hypothesis.given(pod=pods)
def test_whatever_would_be_injected_is(pod: dict[str, Any], running: Webhook, controlplane: ControlPlane) -> None:
    """The condition is true of all pods that the webhook would inject: one that it isn't true of comes back plain."""
    decision = decide(msgspec.convert(pod, Pod), load(running.configuration).default)
    assert injected(made(controlplane, pod)) == (decision.injection is not None)


def decisions(running: Webhook, reason: str) -> float:
    """Return how many the webhook's metric counts."""
    found = (each for each in running.metrics() if each.name == "plane_webhook_decisions_total")
    return sum(each.value for each in found if each.labels["reason"] == reason)


def test_pods_that_are_not_planes_never_cost_a_call(running: Webhook, controlplane: ControlPlane) -> None:
    excluded = "apiserver_admission_match_condition_exclusions_total"
    calls, before = running.reviews, controlplane.counter(excluded, name=WEBHOOK)
    for container in FOREIGN.values():
        assert not injected(made(controlplane, api_pod(**{"command": None, **container})))
    assert controlplane.counter(excluded, name=WEBHOOK) == before + len(FOREIGN)
    assert running.reviews == calls


@pytest.mark.parametrize("place", ["containers", "initContainers"])
@pytest.mark.parametrize("name", SAID)
def test_what_is_planes_and_not_covered_is_said(
    running: Webhook, controlplane: ControlPlane, name: str, place: str
) -> None:
    reason, container = SAID[name]
    pod = api_pod(f"said-{list(SAID).index(name)}-{place.lower()}", image="i", command=["sleep"])
    pod["spec"][place] = [{"name": "said", "restartPolicy": "Always", **container}]
    if place == "containers":
        del pod["spec"][place][0]["restartPolicy"]
    before = decisions(running, reason)
    made(controlplane, pod)
    wait_for(lambda: running.log_lines(name=pod["metadata"]["name"], reason=reason), 5, "a line in the log")
    assert decisions(running, reason) > before


@pytest.mark.parametrize("running", ["the default"], indirect=True)
@pytest.mark.parametrize(
    "args",
    [
        pytest.param(["x" * 3_000_000], id="3 MB in a word"),
        pytest.param(["x" * 145] * 20_000, id="3 MB in 20,000 words"),
        pytest.param(["x"] * 200_000, id="200,000 words"),
        pytest.param(["docker-ent" * 157_000], id="all that etcd takes of the word that is looked for first"),
    ],
)
def test_the_condition_evaluates_whatever_etcd_could_store(
    running: Webhook, controlplane: ControlPlane, args: list[str]
) -> None:
    with unharmed(controlplane):
        calls = running.reviews
        made(controlplane, api_pod(image="i", command=["sleep"], args=args))
        assert running.reviews == calls


@pytest.mark.usefixtures("running")
def test_a_megabyte_behind_an_entrypoint_is_evaluated(controlplane: ControlPlane) -> None:
    with unharmed(controlplane):
        assert injected(made(controlplane, api_pod(image="i", args=["x" * 1_000_000])))
        pod = api_pod(image="i", command=["sleep"], args=["x" * 1_000_000])
        pod["spec"]["initContainers"] = [{"name": "late", "image": "i", "command": [ENTRYPOINT]}]
        assert injected(made(controlplane, pod))


@pytest.mark.parametrize("running", ["the default"], indirect=True)
@pytest.mark.usefixtures("running")
def test_thousands_of_containers_are_evaluated(controlplane: ControlPlane) -> None:
    pod = api_pod(image="i", command=["sleep"])
    pod["spec"]["containers"] += [{"name": f"c{each}", "image": "i"} for each in range(4000)]
    with unharmed(controlplane):
        made(controlplane, pod)
