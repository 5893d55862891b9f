"""`python -m bench.healing`: bad pods evicted one by one beside a rollout restart, on a real control plane.

A Deployment without a strategy or budget of its own, as Plane's chart has it; a pod is ready some seconds after it was
made, which is said in a kubelet's place. Counted are the seconds in which fewer pods were ready than there should be,
and in which none was; and what of the Deployment was written.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from lab.cache import LabError, say
from lab.controlplane import ControlPlane
from lab.process import exit_on_sigterm, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

STARTS = 10.0  # seconds from a pod's creation to its being ready; Plane's API takes longer
TICK = 0.1


def main() -> int:
    """Measure and print."""
    exit_on_sigterm()
    try:
        with ControlPlane() as plane:
            print("| replicas | way | over after | fewer ready | none ready | pods made | written to the Deployment |")
            print("|-|-|-|-|-|-|-|")
            for replicas in (1, 3):
                for name, way in (("evicted, one bad", evict), ("rollout restart", restart)):
                    print(measured(plane, replicas, name, way))
    except LabError as error:
        say(str(error))
        return 2
    return 0


def measured(plane: ControlPlane, replicas: int, name: str, way: Callable[[ControlPlane, str], None]) -> str:
    """One row."""
    namespace = plane.namespace(f"{way.__name__}-{replicas}")
    plane.apply(deployment(namespace, replicas))
    wait_for(lambda: len(plane.pods(namespace)) == replicas, 30, "its pods")
    plane.settle(namespace)
    wait_for(lambda: status(plane, namespace).get("readyReplicas") == replicas, 30, "they are ready")
    before = written(plane, namespace)
    old = {each["metadata"]["uid"] for each in plane.pods(namespace)}
    seen = dict.fromkeys(old, -STARTS)
    way(plane, namespace)
    began = last = time.monotonic()
    fewer = none = over = 0.0
    while time.monotonic() - began < STARTS * (replicas + 2) and not over:
        now = time.monotonic()
        pods = plane.pods(namespace)
        for pod in pods:
            if now - seen.setdefault(pod["metadata"]["uid"], now) >= STARTS:
                make_ready(plane, pod)
        ready = sum(now - seen[pod["metadata"]["uid"]] >= STARTS for pod in pods)
        fewer += (now - last) * (ready < replicas)
        none += (now - last) * (ready == 0)
        last = now
        found = status(plane, namespace)
        settled = found.get("updatedReplicas") == found.get("readyReplicas") == found.get("replicas") == replicas
        if settled and ready == replicas == len(pods) and {each["metadata"]["uid"] for each in pods} != old:
            over = now - began
        time.sleep(TICK)
    changed = ", ".join(sorted(written(plane, namespace) ^ before)) or "nothing"
    made = len(seen.keys() - old)
    return f"| {replicas} | {name} | {over:.1f} s | {fewer:.1f} s | {none:.1f} s | {made} | {changed} |"


def evict(plane: ControlPlane, namespace: str) -> None:
    """As `operate` does with one pod that slipped by; with more of them it goes on when all are ready again."""
    name = plane.pods(namespace)[0]["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    plane.api.post(f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", json=body).raise_for_status()


def restart(plane: ControlPlane, namespace: str) -> None:
    """By kubectl."""
    plane.kubectl("-n", namespace, "rollout", "restart", "deployment/api")


def deployment(namespace: str, replicas: int) -> dict[str, Any]:
    """What is restarted."""
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "api", "image": "x"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "api", "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    }


def make_ready(plane: ControlPlane, pod: dict[str, Any]) -> None:
    """Say so in a kubelet's place; it may be gone."""
    conditions = pod["status"].get("conditions", [])
    if not any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
        plane.api.patch(
            f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/status",
            json={"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}},
            headers={"content-type": "application/strategic-merge-patch+json"},
        )


def status(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    """The Deployment's."""
    found: dict[str, Any] = plane.api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/api").json()
    return found["status"]


def written(plane: ControlPlane, namespace: str) -> set[str]:
    """What a GitOps tool can see of it: who manages its fields, how often it was changed, and the template's notes."""
    found = plane.api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/api").json()
    metadata = found["metadata"]
    managers = {f"manager {each['manager']}" for each in metadata["managedFields"] if "subresource" not in each}
    notes = found["spec"]["template"]["metadata"].get("annotations", {})
    return managers | {f"generation {metadata['generation']}"} | {f"annotation {name}" for name in notes}


if __name__ == "__main__":
    sys.exit(main())
