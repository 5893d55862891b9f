"""The story on a control plane alone: what becomes of the pod, and what its container does by itself."""

from __future__ import annotations

import base64
import difflib
import json
import urllib.request
from contextlib import ExitStack
from typing import Any

from lab import images
from lab.broker import Broker
from lab.cache import LabError
from lab.container import Container
from lab.controlplane import CHART, ControlPlane
from lab.demo.screen import show, tell
from lab.process import free_port
from lab.redis import Redis
from lab.webhook import Webhook
from webhook.admission.injection import PROVENANCE, payload_said
from webhook.manifest import dump

RELEASE, NAMESPACE = "plane-app", "plane"


def story(stack: ExitStack) -> None:
    """Tell it; `stack` ends what was started."""
    tell("Starting a Kubernetes control plane (etcd, API server, controller manager), the webhook, RabbitMQ and Redis")
    broker, redis = stack.enter_context(Broker()), stack.enter_context(Redis())
    plane = stack.enter_context(ControlPlane())
    webhook = stack.enter_context(Webhook())
    show(f"API server {plane.url}, webhook {webhook.url}")

    tell("Installing a Plane-like release with Helm; the webhook is not registered yet")
    values = ("--set", f"amqpUrl={broker.url}", "--set", f"redisUrl={redis.url}", "--set", "shape=enterprise")
    plane.kubectl("create", "namespace", NAMESPACE)
    plane.helm("install", RELEASE, CHART, "--namespace", NAMESPACE, *values)
    before = _api_pod(plane)
    show(_readable(before))

    tell("Registering the webhook, opting the namespace in, restarting the API: the new pod, compared with the old one")
    plane.kubectl("apply", "--server-side", "-f", "-", input=webhook.registration())
    plane.kubectl("label", "namespace", NAMESPACE, "plane-webhook/inject=enabled")
    _wait_until_registered(plane)
    plane.kubectl("-n", NAMESPACE, "rollout", "restart", f"deployment/{RELEASE}-api-wl")
    after = _api_pod(plane, but_not=before)
    lines = difflib.unified_diff(_readable(before).splitlines(), _readable(after).splitlines(), lineterm="", n=1)
    show("\n".join(list(lines)[2:]))

    tell("Upgrading the release with Helm: nobody thinks of the webhook, the new pod has it all the same")
    plane.helm("upgrade", RELEASE, CHART, "--namespace", NAMESPACE, *values, "--set", "tag=v1.1.0")
    upgraded = _api_pod(plane, but_not=after)
    provenance = json.loads(upgraded["metadata"]["annotations"][PROVENANCE])
    show(f"{upgraded['spec']['containers'][0]['image']}: {json.dumps(provenance['containers'][0])}")
    in_manifest = "plane-webhook" in plane.helm("get", "manifest", RELEASE, "--namespace", NAMESPACE)
    show(f"`helm get manifest` knows of it: {'yes' if in_manifest else 'no'}")

    tell("Running the container of that pod, exactly as the API server has it, against RabbitMQ and Redis")
    port = free_port()
    image = images.build().with_env(PORT=str(port), BIND_HOST="127.0.0.1")
    container = stack.enter_context(
        Container.from_pod(
            upgraded, image=image, config_maps=_data(plane, "configmap"), secrets=_data(plane, "secret", decode=True)
        )
    )
    container.wait_ready(port)
    show("\n".join(line for line in container.stderr.splitlines() if line.startswith("plane-webhook:")))
    broker.purge()  # of what its entrypoint published
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/exports/", method="POST")
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own loopback URL
        show(f"POST /api/exports/ -> {response.status}; tasks in RabbitMQ: {broker.queue_depth()}")

    tell(f"kubectl exec {upgraded['metadata']['name']} -- /plane-webhook/proof")
    proof = container.exec(["/plane-webhook/proof"])
    report = json.loads(proof.stdout)
    for row in report["checks"]:
        show(f"{'ok ' if row['agrees'] else 'NO '} {row['what']}: {json.dumps(row['found'])}  ({row['how']})")
    show(f"in effect: {report['in_effect']}, exit code {proof.returncode}")
    if proof.returncode:
        raise LabError("the settings are not in effect")


def _api_pod(plane: ControlPlane, but_not: dict[str, Any] | None = None) -> dict[str, Any]:
    """The API's newest pod, once there is one that isn't `but_not` or older."""
    since = but_not["metadata"]["creationTimestamp"] if but_not else ""
    old = but_not["metadata"]["name"] if but_not else ""

    def newest() -> dict[str, Any] | None:
        plane.settle(NAMESPACE)
        pods = plane.pods(NAMESPACE, f"app.name={NAMESPACE}-{RELEASE}-api")
        fresh = [p for p in pods if p["metadata"]["creationTimestamp"] >= since and p["metadata"]["name"] != old]
        return fresh[-1] if fresh else None

    return plane.wait_for(newest, 30, "a new API pod")


def _wait_until_registered(plane: ControlPlane) -> None:
    """A registration acts a moment after it is applied; only the demo is so quick that it matters."""
    probe = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "probe", "namespace": NAMESPACE},
            "spec": {"containers": [{"name": "api", "image": "i", "command": ["./bin/docker-entrypoint-api.sh"]}]},
        }
    )

    def acts() -> bool:
        return PROVENANCE in plane.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", input=probe)

    plane.wait_for(acts, 30, "the registration acts")


def _readable(pod: dict[str, Any]) -> str:
    """What the chart and the webhook say of a pod; the API server's own defaults and long texts left out."""
    container = pod["spec"]["containers"][0]
    words = [f"<{said}>" if (said := payload_said(word)) else word for word in container["command"]]
    known = {key: container[key] for key in ("image", "envFrom", "env", "volumeMounts") if key in container}
    known["volumeMounts"] = [m for m in known.get("volumeMounts", []) if not m["name"].startswith("kube-api-access")]
    volumes = [v for v in pod["spec"].get("volumes", []) if not v["name"].startswith("kube-api-access")]
    annotations = {k: v for k, v in pod["metadata"].get("annotations", {}).items() if k == PROVENANCE}
    return dump(
        {
            "metadata": {"annotations": annotations},
            "spec": {"containers": [{"command": words, **known}], "volumes": volumes},
        }
    )


def _data(plane: ControlPlane, kind: str, *, decode: bool = False) -> dict[str, dict[str, str]]:
    """ConfigMaps or Secrets of the namespace, by name, as plain text."""
    items = json.loads(plane.kubectl("-n", NAMESPACE, "get", kind, "-o", "json"))["items"]
    plain = (lambda text: base64.b64decode(text).decode()) if decode else str
    return {
        item["metadata"]["name"]: {
            key: plain(text) for key, text in (item.get("data") or {}).items() if "helm" not in item.get("type", "")
        }
        for item in items
    }
