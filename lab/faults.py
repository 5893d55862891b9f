"""A TCP proxy on loopback that breaks: what stands between Plane and RabbitMQ in the fault lab.

One small proxy of our own and no toxiproxy: nearly all of the faults need to know where in AMQP's stream they are (a
publish swallowed, cut after half a frame, its acknowledgement lost or half delivered), to accept and then reject, to
trickle single bytes, or to leave a SYN unanswered. toxiproxy can't do these, and it would be a second instrument for
the rest: half-open links, delay, refusal, reset.

It runs on a thread of its own and is controlled by method calls from any other. It reads the frames towards the broker
and changes no byte: it forwards, withholds or delays them. It must never listen anywhere but on loopback.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from lab.process import free_port

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")
Ending = Literal["silence", "fin", "reset"]
Door = Literal["open", "reject", "abandon", "refuse", "deaf"]

_PROTOCOL_HEADER = 8  # "AMQP" and the version, before the first frame
_BASIC_PUBLISH = struct.pack(">HH", 60, 40)
_CHANNEL_OPEN = struct.pack(">LHH", 5, 20, 10)  # with the size of its frame
_BASIC_ACK = struct.pack(">LHH", 13, 60, 80)
# Of a message that is no task: what a worker's event dispatcher and its remote control publish all the time.
_NO_TASKS = (b"celeryev", b"reply.celery.pidbox", b"celery.pidbox")
_EXCHANGE = 14  # where in the frame of a publish its exchange is: header, class, method, a reserved word, a length
_AWAY = 0.005  # seconds until a reset comes, as on a network: what is written right behind it has left by then
_HOST = "127.0.0.1"
_CALL = 20.0  # seconds for the proxy's thread to do what it was told: it never takes one


@dataclass(frozen=True)
class Flow:
    """What becomes of bytes in one direction of a connection."""

    swallow: bool = False  # read and forgotten: the sender's writes succeed
    hold: bool = False  # not read: they fill the kernel's buffers, and go on when released
    delay: float = 0.0  # seconds
    rate: float = 0.0  # bytes a second, one at a time; 0: as they come
    limit: int | None = None  # so many bytes more, then swallow
    keep_ack: bool = False  # from the broker: its next acknowledgement, and what follows, waits for an `AtPublish`


PASS = Flow()
SWALLOW = Flow(swallow=True)
HOLD = Flow(hold=True)


@dataclass(frozen=True)
class AtPublish:
    """What happens to a connection when the next message to publish comes along: once."""

    forward: float = 0.0  # the part of its bytes that reaches the broker, 0 to 1
    reply: int = 0  # how many bytes of the broker's answer come back
    then: Ending = "silence"
    pause: float = 0.0  # seconds from forwarding to the ending


@dataclass(eq=False)
class Link:
    """One connection: the client's and the broker's half."""

    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    up: Flow = PASS
    down: Flow = PASS
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: bool = False  # has carried one
    kept: bytes = b""  # from the broker, not yet handed on

    def end(self, *, reset: bool) -> None:
        """Close both halves, with FIN or RST."""
        self.up = self.down = PASS
        for writer in (self.client, self.broker):
            if reset:
                with suppress(OSError, AttributeError):
                    linger = struct.pack("ii", 1, 0)  # closing it so sends RST
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            with suppress(OSError, RuntimeError):
                writer.transport.abort()
        self.changed.set()


class Frames:
    """Finds the publishes in what a client sends, however it was cut into pieces by TCP."""

    def __init__(self) -> None:
        self._skip = _PROTOCOL_HEADER
        self._head = b""

    def publish_in(self, data: bytes) -> int | None:
        """Return where in `data` the first publish's frame starts; None if there is none."""
        found, at = None, 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            need = 11 - len(self._head)  # type, channel, size, class, method
            start = at - len(self._head)
            piece = data[at : at + need]
            self._head += piece
            at += len(piece)
            if len(self._head) == 11:
                kind, size = self._head[0], int.from_bytes(self._head[3:7])
                if found is None and kind == 1 and self._head[7:] == _BASIC_PUBLISH:
                    found = max(start, 0)
                self._skip = 7 + size + 1 - 11  # negative for a heartbeat, which has no payload: 8 bytes in all
                if self._skip < 0:
                    self._head = self._head[self._skip :]
                    self._skip = 0
                else:
                    self._head = b""
        return found


class Proxy:
    """Forwards connections to `target` on loopback. Use it as a context manager; `port` is where it listens."""

    def __init__(self, target: int, *, tls: ssl.SSLContext | None = None, tasks_only: bool = False) -> None:
        """Prepare one. With `tls` it takes TLS from the client and speaks plainly to the target.

        With `tasks_only` faults strike just the connections (and the messages) that a task was published on: a worker
        has others too, to consume, for events and for remote control. `door` is for all.
        """
        self.target, self.port, self.tls, self.tasks_only = target, free_port(), tls, tasks_only
        self.accepted = 0  # connections so far
        self.published = 0  # messages seen so far
        self.links: set[Link] = set()
        self._up = self._down = PASS
        self._door: Door = "open"
        self._shots: deque[AtPublish] = deque()
        self.poison = b""  # what is sent with these bytes in it resets its connection, unless there are none
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._plugs: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL)

    # What a test says. Each of them returns when it is so.

    def flow(self, *, up: Flow = PASS, down: Flow = PASS, live: bool = True, fresh: bool = False) -> None:
        """Set what becomes of bytes on the connections there are (`live`), and on those to come (`fresh`)."""

        async def change() -> None:
            if fresh:
                self._up, self._down = up, down
            for link in self._struck() if live else ():
                link.up, link.down = up, down
                link.changed.set()

        self._run(change())

    def at_publish(self, *shots: AtPublish) -> None:
        """Set what happens at the next publishes, one each. They go before what `flow` says."""

        async def load() -> None:
            self._shots.extend(shots)

        self._run(load())

    def cut(self, *, reset: bool = False) -> None:
        """End the connections there are."""

        async def end() -> None:
            for link in self._struck():
                link.end(reset=reset)

        self._run(end())

    def door(self, how: Door) -> None:
        """Set what meets a new connection.

        Taken; reset as soon as taken, or when it opens a channel; refused; or no answer to its SYN.
        """
        self._run(self._set_door(how))

    def refuse(self) -> None:
        """Refuse new connections and end those there are: the broker is away."""
        self.door("refuse")
        self.cut()

    def heal(self, *, cut: bool = True) -> None:
        """Make it a plain proxy again; what was broken stays broken and is cut, so that the client has to reconnect."""

        async def clear() -> None:
            self._up = self._down = PASS
            self._shots.clear()
            await self._set_door("open")
            for link in self._struck():
                if cut:
                    link.end(reset=False)
                else:
                    link.up = link.down = PASS
                    link.changed.set()

        self._run(clear())

    # How it is done, on the proxy's thread.

    def _struck(self) -> list[Link]:
        return [link for link in self.links if link.task or not self.tasks_only]

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(_CALL)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, _HOST, self.port, ssl=self.tls, limit=1 << 20)

    async def _set_door(self, how: Door) -> None:
        if how == self._door:
            return
        for plug in self._plugs:
            plug.close()
        self._plugs.clear()
        if self._server is not None:
            self._server.close()  # the listener only: what was accepted lives on
            self._server = None
        self._door = how
        if how in ("open", "reject", "abandon"):
            await self._listen()
        elif how == "deaf":
            # A queue with room for one that nobody accepts: Linux drops the SYNs of all further ones.
            listener = socket.create_server((_HOST, self.port), backlog=0)
            guest = socket.create_connection((_HOST, self.port))
            self._plugs += [guest, listener]

    async def _close(self) -> None:
        await self._set_door("refuse")
        for link in list(self.links):
            link.end(reset=False)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = Link(writer, writer)
        if self._door == "reject":
            link.end(reset=True)
            return
        try:
            broker_reader, link.broker = await asyncio.open_connection(_HOST, self.target, limit=1 << 20)
        except OSError:
            link.end(reset=True)
            return
        link.up, link.down = self._up, self._down
        self.links.add(link)
        both = {
            asyncio.create_task(self._pump(link, reader, link.broker, up=True)),
            asyncio.create_task(self._pump(link, broker_reader, writer, up=False)),
        }
        self._tasks |= both
        try:
            await asyncio.wait(both)
        finally:
            self._tasks -= both
            link.end(reset=False)
            self.links.discard(link)

    async def _pump(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        """Move bytes in one direction until the sender closes."""
        frames = Frames()
        with suppress(OSError):
            while data := await self._read(link, reader, up=up):
                if up and self.poison and self.poison in data:
                    await asyncio.sleep(_AWAY)
                    link.end(reset=True)
                    return
                if up and self._door == "abandon" and _CHANNEL_OPEN in data:
                    break
                if up and (at := frames.publish_in(data)) is not None:
                    self.published += 1
                    task = _is_task(data[at:])
                    link.task |= task
                    if self._shots and (task or not self.tasks_only):
                        await self._shoot(link, data, at, self._shots.popleft())
                        continue
                await self._pass(link, writer, data, up=up)
        flow = link.up if up else link.down
        if not up and (flow.swallow or flow.limit is not None or flow.rate):
            return  # the broker hung up on a connection whose other end must not hear of it
        link.end(reset=isinstance(reader.exception(), ConnectionResetError))

    async def _read(self, link: Link, reader: asyncio.StreamReader, *, up: bool) -> bytes:
        while True:
            data = await reader.read(1 << 16)
            while (link.up if up else link.down).hold:
                link.changed.clear()
                await link.changed.wait()
            return data

    async def _shoot(self, link: Link, data: bytes, at: int, shot: AtPublish) -> None:
        if link.kept:
            link.client.write(link.kept)
            link.kept = b""
        link.down = Flow(limit=shot.reply)
        link.broker.write(data[: at + int((len(data) - at) * shot.forward)])
        await link.broker.drain()
        await asyncio.sleep(shot.pause)
        if shot.then == "silence":
            link.up = SWALLOW
        else:
            link.end(reset=shot.then == "reset")

    async def _pass(self, link: Link, writer: asyncio.StreamWriter, data: bytes, *, up: bool) -> None:
        flow = link.up if up else link.down
        if flow.keep_ack and (link.kept or _BASIC_ACK in data):
            at = 0 if link.kept else data.index(_BASIC_ACK) - 3  # a frame's type and channel stand before its size
            data, link.kept = data[:at], link.kept + data[at:]
        if flow.limit is not None and not up:
            link.down = Flow(limit=max(flow.limit - len(data), 0))
            data = data[: flow.limit]
        if flow.swallow or not data or writer.is_closing():
            return
        if flow.rate:
            for byte in data:
                writer.write(bytes([byte]))
                await asyncio.sleep(1 / flow.rate)
                if (link.up if up else link.down) is not flow or writer.is_closing():
                    break
        elif flow.delay:
            self._loop.call_later(flow.delay, _write, writer, data)
        else:
            writer.write(data)
            await writer.drain()


def _is_task(frame: bytes) -> bool:
    """Tell whether the frame of a publish is a task's, by its exchange."""
    return not frame[_EXCHANGE:].startswith(_NO_TASKS)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)
