"""TCP between this machine's loopback and the node's network namespace: no interface, route or rule on the machine.

A socket stays in the namespace that it was made in, whoever uses it, and the namespace is a thread's: so a thread that
went there makes the sockets. All of it ends with the Python process.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


def enter(pid: int) -> None:
    """Have this thread be in the network namespace of a process from now on."""
    with Path(f"/proc/{pid}/ns/net").open() as namespace:
        if _libc.setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def listener(address: tuple[str, int], inside: int | None = None) -> socket.socket:
    """Return a listening socket: on this machine, or in the namespace of process `inside`."""

    def make() -> socket.socket:
        if inside is not None:
            enter(inside)
        return socket.create_server(address, backlog=256)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


class Forwarder:
    """Carries connections to addresses of one network namespace: that of process `pid`, or of this one."""

    def __init__(self, pid: int | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._carried: set[asyncio.Task[None]] = set()  # a loop alone doesn't keep its tasks
        self._servers: list[asyncio.Server] = []
        started = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(pid, started), daemon=True, name="lab-forwarder")
        self._thread.start()
        started.wait()

    def add(self, at: socket.socket, to: tuple[str, int]) -> None:
        """Lead what connects to the listener `at` to the address `to`."""

        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(_carry(reader, writer, to))
            self._carried.add(task)
            task.add_done_callback(self._carried.discard)

        async def serve() -> None:
            self._servers.append(await asyncio.start_server(take, sock=at))

        asyncio.run_coroutine_threadsafe(serve(), self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _work(self, pid: int | None, started: threading.Event) -> None:
        if pid is not None:
            enter(pid)
        self._loop.call_soon(started.set)
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left))
        self._loop.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: tuple[str, int]) -> None:
    try:
        there_reader, there_writer = await asyncio.open_connection(*to)
    except OSError:
        writer.transport.abort()
        return
    with suppress(asyncio.CancelledError):  # close() does: nobody asks for the result
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
    writer.close()
    there_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:  # one end is gone: so is the other
        writer.close()
