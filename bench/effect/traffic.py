"""What people do to Plane's API while its broker is in trouble, and what of it holds them up.

Exporters ask one after the other, as people at a browser do. API-token reads and reads that publish nothing come at a
fixed rate, whatever became of the ones before: a load that waits for answers would spare an API that gives none.
This module only asks and notes; what it means is for figures.py.
"""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from bench.effect.stack import token

if TYPE_CHECKING:
    from bench.effect.stack import Stack

Kind = Literal["export", "token", "other"]
PATIENCE = 90.0  # seconds: thrice what the slowest answer of anybody was
THINKING = 0.3  # seconds between an exporter's requests
OTHERS = 10.0  # reads a second that publish nothing
SAMPLES = 0.5  # seconds between two looks at what is held

ASKS: dict[Kind, tuple[str, str]] = {
    "export": ("POST", "/api/exports/?id={}"),
    "token": ("GET", "/api/v1/projects/"),
    "other": ("GET", "/api/users/me/"),
}


@dataclass(frozen=True)
class Asked:
    """One request, by the monotonic clock. `status` 0: no answer, the connection was refused or broke."""

    kind: Kind
    token: str
    status: int
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long the answer took."""
        return self.ended - self.began


@dataclass
class Traffic:
    """The load on one stack, and what it holds. Use it as a context manager; leaving it waits for every answer."""

    stack: Stack
    exporters: int
    rate: float  # API-token reads a second
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0  # of PostgreSQL, the most that were seen
    threads: int = 0  # of gunicorn's worker, the most that were seen
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._start(self._sample)
        for _ in range(self.exporters):
            self._start(self._export)
        for kind, rate in (("token", self.rate), ("other", OTHERS)):
            if rate:
                self._start(self._at_a_rate, kind, rate)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:  # those that it starts meanwhile are in it before they run
            thread.join()

    def _start(self, deed: object, *arguments: object) -> None:
        thread = threading.Thread(target=deed, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _export(self) -> None:
        while not self._over.is_set():
            self._ask("export")
            self._over.wait(THINKING)

    def _at_a_rate(self, kind: Kind, rate: float) -> None:
        due = time.monotonic()
        while not self._over.wait(max(due - time.monotonic(), 0)):
            self._start(self._ask, kind)
            due += 1 / rate

    def _ask(self, kind: Kind) -> None:
        name, began, status = token(), time.monotonic(), 0
        method, path = ASKS[kind]
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.port, timeout=PATIENCE)
        try:
            connection.request(method, path.format(name), headers={"X-Api-Key": name} if kind == "token" else {})
            response = connection.getresponse()
            response.read()
            status = response.status
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        self.asked.append(Asked(kind, name, status, began, time.monotonic()))

    def _sample(self) -> None:
        while not self._over.wait(SAMPLES):
            if self.stack.postgres:
                self.connections = max(self.connections, self.stack.postgres.connections())
            self.threads = max(self.threads, *(_threads(each.pid) for each in self.stack.container.processes()), 0)


def _threads(pid: int) -> int:
    """How many threads a process has; 0 when it has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return int(status.split("Threads:")[1].split()[0])
