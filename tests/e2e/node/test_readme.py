"""README's commands, read out of it and run by a shell as an operator would, in a clone of this repository.

Two are not: `docker build` and `docker push`, for there is no container engine. The same Dockerfile is built by buildah
(lab/ourimage.py), and the node's registry has the image. The alias for `docker run` is this tree's command.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from lab import ourimage
from lab.node import is_ready
from lab.node import webhook as ours
from lab.node.plane import INJECTED
from lab.pods import SHORT
from lab.process import wait_for
from tests import pages

if TYPE_CHECKING:
    from pathlib import Path

    from lab.node import Node
    from lab.node.plane import Release

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

REGISTRY = "registry.example.com"


def commands(heading: str) -> list[str]:
    return pages.commands("README.md", heading)


class Clone:
    """A clone of this repository, as far as README's commands need one."""

    def __init__(self, node: Node, folder: Path) -> None:
        self._node = node
        self.manifests = folder / "manifests"
        shutil.copytree(ourimage.REPOSITORY / "manifests", self.manifests)
        node.registry.add("plane-webhook:0.1.0", ourimage.image())

    def run(self, line: str) -> str:
        """Return what a line of README printed, run by bash in the clone. It must exit 0."""
        return pages.run(self._node, line.replace("REGISTRY", REGISTRY), self.manifests.parent)


@pytest.fixture
def clone(release: Release, tmp_path: Path) -> Clone:
    return Clone(release.node, tmp_path)


def wait_until_injected(release: Release, wanted: dict[str, str]) -> None:
    """Wait until the pods that publish are ready, and each has just that annotation."""

    def all_are() -> bool:
        found = {workload: release.pods(workload) for workload in INJECTED}
        said = {
            workload: pods[0]["metadata"].get("annotations", {}).get(SHORT)
            for workload, pods in found.items()
            if len(pods) == 1 and is_ready(pods[0])
        }
        return said == {workload: wanted.get(workload) for workload in INJECTED}

    wait_for(all_are, 150, f"the pods are ready, and injected: {wanted}")


def test_check_that_it_works(release: Release, clone: Clone) -> None:
    doctor, pods, logs, proof, own, metrics = commands("Check that it works")
    clone.run(doctor)
    table, said = clone.run(pods), clone.run(logs)
    for workload, kind in INJECTED.items():
        name = release.pod(workload)["metadata"]["name"]
        assert re.search(rf"^{name} +{kind}$", table, re.MULTILINE)
        assert re.search(rf"^\[pod/{name}/.*in effect", said, re.MULTILINE)
    assert json.loads(clone.run(proof))["in_effect"]
    assert len({line.split()[0] for line in clone.run(own).splitlines()}) == 2, "both replicas"
    assert "admission_duration_seconds_count" in clone.run(metrics)


def test_remove_it_then_install_it_by_kustomize_and_by_helm_again(release: Release, clone: Clone) -> None:
    unlabel, restart, uninstall, gone, delete, by_name, rights = commands("Remove it")
    install, rolled, tested, label, restart_again = commands("With Helm")
    (apply,) = re.findall(r"`(kubectl apply [^`]*)`", pages.section("README.md", "With kustomize"))
    assert restart.split("#")[0].strip() == restart_again.split("#")[0].strip()

    for line in (unlabel, restart, uninstall):
        clone.run(line)
    wait_until_injected(release, {})
    kinds = "secrets,configmaps,leases,serviceaccounts,deployments,roles,rolebindings,services"
    left = clone.run(f"kubectl -n {ours.NAMESPACE} get {kinds} -o name").split()
    named = {word.replace("lease/", "lease.coordination.k8s.io/") for word in by_name.split() if "/" in word}
    kubernetes = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
    assert set(left) - kubernetes <= named, "as README says"
    assert {"secret/plane-webhook-tls", "configmap/plane-webhook-state"} <= set(left)
    for line in (by_name, rights):
        clone.run(line)
    assert set(clone.run(f"kubectl -n {ours.NAMESPACE} get {kinds} -o name").split()) == kubernetes
    clone.run(gone)

    file = clone.manifests / "operate/kustomization.yaml"
    file.write_text(file.read_text().replace("newTag", f"newName: {REGISTRY}/plane-webhook\n    newTag"))
    clone.run(apply)
    clone.run(rolled)
    ours.wait_installed(release.node)
    for line in (label, restart):
        clone.run(line)
    wait_until_injected(release, INJECTED)
    for line in (unlabel, delete):
        clone.run(line)
    assert "plane-webhook" not in clone.run("kubectl get namespaces,mutatingwebhookconfigurations,clusterroles -o name")

    for line in (install, rolled, tested, label, restart):
        clone.run(line)
    wait_until_injected(release, INJECTED)
