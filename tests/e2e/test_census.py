"""The look at the pods on a real API server: a later one reads what has changed, and finds what a first one would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lab.pods import api_pod, create
from lab.process import wait_for
from webhook.cluster import census
from webhook.cluster.api import Api
from webhook.cluster.census import Census, Found
from webhook.settings import Settings

if TYPE_CHECKING:
    from lab.controlplane import ControlPlane

pytestmark = pytest.mark.lab

MERGE = {"content-type": "application/merge-patch+json"}


@pytest.mark.parametrize("singly", [200, 0], ids=["one by one", "all of them"])
def test_a_later_look_finds_what_a_first_one_would(
    controlplane: ControlPlane, monkeypatch: pytest.MonkeyPatch, singly: int
) -> None:
    monkeypatch.setattr(census, "_SINGLY", singly)
    monkeypatch.setattr(census, "_WHOLE_PAGE", "2")
    monkeypatch.setattr(census, "_METADATA_PAGE", "2")
    namespace = controlplane.namespace(f"census-{singly}")
    wait_for(lambda: create(controlplane, namespace, api_pod(), dry_run=True).is_success, 15, "pods can be made")
    pods = f"/api/v1/namespaces/{namespace}/pods"

    def make(name: str, **metadata: Any) -> None:
        create(controlplane, namespace, {**api_pod(), "metadata": {"name": name, **metadata}}).raise_for_status()

    def change(name: str, what: dict[str, Any], part: str = "") -> None:
        controlplane.api.patch(f"{pods}/{name}{part}", json=what, headers=MERGE).raise_for_status()

    api = Api.connect(controlplane.kubeconfig)
    looks = Census(api, Settings())

    def look() -> dict[str, Found]:
        return {each.name: each for each in looks.look([namespace])[namespace]}

    assert look() == look() == {}
    for name in ("changes", "ends", "goes", "runs", "stays"):
        make(name)
    make("leaves", finalizers=["lab.test/held"])
    first = look()
    assert first.keys() == {"changes", "ends", "goes", "leaves", "runs", "stays"}
    if singly:
        assert all(each is first[name] for name, each in look().items()), "nothing has changed, and nothing is read"

    make("comes")
    change("changes", {"metadata": {"labels": {"plane-webhook/inject": "disabled"}}})
    change("ends", {"status": {"phase": "Succeeded"}}, "/status")
    change("runs", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "/status")
    for name in ("goes", "leaves"):
        controlplane.api.delete(f"{pods}/{name}?gracePeriodSeconds=0").raise_for_status()
    later = look()
    assert later == {each.name: each for each in Census(api, Settings()).look([namespace])[namespace]}
    assert later.keys() == {"changes", "comes", "leaves", "runs", "stays"}
    assert (later["changes"].judged.state, later["stays"].judged.state) == ("out", "missed")
    assert (later["leaves"].leaving, later["runs"].ready) == (True, True)
    assert (later["stays"] is first["stays"]) == bool(singly)
    change("leaves", {"metadata": {"finalizers": None}})
    assert "leaves" not in look()
    assert looks.look([]) == {}
    controlplane.api.delete(f"/api/v1/namespaces/{namespace}").raise_for_status()
