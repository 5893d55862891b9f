"""Programs of the lab as plain processes: started with a log, waited for with a deadline, stopped by pid.

No program outlives the Python process that started it, however that one ends: the kernel sees to it. This module must
never signal a process that it did not start.
"""

from __future__ import annotations

import ctypes
import random
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from lab.cache import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_CPUCLOCK_SCHED = 2  # of linux/posix-timers.h
_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    """Have the kernel kill the child when the thread that started it ends (so start it from one that lasts)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A running program with its output in a log file.

    It leads a process group of its own: Ctrl-C reaches Python only, which then stops its programs in the right order.
    """

    def __init__(
        self, argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.name = log.stem
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one call into the kernel, which takes no lock
            )
        self.pid = self._popen.pid

    def alive(self) -> bool:
        return self._popen.poll() is None

    def check(self) -> None:
        """Raise LabError with the end of the log if the program has ended."""
        if not self.alive():
            raise LabError(f"{self.name} ended with exit code {self._popen.returncode}:\n{self.tail()}")

    def tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)  # Popen knows whether the pid is still ours

    def wait(self, timeout: float) -> int:
        """Return the exit code of a program that ends by itself; -N after signal N. LabError if it doesn't end."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} still runs after {timeout:g} s:\n{self.tail()}") from None

    def stop(self, timeout: float = 15) -> None:
        """Ask the program to end, make it end when `timeout` seconds have passed, and see it gone."""
        self._popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End the program at once and see it gone."""
        self._popen.kill()
        self._popen.wait()


def cpu_seconds(pid: int) -> float:
    """The processor's time that a process has used so far, all threads. OSError if it is gone."""
    # The clock of another process, as clock_getcpuclockid(3) names it: exact, where /proc counts ticks of 10 ms.
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def wait_for(predicate: Callable[[], T], timeout: float, what: str, *, need: Sequence[Process] = ()) -> T:
    """Return the predicate's first true value. LabError, saying `what` didn't happen, after `timeout` seconds.

    It fails at once, with the end of the log, when a process in `need` has ended.
    """
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        for process in need:
            process.check()
        if time.monotonic() > deadline:
            logs = "".join(f"\n--- the end of {process.name}'s log:\n{process.tail(8)}" for process in need)
            raise LabError(f"not within {timeout:g} s: {what} (last seen: {value!r}){logs}")
        time.sleep(0.05)
    return value


class Startable:
    """What has `start` and `close`, as a context manager: what could not start whole is closed again."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # Ctrl-C too
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it and return when it can be used."""
        raise NotImplementedError

    def close(self) -> None:
        """End it and remove what it left."""
        raise NotImplementedError


_given: deque[int] = deque(maxlen=1000)  # ports whose takers may not have bound them yet


def free_port() -> int:
    """Return a loopback port that is free now, from below the range that outgoing connections take theirs from."""
    while True:
        port = random.randint(20_000, 32_000)  # noqa: S311 - not a secret
        if port in _given:
            continue
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            _given.append(port)
            return port


def exit_on_sigterm() -> None:
    """Have SIGTERM unwind the main thread like Ctrl-C does, so that `with` blocks clean up."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
