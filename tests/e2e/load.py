"""Callers that hardly pause, and the connections that the API server keeps for them."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.e2e.cluster import api_pod, create, injected

if TYPE_CHECKING:
    from lab.controlplane import ControlPlane

_ESTABLISHED = "01"  # include/net/tcp_states.h


class Load:
    """Has the API server admit pods, several at a time and one after the other, for a `with` block.

    `failures` holds each pod that wasn't created or wasn't injected; it must be empty at the end.
    """

    def __init__(self, plane: ControlPlane, namespace: str, *, callers: int = 4) -> None:
        self._plane, self._namespace = plane, namespace
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]
        self.calls = 0
        self.failures: list[str] = []

    def _call(self) -> None:
        while not self._over.is_set():
            answer = create(self._plane, self._namespace, api_pod(), dry_run=True)
            self.calls += 1
            if answer.status_code != 201 or not injected(answer.json()):
                self.failures.append(answer.text[:500])

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, seconds: float) -> None:
        """Let it go on for so long."""
        before = self.calls
        time.sleep(seconds)
        assert self.calls > before, "the callers are stuck"


def connections(port: int) -> set[int]:
    """Return the local ports of the connections to this port of loopback that are open now."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:])
    pairs = ((row[1], row[2]) for row in rows if row[3] == _ESTABLISHED)
    return {int(local.split(":")[1], 16) for local, remote in pairs if remote == f"0100007F:{port:04X}"}
