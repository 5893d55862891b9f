"""From the first accepted connection to a clean end: what SIGTERM and SIGINT do.

SIGTERM drains. kube-apiserver does not retry a POST on a connection that was closed under it, and it may use any idle
connection for 90 s more: so nothing is closed. Every answer says `Connection: close`, and new connections are taken,
until no review has come for a while and the API servers have let go, or 95 s are over. So a pod that was asked in the
last 90 s stays Terminating for up to 90 s, any other for 10. SIGINT, or a second signal, leaves at once.
"""

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine, Generator

import uvicorn
from starlette.types import ASGIApp

from webhook import __version__, log
from webhook.server.limits import Limits
from webhook.server.protocol import BoundedProtocol

_TICK = 0.1  # seconds; as often as uvicorn itself looks up


class Server(uvicorn.Server):
    """uvicorn's, on one socket, with the signals left to `Lifecycle`: it would close idle connections at the first."""

    def __init__(
        self, app: ASGIApp, protocol: type[BoundedProtocol], port: socket.socket, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=protocol.limits.keep_alive_seconds,
                ssl_context_factory=(lambda _config, _default: tls) if tls else None,
            )
        )
        self._port = port
        self.address: tuple[str, int] = port.getsockname()[:2]

    async def answer(self) -> None:
        """Serve on the socket until told to leave."""
        await self.serve(sockets=[self._port])

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield

    def close_after_each_answer(self) -> None:
        """Say `Connection: close` from now on, also in answers that are being made."""
        header = (b"connection", b"close")
        self.config.encoded_headers.append(header)
        self.server_state.default_headers.append(header)


class Lifecycle:
    """Runs both servers until a signal ends them. `reviews` tells how many have come so far."""

    def __init__(self, limits: Limits, reviews: Callable[[], int]) -> None:
        self._limits = limits
        self._reviews = reviews
        self.draining = False

    async def run(self, webhook: Server, exporter: Server, watching: Coroutine[None, None, None]) -> None:
        """Serve, and return when all connections are closed. `watching` goes on for as long."""
        loop = asyncio.get_running_loop()
        signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, signals.put_nowait, each)
        host, port = webhook.address
        log.line("info", "listening", version=__version__, host=host, port=port, metrics_port=exporter.address[1])
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(watching)
            serving = {tasks.create_task(webhook.answer()), tasks.create_task(exporter.answer())}
            patience = self._limits.farewell_seconds
            if await signals.get() is signal.SIGTERM:
                again = tasks.create_task(signals.get())
                drained = tasks.create_task(self._drain(webhook))
                await asyncio.wait({drained, again}, return_when=asyncio.FIRST_COMPLETED)
                if again.done():
                    patience = 0
                again.cancel()
                drained.cancel()
            await _leave((webhook, exporter), serving, patience)
            watcher.cancel()

    async def _drain(self, webhook: Server) -> None:
        """Return when no review can come any more, or when nobody can have a reason to send one."""
        limits = self._limits
        log.line(
            "info",
            "draining until no review has come for a while and API servers have let go of their connections: "
            "each answer closes one, new ones are answered",
            connections=len(webhook.server_state.connections),
            quiet_seconds=limits.quiet_seconds,
            at_most_seconds=limits.drain_seconds,
        )
        self.draining = True
        webhook.close_after_each_answer()
        loop = asyncio.get_running_loop()
        begun = asked = loop.time()
        seen, said = self._reviews(), False
        while loop.time() < begun + limits.drain_seconds:
            await asyncio.sleep(_TICK)
            # A review may come and go between two looks: the count has seen it.
            if self._reviews() != seen:
                asked, seen = loop.time(), self._reviews()
            if loop.time() < asked + limits.quiet_seconds:
                continue
            # Nobody is led here any more. What is open was opened before: an API server's, or a probe's for a moment.
            if not (connections := len(webhook.server_state.connections)):
                break
            if not said:
                log.line(
                    "info",
                    "still draining: connections are open, and an API server keeps an idle one for up to 90 s",
                    connections=connections,
                )
                said = True
        left = len(webhook.server_state.connections)
        log.line("info", "drained", seconds=round(loop.time() - begun, 1), connections=left)


async def _leave(servers: tuple[Server, ...], serving: set[asyncio.Task[None]], patience: float) -> None:
    """Close the ports, let answers that are on their way arrive, then cut off whoever does not hang up."""
    for server in servers:
        server.should_exit = True
    await asyncio.wait(serving, timeout=patience)
    while not all(task.done() for task in serving):
        for server in servers:
            for connection in list(server.server_state.connections):
                connection.transport.abort()
        await asyncio.wait(serving, timeout=_TICK)
