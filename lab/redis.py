"""Redis as a plain process on loopback, as Plane's chart runs its own: any number side by side.

It saves by Redis' default save points and at an orderly stop, so what a crash forgets is what Plane's would. This
module must never touch a Redis that it did not start, nor the machine's configuration of one.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from lab.packages import program
from lab.process import Startable, free_port, wait_for
from lab.sandbox import Sandboxed

START = 20.0  # seconds; 0.1 alone
PING, PONG = b"PING\r\n", b"+PONG"


class Redis(Startable):
    """A Redis. `with` starts it and removes it with its data; in between it may be stopped, killed and started."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="plane-webhook-redis-"))
        self.port = free_port()
        self.url, self.socket = f"redis://127.0.0.1:{self.port}/", self.folder / "socket"
        self.log = self.folder / "redis.log"
        self._process: Sandboxed | None = None

    def start(self) -> None:
        """Start it, on the data that it left, and return when it answers."""
        self._process = Sandboxed(
            "Redis",
            ["--dev-bind", "/", "/", "--proc", "/proc"],
            [
                *(program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--unixsocket", str(self.socket), "--dir", str(self.folder)),
            ],
            stdout=self.log,
            stderr=self.log,
        )
        wait_for(self._answers, START, "Redis answers", need=[self._process])

    def stop(self) -> None:
        """Stop it as an operator does: it saves what it has."""
        if self._process is not None:
            self._process.stop(30)

    def kill(self) -> None:
        """End it as a crash does: what was written since its last save is gone."""
        if self._process is not None:
            self._process.signal(9)
            self._process.wait(30)

    def close(self) -> None:
        """Kill it and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(PING)  # refused with -LOADING while it reads its data
            return connection.recv(64).startswith(PONG)
        return False
