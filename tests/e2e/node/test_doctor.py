"""What `doctor` finds only where there is a kubelet: what runs in a container, and a port that nobody reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab.node import webhook as ours
from lab.node.plane import API, INJECTED, WORKER
from lab.process import wait_for
from tests.e2e.test_doctor import run
from webhook.cluster.api import Api
from webhook.cluster.doctor import Report, examine

if TYPE_CHECKING:
    from pathlib import Path

    from lab.node import Node
    from lab.node.plane import Release

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("minutes_allowed")]

# What a container says that somebody else has been in, and what a finding makes of it.
LIES = {
    'echo \'{"in_effect": true, "checks": [{"what": "it\\u001b[2J", "agrees": false}]}\'': "it [2J: asked null",
    "yes": "proof printed more than 65536 bytes",
    "printf '\\033]0;owned\\007'; exit 3": "proof said nothing that can be read: ]0;owned",
    "rm -r /plane-webhook/lib; exec python3 -c 'raise SystemExit(1)'": "nothing at all",
}


def look(node: Node) -> Report:
    return examine(Api.connect(node.kubeconfig), ours.NAMESPACE, "plane", execute=True)


def problems(node: Node) -> list[str]:
    return [each.code for each in look(node).findings if each.kind == "problem"]


def test_all_is_well_and_each_pod_is_named(release: Release) -> None:
    report = look(release.node)
    assert [each for each in report.findings if each.kind == "problem"] == []
    states = {each.pod.rsplit("-", 2)[0]: (each.state, each.workload) for each in report.pods}
    for workload, kind in INJECTED.items():
        assert states[release.pod(workload)["metadata"]["name"].rsplit("-", 2)[0]] == ("injected", kind)


def test_a_registration_that_is_gone_comes_back_by_helm(release: Release, tmp_path: Path) -> None:
    node = release.node
    node.kubectl("delete", "mutatingwebhookconfiguration", "plane-webhook")
    found = {each.code: each for each in look(node).findings}
    assert found["not-registered"].fix.startswith("helm upgrade plane-webhook ")
    run(node, found["not-registered"].fix, tmp_path)
    wait_for(lambda: not problems(node), 60, "it is back, and operate has filled it in")


def test_a_proof_that_lies_is_no_proof_and_harms_nobody(release: Release, tmp_path: Path) -> None:
    pod = release.pod(WORKER)
    for script, said in LIES.items():
        release.execute(pod, "sh", "-c", "printf '#!/bin/sh\\n%s\\n' \"$0\" > /plane-webhook/proof", script)
        (found,) = [each for each in look(release.node).findings if each.kind == "problem"]
        assert (found.code, found.where) == ("not-in-effect", f"plane/pod/{pod['metadata']['name']}")
        assert said in found.wrong
        assert found.wrong.isprintable()
    run(release.node, found.fix, tmp_path)
    wait_for(lambda: not problems(release.node), 120, "the new pod is in effect")


def test_a_port_that_the_api_server_can_not_reach_is_named(release: Release, tmp_path: Path) -> None:
    """No policy engine runs here, so the way is barred as a firewall does, and what is printed is taken."""
    node = release.node
    rules = "add table inet barred; add chain inet barred out { type filter hook output priority 0; }; "
    rules += "add rule inet barred out tcp dport 8443 reject with tcp reset"
    node.inside("nft", rules)
    try:
        found = wait_for(
            lambda: {each.code: each for each in look(node).findings if each.kind == "problem"}, 150, "it is found"
        )
        assert found.keys() >= {
            "not-called",
            "port-blocked",
        }  # later no replica is ready either: probes go the same way
        assert "can't reach port 8443" in found["port-blocked"].wrong
        run(node, found["port-blocked"].fix, tmp_path)
    finally:
        node.inside("nft", "delete table inet barred")
    wait_for(lambda: not problems(node), 60, "nothing is wrong any more")
    assert release.pod(API)
