"""A cluster of RabbitMQ nodes on one machine: they have an epmd of their own, a cookie and different names."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.broker import Broker
from lab.process import Startable, free_port
from lab.sandbox import Sandboxed

NODES = 3  # the fewest of which one can be lost
EPMD = "/usr/bin/epmd"


class Cluster(Startable):
    """Three nodes of one kind (see rabbitmq.py). Each may be killed and started while the others run."""

    def __init__(self, kind: str | None = None) -> None:
        """Prepare it. LabError if that kind can't be had."""
        self._port, cookie = free_port(), secrets.token_hex(16)
        names = [f"lab{number}@localhost" for number in range(1, NODES + 1)]
        together = {f"cluster_formation.classic_config.nodes.{n}": name for n, name in enumerate(names, 1)}
        together["cluster_formation.peer_discovery_backend"] = "classic_config"
        self.nodes = [Broker(together, kind=kind, node=name, epmd=self._port, cookie=cookie) for name in names]
        self._folder = Path(tempfile.mkdtemp(prefix="plane-webhook-epmd-"))
        self._epmd: Sandboxed | None = None

    def start(self) -> None:
        """Start all and return when they have found each other and take connections."""
        log = self._folder / "epmd.log"
        # A node would start one in its own namespace, and take it along when it is killed.
        self._epmd = Sandboxed(
            "epmd",
            self.nodes[0].installation.options(self._folder),
            [EPMD, "-port", str(self._port), "-address", "127.0.0.1"],
            stdout=log,
            stderr=log,
        )
        with ThreadPoolExecutor(NODES) as pool:  # the first waits for the others
            list(pool.map(Broker.start, self.nodes))

    def close(self) -> None:
        """Kill all and remove their data."""
        for node in self.nodes:
            node.close()
        if self._epmd is not None:
            self._epmd.stop(0)
        shutil.rmtree(self._folder, ignore_errors=True)
