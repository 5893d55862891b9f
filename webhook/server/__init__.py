"""The webhook as a process: HTTPS for the API server, plain HTTP for Prometheus, JSON lines for people.

The only part that knows FastAPI, uvicorn and sockets. It never decides what becomes of a pod: `webhook.admission` does.
"""

import asyncio
import functools
import gc
import resource
import socket
import sys
from pathlib import Path

import uvloop

from webhook import log
from webhook.admission import answer
from webhook.listening import PortError, listen
from webhook.server.app import metrics_app, probes_app
from webhook.server.certificate import Certificate
from webhook.server.exchange import answering
from webhook.server.lifecycle import Lifecycle, Server
from webhook.server.limits import Limits
from webhook.server.metrics import Metrics
from webhook.server.mutate import Decide, Mutate
from webhook.server.protocol import bounded
from webhook.settings import Settings

__all__ = ["Limits", "run", "serve"]

_CANT_START = 2

# Files that are open besides connections (about a dozen), and those that a scrape or a look at a certificate opens.
_OWN_FILES = 64


class _StartError(Exception):
    """Why the server can't start, and what would let it."""


def serve(settings: Settings, *, cert_dir: Path, host: str, port: int, metrics_port: int) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code: 0 after a clean end, 2 if the server could not start.

    `host`: an address to listen on; empty or `::` for all, IPv4 and IPv6. Port 0 is any free one; the log names it.
    """
    decide = functools.partial(answer, settings=settings)
    return run(decide, cert_dir=cert_dir, host=host, port=port, metrics_port=metrics_port)


def run(
    decide: Decide, *, cert_dir: Path, host: str, port: int, metrics_port: int, limits: Limits | None = None
) -> int:
    """Serve the decisions of `decide`: see `serve`."""
    limits = limits or Limits()
    try:
        _check_directory(cert_dir)
        with listen(host, port, "--port") as tls_port, listen(host, metrics_port, "--metrics-port") as plain_port:
            log.configure()
            _serve(decide, cert_dir, (tls_port, plain_port), limits)
    except (_StartError, PortError) as error:
        sys.stderr.write(f"plane-webhook: {error}\n")
        return _CANT_START
    return 0


def _serve(decide: Decide, cert_dir: Path, ports: tuple[socket.socket, socket.socket], limits: Limits) -> None:
    metrics = Metrics()
    certificate = Certificate(cert_dir, metrics)
    mutate = Mutate(decide, metrics, limits)
    lifecycle = Lifecycle(limits, lambda: mutate.begun)

    def unready() -> str | None:
        return "draining: this replica is about to end" if lifecycle.draining else certificate.problem()

    webhook = Server(probes_app(unready), answering(mutate, limits), ports[0], certificate.listening)
    exporter = Server(metrics_app(metrics), bounded(limits), ports[1])
    _bound_connections(limits)
    # What is there now stays for good: the cyclic collector (it may be off until here) need not walk it in a review.
    gc.freeze()
    gc.enable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(lifecycle.run(webhook, exporter, certificate.watch(limits.poll_seconds)))


def _bound_connections(limits: Limits) -> None:
    """Let the kernel count: beyond this the event loop closes what it accepts, during the TLS handshake too."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + _OWN_FILES
    soft = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))


def _check_directory(cert_dir: Path) -> None:
    try:
        next(cert_dir.iterdir(), None)
    except OSError as error:
        raise _StartError(
            f"--cert-dir {cert_dir} can't be read ({error.strerror}): mount the Secret with tls.crt, tls.key and "
            "ca.crt there, or make them with `plane-webhook certs issue`"
        ) from error
