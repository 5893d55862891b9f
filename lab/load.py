"""Callers that hardly pause, or come at a rate; and the connections that the API server keeps for them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lab.meanwhile import Meanwhile
from lab.pods import api_pod, create, injected

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.controlplane import ControlPlane

_ESTABLISHED = "01"  # include/net/tcp_states.h
_AT_ONCE = 32  # calls of one Steady: at 10 a second these are late only when each takes 3 s


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


class Steady(Meanwhile):
    """Calls something so many times a second for a `with` block, however long each call takes.

    `failures` holds what the calls raised, each with the second in which it was called; it is there at the end.
    """

    def __init__(self, call: Callable[[], object], rate: float) -> None:
        super().__init__()
        self._call, self._rate = call, rate
        self._calls: list[Future[object]] = []
        self.failures: list[str] = []

    @property
    def calls(self) -> int:
        return len(self._calls)

    def work(self) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            due = time.monotonic()
            while not self.over.wait(max(0.0, due - time.monotonic())):
                self._calls.append(pool.submit(self._call))
                due += 1 / self._rate

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        raised = ((number / self._rate, call.exception()) for number, call in enumerate(self._calls))
        self.failures = [f"{second:.1f} s: {error!r}" for second, error in raised if error is not None]


def connections(port: int) -> set[int]:
    """Return the local ports of the connections to this port of loopback that are open now."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:])
    pairs = ((row[1], row[2]) for row in rows if row[3] == _ESTABLISHED)
    return {int(local.split(":")[1], 16) for local, remote in pairs if remote == f"0100007F:{port:04X}"}
