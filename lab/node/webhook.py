"""plane-webhook on the node as an operator has it: the image of this tree, manifests/chart, `helm install`."""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
from typing import TYPE_CHECKING, Any

from lab import ourimage
from lab.process import wait_for

if TYPE_CHECKING:
    from lab.node import Node

CHART = ourimage.REPOSITORY / "manifests/chart"
NAMESPACE = "plane-webhook"
LABEL = "plane-webhook/inject=enabled"  # what opts a namespace in
REPOSITORY, TAG = "lab/plane-webhook", "0.1.0"
SECRET = "plane-webhook-tls"
READY = 90.0  # seconds; about 20 alone on two cores: the certificate is made meanwhile


def pull(node: Node) -> None:
    """Have the node fetch the image before it is needed, by a pod that ends at once. Returns at once too."""
    node.registry.add(f"{REPOSITORY}:{TAG}", ourimage.image())
    container = {"name": "pull", "image": f"{REPOSITORY}:{TAG}"}
    pod = {"metadata": {"name": "pull"}, "spec": {"containers": [container], "restartPolicy": "Never"}}
    node.api.post("/api/v1/namespaces/default/pods", json=pod).raise_for_status()


def install(node: Node) -> None:
    """Install it as README says, and wait until it injects: `operate` makes the certificate first."""
    node.registry.add(f"{REPOSITORY}:{TAG}", ourimage.image())
    _helm(node, "install", "--create-namespace")
    wait_installed(node)


def upgrade(node: Node, **values: Any) -> None:
    """`helm upgrade` it to these values alone. Returns when Helm does."""
    _helm(node, "upgrade", **values)


def _helm(node: Node, *words: str, **values: Any) -> None:
    values["image"] = {"repository": REPOSITORY, "tag": TAG}
    node.helm(*words, "plane-webhook", CHART, "--namespace", NAMESPACE, "--values", "-", input=json.dumps(values))


def wait_installed(node: Node) -> None:
    """Wait until both Deployments are ready and the registration is filled in."""
    for deployment in ("plane-webhook-operate", "plane-webhook"):
        node.kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{deployment}", f"--timeout={READY:g}s")
    bundle = "jsonpath={.webhooks[0].clientConfig.caBundle}"
    asked = ("get", "mutatingwebhookconfiguration", "plane-webhook", "-o", bundle)
    wait_for(lambda: node.kubectl(*asked), READY, "operate fills in the registration")


def replicas(node: Node) -> list[dict[str, Any]]:
    """Return the pods of the webhook that are not being deleted."""
    return node.pods(NAMESPACE, "app.kubernetes.io/name=plane-webhook")


def kill(node: Node, *pods: dict[str, Any]) -> None:
    """Kill the containers of some replicas, and wait until they are there anew and ready."""
    for pid in [node.pid_1(pod) for pod in pods]:
        os.kill(pid, signal.SIGKILL)
    counts = {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}

    def back() -> bool:
        now = {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0] for pod in replicas(node)}
        return all(now[uid]["restartCount"] > count and now[uid]["ready"] for uid, count in counts.items())

    wait_for(back, READY, "the killed replicas are ready again")


def certificate(node: Node) -> bytes:
    """Return what the Secret has, as DER; nothing where there is none."""
    words = ("get", "secret", SECRET, "--ignore-not-found", "-o", r"jsonpath={.data.tls\.crt}")
    pem = base64.b64decode(node.kubectl("-n", NAMESPACE, *words)).decode()
    return ssl.PEM_cert_to_DER_cert(pem[: pem.index("-----END") + len(ssl.PEM_FOOTER)]) if pem else b""


def served(port: int) -> bytes:
    """Return what a replica shows at a port of this machine that leads to its own, as DER."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=5))
