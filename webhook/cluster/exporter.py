"""What `operate` tells Prometheus and the kubelet, over plain HTTP."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter as Counts
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from webhook.cluster.pods import State, states
from webhook.listening import listen

# Seconds without a pass after which a kubelet may start it anew: a pass has timeouts, and waits a minute at most.
STUCK = 180.0
OUTCOMES = ("made", "refused")  # of evictions


class _Server(ThreadingHTTPServer):
    """On a socket that listens already: the library's own knows one family of addresses, and asks DNS for its name."""

    def __init__(self, listening: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(listening.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening


class Exporter:
    """The registry of one process, and its server."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.leader = self._gauge("leader", "1 while this process acts, 0 while it stands by.")
        # Of these who stands by says nothing: what it saw when it acted last is of the past.
        self._registered = self._seen("registered", "Whether the webhook's registration is in the cluster.")
        self._endpoints = self._seen("endpoints", "Replicas of the webhook that there are.")
        self._answering = self._seen("endpoints_answering", "Replicas that a TLS handshake came about with.")
        self._not_after = self._seen(
            "certificate_not_after_timestamp_seconds",
            "When the first of the certificates that are served expires; 0 where none is.",
        )
        self._shown: set[Gauge] = set()
        self.errors = Counter(
            "plane_webhook_operate_errors", "Passes that the API server broke off.", registry=self.registry
        )
        self.pods = Gauge(
            "plane_webhook_operate_pods",
            "Pods of the namespaces that are opted in, by state; 0 too, so that an alert ends.",
            ["plane_namespace", "state"],
            registry=self.registry,
        )
        self.evictions = Counter(
            "plane_webhook_operate_evictions",
            "Pods that were evicted to be made anew (made), and evictions that were refused, as by a budget.",
            ["plane_namespace", "outcome"],
            registry=self.registry,
        )
        self._counted: set[str] = set()  # the namespaces that have a counter
        self._last = time.monotonic()

    def census(
        self, namespaces: Iterable[str], found: Iterable[tuple[str, State]], *, logs: Collection[str] = ()
    ) -> None:
        """How many pods stand how, by namespace; `logs`: the namespaces in which these are read."""
        counts = Counts(found)
        self.pods.clear()
        known, self._counted = self._counted, set(namespaces)
        for namespace in known - self._counted:  # of namespaces that come and go a counter each would stay for ever
            for outcome in OUTCOMES:
                self.evictions.remove(namespace, outcome)
        for namespace in sorted(self._counted):
            for outcome in OUTCOMES:  # 0 too: an increase is one from something
                self.evictions.labels(namespace, outcome)
            for state in states(logs=namespace in logs):
                self.pods.labels(namespace, state.value).set(counts[namespace, state])

    def forget(self) -> None:
        """Who stands by knows nothing of pods, registration and endpoints."""
        self.pods.clear()
        while self._shown:
            self.registry.unregister(self._shown.pop())

    def registered(self, there: bool) -> None:  # noqa: FBT001
        """Whether the registration is in the cluster."""
        self._show(self._registered, there)

    def passed(self) -> None:
        """A pass is over, well or not."""
        self._last = time.monotonic()

    def serving(self, leaves: Sequence[bytes | None]) -> datetime | None:
        """What the endpoints show; returns when the first of it expires."""
        answers = [each for each in leaves if each]
        first = min(filter(None, map(_not_after, answers)), default=None)
        self._show(self._endpoints, len(leaves))
        self._show(self._answering, len(answers))
        self._show(self._not_after, first.timestamp() if first else 0)
        return first

    @contextlib.contextmanager
    def listening(self, host: str, port: int) -> Iterator[int]:
        """Serve /metrics and /livez until the block ends; the port that it is. Raises PortError.

        `host`: empty or `::` for all addresses, IPv4 and IPv6: where a cluster has IPv6 alone its kubelets ask there.
        """
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                if self.path == "/livez":
                    stuck = time.monotonic() - exporter._last > STUCK
                    self._answer(503 if stuck else 200, "text/plain", b"stuck" if stuck else b"ok")
                elif self.path == "/metrics":
                    encode, kind = choose_encoder(self.headers.get("accept", ""))
                    self._answer(200, kind, encode(exporter.registry))
                else:
                    self._answer(404, "text/plain", b"here are /metrics and /livez")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Scrapes are no news."""

        listening = listen(host, port, "--metrics-port")
        with _Server(listening, Handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            yield int(listening.getsockname()[1])
            server.shutdown()

    def _gauge(self, name: str, documentation: str) -> Gauge:
        return Gauge(f"plane_webhook_operate_{name}", documentation, registry=self.registry)

    def _seen(self, name: str, documentation: str) -> Gauge:
        return Gauge(f"plane_webhook_operate_{name}", documentation, registry=None)

    def _show(self, gauge: Gauge, value: float) -> None:
        gauge.set(value)
        if gauge not in self._shown:
            self._shown.add(gauge)
            self.registry.register(gauge)


def _not_after(leaf: bytes) -> datetime | None:
    """None of one that can't be read: whoever listens there, what it shows must not end this process."""
    try:
        return x509.load_der_x509_certificate(leaf).not_valid_after_utc
    except Exception:  # noqa: BLE001 - cryptography raises many kinds
        return None
