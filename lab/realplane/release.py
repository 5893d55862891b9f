"""A release of the real Plane, running: its own PostgreSQL, Redis, storage and containers, on a broker that is shared.

Between each workload and the broker stands a proxy that makes faults. The containers are those of the chart's pods, or
of what somebody's `inject` makes of them. The checkout is copied for each container, which may write to its /code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cache
from lab.cache import LabError
from lab.container import Container
from lab.faults import Proxy
from lab.postgres import Postgres
from lab.process import Startable, free_port
from lab.realplane.pod import config_maps, pod, secrets
from lab.realplane.storage import Storage
from lab.redis import Redis

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.broker import Broker
    from lab.images import Image
    from lab.kubelet import Json
    from lab.realplane.pod import Workload

SEED = Path(__file__).with_name("seed.py")
EMAIL, PASSWORD = "owner@example.com", "For-the-lab-1!"
WORKSPACE = "lab"
# Seconds. The migrations take 200 of a core; the API's entrypoint runs manage.py seven times, one of which asks
# another host for the newest version and waits up to 10 for it.
MIGRATE, READY = 1200.0, 600.0


@dataclass(frozen=True)
class Seed:
    """The ids of what `seed.py` made."""

    member: str
    project: str
    token: str


class Release(Startable):
    """A release with its API. `run` starts its other workloads. `with` ends and removes all of it."""

    def __init__(self, name: str, image: Image, broker: Broker, *, inject: Callable[[Json], Json]) -> None:
        """Prepare one. The broker must have a vhost of its name."""
        self.name, self.image, self.broker, self.inject = name, image, broker, inject
        self.port = free_port()
        self.postgres, self.redis, self.storage = Postgres(), Redis(), Storage()
        self.proxies: dict[Workload, Proxy] = {
            "api": Proxy(broker.port),
            "worker": Proxy(broker.port),
            "beat": Proxy(broker.port),
        }
        self._folder = Path(tempfile.mkdtemp(prefix="plane-webhook-realplane-"))
        self._exit = ExitStack()

    def start(self) -> None:
        """Start it and return when its API answers and has somebody to answer to."""
        for part in (self.postgres, self.redis, self.storage, *self.proxies.values()):
            self._exit.enter_context(part)
        self.postgres.load(migrated(self.image))
        self.api = self.run("api")
        self.api.wait_ready(self.port, timeout=READY)
        ran = self.api.exec(["python", "manage.py", "shell"], stdin=SEED.read_text(), timeout=READY)
        try:
            self.seed = Seed(**json.loads(ran.stdout.splitlines()[-1]))
        except (IndexError, ValueError, TypeError):
            raise LabError(f"the real Plane could not be filled:\n{ran.stdout}{ran.stderr}") from None

    def close(self) -> None:
        """End all of it and remove what it left."""
        self._exit.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def container(self) -> Container:
        """The API's."""
        return self.api

    def replace(self) -> None:
        """End its API's pod and start another one."""
        self.api.terminate()
        self.api = self.run("api")

    def run(self, workload: Workload) -> Container:
        """Start a workload's container. It ends with the release, if nobody ends it before."""
        stored = self.inject(pod(workload, self.name))
        amqp = f"amqp://guest:guest@127.0.0.1:{self.proxies[workload].port}/{self.name}"
        container = _container(stored, self, Path(tempfile.mkdtemp(dir=self._folder)) / "api", amqp)
        return self._exit.enter_context(container)


def migrated(image: Image) -> Path:
    """Return a dump of an empty Plane's database, made by the checkout's migrator if need be."""
    scripts = sorted(image.code.glob("plane/**/migrations/*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in scripts)).hexdigest()[:12]
    path = cache.folder("realplane", f"database-{digest}") / "dump.sql"
    return cache.made(
        path, lambda made: _migrate(image, made), what="an empty Plane's database", takes="about 3 minutes"
    )


def _migrate(image: Image, path: Path) -> None:
    with Postgres() as postgres, Redis() as redis, tempfile.TemporaryDirectory(prefix="plane-webhook-code-") as code:
        stands = {"database": postgres.url, "redis": redis.url, "amqp": "amqp://nobody", "storage": "http://nobody"}
        with Container.from_pod(
            pod("migrator", "migrate"),
            image=image,
            config_maps=config_maps(0),
            secrets=secrets(**stands),
            binds={image.workdir: _copied(image.code, Path(code) / "api")},
        ) as migrator:
            if migrator.wait(MIGRATE) != 0:
                raise LabError(f"the real Plane's migrator failed:\n{migrator.process.tail()}")
        postgres.dump(path)


def _container(stored: Json, release: Release, code: Path, amqp: str) -> Container:
    return Container.from_pod(
        stored,
        image=release.image,
        config_maps=config_maps(release.port),
        secrets=secrets(database=release.postgres.url, redis=release.redis.url, amqp=amqp, storage=release.storage.url),
        binds={release.image.workdir: _copied(release.image.code, code)},
    )


def _copied(code: Path, path: Path) -> Path:
    """Copy a checkout's API to where a container may write to it."""
    return Path(shutil.copytree(code, path))
