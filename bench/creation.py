"""`python -m bench.creation`: what the creation of a pod costs with us, at the real API server.

The same pod of Plane's enterprise API is posted again and again, as a dry run, where nothing is registered for it,
where the registration's condition excludes it, and one that is just `false`, where the webhook injects it, where a
server gives the same answer without a look at it, and where a MutatingAdmissionPolicy in the API server makes the same
of it; and, to compare, where a policy leaves the files to an image volume. Blocks of each come in an order drawn anew
in each round, so that whatever else the machine does meets all of them. CPU is the API server's process's; the size is
that of the stored object as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bench.peers import pod
from lab.cache import LabError, say
from lab.controlplane import ControlPlane
from lab.process import Process, cpu_seconds, exit_on_sigterm, free_port, wait_for
from lab.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INJECT = {"plane-webhook/inject": "enabled"}
POLICY = "plane-webhook-bench"
FLOOR = "plane-webhook-floor"
NEVER = "plane-webhook-never"
# What an image volume would be, in place of the packed files: docs/explanation/delivery.md.
IMAGE = {
    "name": "plane-webhook-files",
    "image": {"reference": "registry.example/plane-webhook@sha256:" + "0" * 64, "pullPolicy": "IfNotPresent"},
}
WAYS: dict[str, tuple[str, Mapping[str, str]]] = {
    "plain": ("nothing is registered for it", {}),
    "excluded": ("the registration's condition excludes it", INJECT),
    "never": ("a condition that looks at nothing excludes it", {NEVER: "enabled"}),
    "injected": ("injected by the webhook", INJECT),
    "floor": ("the same by a server that has this one answer", {FLOOR: "enabled"}),
    "policy": ("the same by a MutatingAdmissionPolicy", {POLICY: "enabled"}),
    "image": ("by a policy, the files in an image volume", {POLICY: "image"}),
}


@dataclass
class Found:
    """What was measured of one way: seconds of each POST, seconds of CPU a POST of each block, bytes stored."""

    posts: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    stored: int = 0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.creation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--posts", type=int, default=20, help="in a block")
    given = parser.parse_args()
    exit_on_sigterm()
    try:
        with ControlPlane() as plane, Webhook() as webhook, floor(webhook) as url:
            for way, (_, labels) in WAYS.items():
                plane.namespace(way, dict(labels))
            plane.kubectl("apply", "--server-side", "-f", "-", input=webhook.registration())
            never = [{"name": "never", "expression": "false"}]
            plane.apply(registered(webhook, url, FLOOR), registered(webhook, url, NEVER, matchConditions=never))
            plane.apply(*policy("enabled"), *policy("image", packed=False))
            wait_for(lambda: ready(plane), 60, "the API server calls the webhook and the policy")
            found = measured(plane, given.rounds, given.posts)
    except LabError as error:
        say(str(error))
        return 2
    print("\n".join(table(found)))
    return 0


@contextlib.contextmanager
def floor(webhook: Webhook) -> Iterator[str]:
    """Run the server that has one answer, with the webhook's certificate; its URL."""
    answer, port = webhook.folder / "answer.json", free_port()
    answer.write_bytes(pod.ours(pod.pod()))
    tls = (webhook.cert_dir / "tls.crt", webhook.cert_dir / "tls.key")
    words = [sys.executable, "-m", "bench.peers.floor", answer, *tls, str(port), "echo"]
    process = Process(words, log=webhook.folder / "floor.log", cwd=Path(__file__).parents[1])
    try:
        yield f"https://127.0.0.1:{port}/mutate"
    finally:
        process.kill()


def registered(webhook: Webhook, url: str, name: str, **other: Any) -> dict[str, Any]:
    """The webhook's registration under another name, for this URL and namespaces of its own, with `other` fields."""
    registration: dict[str, Any] = yaml.safe_load(webhook.registration())
    registration["metadata"]["name"] = name
    (hook,) = registration["webhooks"]
    hook["clientConfig"]["url"] = url
    hook |= {"namespaceSelector": {"matchLabels": {name: "enabled"}}, **other}
    return registration


def body(way: str) -> dict[str, Any]:
    """The pod as a ReplicaSet would post it."""
    made = copy.deepcopy(pod.pod())
    del made["metadata"]["namespace"], made["metadata"]["ownerReferences"], made["spec"]["serviceAccountName"]
    del made["spec"]["volumes"], made["spec"]["containers"][0]["volumeMounts"], made["status"]
    if way in ("excluded", "never"):
        made["spec"]["containers"][0] |= {"command": ["sleep", "60"], "image": "registry.example/web:1"}
    return made


def post(plane: ControlPlane, way: str, *, dry_run: bool = True) -> dict[str, Any]:
    """Create it; returns it as it was created."""
    answer = plane.api.post(
        f"/api/v1/namespaces/{way}/pods", params={"dryRun": "All"} if dry_run else {}, json=body(way)
    )
    if not answer.is_success:
        raise LabError(f"{way}: the API server answers {answer.status_code}: {answer.text[:500]}")
    created: dict[str, Any] = answer.json()
    return created


def ready(plane: ControlPlane) -> bool:
    """Tell whether all change the pod, webhook and policy in the same way."""

    def changed(way: str) -> list[Any]:
        made = post(plane, way)
        (container,) = made["spec"]["containers"]
        return [container["command"], container["env"], made["metadata"]["annotations"]]

    same = changed("injected") == changed("floor") == changed("policy")
    return same and changed("plain") not in (changed("injected"), changed("image"))


def measured(plane: ControlPlane, rounds: int, posts: int) -> dict[str, Found]:
    """All ways, in rounds."""
    found = {way: Found() for way in WAYS}
    for _ in range(rounds):
        for way in random.sample(list(WAYS), len(WAYS)):
            before = cpu_seconds(plane.apiserver.pid)
            for _ in range(posts):
                begun = time.perf_counter()
                post(plane, way)
                found[way].posts.append(time.perf_counter() - begun)
            found[way].cpu.append((cpu_seconds(plane.apiserver.pid) - before) / posts)
    for way, each in found.items():
        stored = post(plane, way, dry_run=False)
        del stored["metadata"]["managedFields"]
        each.stored = len(json.dumps(stored, separators=(",", ":")))
    return found


def policy(label: str, *, packed: bool = True) -> list[dict[str, Any]]:
    """The policy that makes of this pod what the webhook does, and its binding to namespaces with this label.

    Not `packed`: the word with the files names the volume's mount in their place.
    """
    new = pod.additions(pod.pod())
    mounts, volumes = [new["mount"]], [new["volume"]]
    if not packed:
        mounts.append({"name": IMAGE["name"], "mountPath": "/plane-webhook-files", "readOnly": True})
        volumes.append(IMAGE)
        new["prefix"][-1] = mounts[-1]["mountPath"]
    container = "/spec/containers/0"
    changes = [f'{{op: "add", path: "{container}/env/-", value: {cel(each)}}}' for each in new["env"]]
    changes += [
        f'{{op: "add", path: "/metadata/annotations/{key.replace("/", "~1")}", value: {cel(value)}}}'
        for key, value in new["annotations"].items()
    ]
    command = f"{cel(new['prefix'])} + object.spec.containers[0].command"
    changes.append(f'{{op: "replace", path: "{container}/command", value: {command}}}')
    changes += [f'{{op: "add", path: "{container}/volumeMounts/-", value: {cel(each)}}}' for each in mounts]
    changes += [f'{{op: "add", path: "/spec/volumes/-", value: {cel(each)}}}' for each in volumes]
    expression = f"[{', '.join(f'JSONPatch{change}' for change in changes)}]"
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    name = f"{POLICY}-{label}"
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    return [
        {
            **kind,
            "kind": "MutatingAdmissionPolicy",
            "spec": {
                "matchConstraints": {"resourceRules": [pods]},
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
            },
        },
        {
            **kind,
            "kind": "MutatingAdmissionPolicyBinding",
            "spec": {
                "policyName": name,
                "matchResources": {"namespaceSelector": {"matchLabels": {POLICY: label}}},
            },
        },
    ]


def cel(value: object) -> str:
    """A JSON value as an expression; CEL's strings are written like JSON's, and values of a map are of one type."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: dyn({cel(each)})" for key, each in value.items()) + "}"
    return json.dumps(value)


def table(found: dict[str, Found]) -> list[str]:
    """Lines of Markdown."""
    base = found["plain"]
    lines = ["| | p50, ms | p99, ms | added p50 | API server's CPU, ms | of plain | stored, bytes |", "|-|-|-|-|-|-|-|"]
    for way, each in found.items():
        p50, p99 = statistics.median(each.posts), statistics.quantiles(each.posts, n=100)[98]
        cpu = statistics.mean(each.cpu)
        added = p50 - statistics.median(base.posts)
        lines.append(
            f"| {WAYS[way][0]} | {p50 * 1000:.1f} | {p99 * 1000:.1f} | {added * 1000:+.1f} | {cpu * 1000:.1f} |"
            f" {cpu / statistics.mean(base.cpu):.1f} x | {each.stored:,} |"
        )
    lines.append(f"\n{len(base.posts)} dry-run POSTs of each, in blocks")
    return lines


if __name__ == "__main__":
    sys.exit(main())
