"""A Plane-like release on the node: lab/chart with images that run, against a broker, a Redis and a database here."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import httpx

from lab.cache import LabError
from lab.container import Shell
from lab.controlplane import CHART
from lab.node import ADDRESS, images
from lab.process import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.broker import Broker
    from lab.images import Image
    from lab.node import Node
    from lab.postgres import Postgres
    from lab.redis import Redis

API, WORKER, IMPORTER, BEAT = "api", "worker", "worker-importers", "beat-worker"
INJECTED = {API: "api", WORKER: "worker", IMPORTER: "worker", BEAT: "beat"}
# Of the chart's values. Upstream's would have who watches wait for Python to start: half a core, a look every 10 s.
QUICK = {"cpuLimit": "2", "readinessPeriod": 1}
SERVICE = "10.96.0.100"  # of SERVICES, where nobody else's are by default


@dataclass
class Release:
    """The release in its namespace. Its images' tags are the shells that they have as /bin/sh."""

    node: Node
    namespace: str
    broker: Broker
    redis: Redis
    postgres: Postgres
    name = "plane-app"

    def prepare(self, image: Image) -> None:
        """Have the node's registry and network ready for it, and a Service in front of its API."""
        for shell in get_args(Shell):
            self.node.registry.add(f"makeplane/plane-backend:{shell}", images.plane(image, shell))
            for other in ("plane-frontend", "plane-pi-commercial"):
                self.node.registry.add(f"makeplane/{other}:{shell}", images.standin())
        for server in (self.broker, self.redis, self.postgres):
            self.node.expose(server.port)
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "api"},
            "spec": {
                "clusterIP": SERVICE,
                "selector": {"app.name": self.label(API)},
                "ports": [{"port": 80, "targetPort": 8000}],
            },
        }
        self.node.api.post(f"/api/v1/namespaces/{self.namespace}/services", json=service).raise_for_status()
        url = f"http://127.0.0.1:{self.node.forward((SERVICE, 80))}"
        # Each request finds its pod anew: a kept connection ends with the pod that it led to.
        self.http = httpx.Client(base_url=url, timeout=30, limits=httpx.Limits(max_keepalive_connections=0))

    def upgrade(self, shell: Shell, *, wait: bool = True, **settings: Any) -> None:
        """`helm upgrade --install` it to the image with that shell, and wait until all of it is ready."""
        inside = {
            name: server.url.replace("127.0.0.1", ADDRESS)
            for name, server in (("amqpUrl", self.broker), ("redisUrl", self.redis), ("database", self.postgres))
        }
        values = {
            "tag": shell,
            "externalApi": False,
            "extraEnv": [{"name": "DATABASE_URL", "value": inside.pop("database")}],
            **inside,
            **settings,
        }
        words = ("upgrade", "--install", self.name, CHART, "--namespace", self.namespace, "--values", "-")
        self.node.helm(*words, *(["--wait", "--timeout", "110s"] if wait else []), input=json.dumps(values))

    def deployment(self, workload: str) -> str:
        return f"{self.name}-{workload}-wl"

    def label(self, workload: str) -> str:
        return f"{self.namespace}-{self.name}-{workload}"

    def pods(self, workload: str) -> list[dict[str, Any]]:
        """Return the workload's pods that are not being deleted."""
        return self.node.pods(self.namespace, f"app.name={self.label(workload)}")

    def pod(self, workload: str) -> dict[str, Any]:
        """Return the workload's only pod."""
        (found,) = self.pods(workload)
        return found

    def wait_ready(self, *workloads: str, timeout: float = 60) -> None:
        """Wait until the workloads' pods are ready."""
        labels = ", ".join(map(self.label, workloads))
        self.node.wait_ready(self.namespace, f"app.name in ({labels})", timeout=timeout)

    def kubectl(self, *words: str) -> str:
        """Return what kubectl printed, in the release's namespace."""
        return self.node.kubectl("-n", self.namespace, *words)

    def logs(self, pod: dict[str, Any], *words: str) -> str:
        return self.kubectl("logs", pod["metadata"]["name"], *words)

    def execute(self, pod: dict[str, Any], *words: str) -> str:
        """`kubectl exec` it. LabError unless it exits 0."""
        return self.kubectl("exec", pod["metadata"]["name"], "--", *words)

    def export(self) -> str:
        """Ask for an export as a browser does; return its id. httpx.HTTPStatusError where Plane says no."""
        answer = self.http.post("/api/exports/").raise_for_status()
        return answer.json()["id"]

    def status(self, export: str) -> str:
        """Return what a user sees of an export."""
        return self.http.get(f"/api/exports/{export}/").raise_for_status().json()["status"]

    def wait_completed(self, exports: Sequence[str], timeout: float = 60) -> None:
        """Wait until a user sees each export as done. LabError says how many are not."""
        left = set(exports)

        def none_left() -> bool:
            with suppress(httpx.TransportError):  # while its pods are replaced a Service may lead nowhere
                left.difference_update([each for each in left if self.status(each) == "completed"])
            return not left

        try:
            wait_for(none_left, timeout, "exports arrive")
        except LabError as error:
            raise LabError(f"{len(left)} of {len(exports)} exports: {error}") from None
