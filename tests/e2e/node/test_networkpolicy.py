"""The chart's NetworkPolicies, enforced by kube-router on a node of their own: who reaches whom with them and without.

What the API server may is not shown by it: on this node it is a process of the node's, which is let in anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lab.cache import LabError
from lab.node import ADDRESS, Node
from lab.node import webhook as ours
from lab.node.configuration import API
from lab.node.programs import built
from lab.pods import INJECT, WEBHOOK, api_pod, create, injected
from lab.process import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

PYTHON = "/venv/bin/python3"  # the image's
LISTEN = [PYTHON, "-m", "http.server", "8000"]
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
STRANGER, FRIEND, SERVE, OPERATE = "stranger", "friend", "plane-webhook", "plane-webhook-operate"
HTTPS, METRICS, OTHER = 8443, 9090, 8000


@pytest.fixture(scope="module")
def cluster(minutes_allowed: None, possible_node: None) -> Iterator[Cluster]:  # noqa: ARG001 - they skip
    """A node that enforces policies, with the webhook and two pods of somebody else's."""
    if not built(policies=True):
        pytest.skip("kube-router isn't built: `make node` does that, once, in 3 to 7 minutes")
    with Node(policies=True) as node:
        ours.install(node)
        namespace = node.namespace("elsewhere")
        for name in (STRANGER, FRIEND):
            container = {"name": name, "image": f"{ours.REPOSITORY}:{ours.TAG}", "command": LISTEN}
            pod = {"metadata": {"name": name, "labels": {"app.kubernetes.io/name": name}}}
            create(node, namespace, {**pod, "spec": {"containers": [container]}}).raise_for_status()
        node.wait_ready(namespace)
        yield Cluster(node)


class Cluster:
    """Who is there, and who reaches whom."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def pod(self, name: str) -> dict[str, Any]:
        namespace = "elsewhere" if name in (STRANGER, FRIEND) else ours.NAMESPACE
        return self.node.pods(namespace, f"app.kubernetes.io/name={name}")[0]

    def address(self, name: str) -> str:
        return self.pod(name)["status"]["podIP"]

    def reaches(self, name: str, address: str, port: int) -> bool:
        """Tell whether a pod of that name can open a connection."""
        metadata = self.pod(name)["metadata"]
        command = ("exec", metadata["name"], "--", PYTHON, "-c", CONNECT, address, str(port))
        try:
            self.node.kubectl("-n", metadata["namespace"], *command)
        except LabError as error:
            if "TimeoutError" in str(error) or "ConnectionRefusedError" in str(error):
                return False
            raise
        return True

    def reached(self, *asked: tuple[str, str, int]) -> set[tuple[str, str, int]]:
        """Return those of (from whom, to whom, port) that are let through."""
        return {each for each in asked if self.reaches(each[0], self.address(each[1]), each[2])}

    def set(self, **values: Any) -> None:
        """`helm upgrade` with these values of networkPolicy."""
        ours.upgrade(self.node, networkPolicy=values)

    def wait_barred(self) -> None:
        barred = (STRANGER, self.address(OPERATE), METRICS)
        wait_for(lambda: not self.reaches(*barred), 30, "the policies hold")


PORTS = ((SERVE, HTTPS), (SERVE, METRICS), (OPERATE, METRICS))
INGRESS = [(who, *port) for who in (STRANGER, FRIEND) for port in PORTS]
EGRESS = [(who, FRIEND, OTHER) for who in (SERVE, OPERATE)]


def test_without_a_policy_everybody_reaches_everybody(cluster: Cluster) -> None:
    assert cluster.reached(*INGRESS, *EGRESS, (OPERATE, SERVE, HTTPS)) == {*INGRESS, *EGRESS, (OPERATE, SERVE, HTTPS)}
    assert cluster.reaches(SERVE, API, 443)


def test_with_policies_only_who_is_named_gets_in_and_only_operate_out(cluster: Cluster) -> None:
    friend = {"ipBlock": {"cidr": f"{cluster.address(FRIEND)}/32"}}  # as an API server's would be named
    scrapes = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": FRIEND}}}
    server = {"ipBlock": {"cidr": f"{ADDRESS}/32"}}
    cluster.set(enabled=True, httpsFrom=[friend], metricsFrom=[scrapes], apiServer=[server])
    cluster.wait_barred()
    assert cluster.reached(*INGRESS) == {each for each in INGRESS if each[0] == FRIEND}
    assert cluster.reached(*EGRESS, (OPERATE, SERVE, HTTPS)) == {(OPERATE, SERVE, HTTPS)}
    for address, port in ((API, 443), (ADDRESS, 6443)):
        assert (cluster.reaches(OPERATE, address, port), cluster.reaches(SERVE, address, port)) == (True, False)
    assert not cluster.reaches(OPERATE, ADDRESS, 5000), "the registry's, on the same address"
    ensure_all_works(cluster)


def test_with_the_other_values_left_out_everybody_gets_in_and_only_operate_out(cluster: Cluster) -> None:
    cluster.set(enabled=True)
    wait_for(lambda: cluster.reached(*INGRESS) == {*INGRESS}, 30, "the policies have changed")
    assert cluster.reached(*EGRESS, (OPERATE, SERVE, HTTPS)) == {(OPERATE, SERVE, HTTPS)}
    assert (cluster.reaches(OPERATE, API, 443), cluster.reaches(SERVE, API, 443)) == (True, False)
    ensure_all_works(cluster)


def ensure_all_works(cluster: Cluster) -> None:
    """Pods are injected, and an `operate` that starts now takes over."""
    node = cluster.node
    before = node.failed_calls(WEBHOOK)
    namespace = node.namespace("made-under-a-policy", INJECT)
    assert injected(create(node, namespace, api_pod(), dry_run=True).raise_for_status().json())
    assert node.failed_calls(WEBHOOK) == before

    own = ("-n", ours.NAMESPACE)
    old = cluster.pod(OPERATE)["metadata"]["name"]
    node.kubectl(*own, "delete", "pod", old)
    node.kubectl(*own, "rollout", "status", f"deployment/{OPERATE}", "--timeout=60s")
    new = cluster.pod(OPERATE)["metadata"]["name"]
    assert new != old
    holder = ("get", "lease", OPERATE, "-o", "jsonpath={.spec.holderIdentity}")
    wait_for(lambda: node.kubectl(*own, *holder).startswith(new), 60, "the new operate has the Lease")
