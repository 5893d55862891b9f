"""What Prometheus is told. Labels are codes from closed lists: never a name that a cluster's user chose."""

import platform
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from webhook import __version__

# An answer takes about 50 us; the API server gives up after 10 s, and a second is already a broken server.
BUCKETS = (50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 0.2, 1.0)


class Metrics:
    """The registry of one server. Counters are found once and kept: a look-up by label costs more than an increment."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which says when it began
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        build = self._gauge("build_info", "Version of the webhook and of Python; always 1.", ["version", "python"])
        build.labels(__version__, platform.python_version()).set(1)

        self.decision = cache(self._counter("decisions", "Reviews that were answered.", ["reason", "workload"]).labels)
        self.risk = cache(
            self._counter("risks", "Reviews of pods that were injected and leave a risk open.", ["risk"]).labels
        )
        self.malformed = cache(
            self._counter("malformed", "Requests that were no review, by the answer's HTTP status.", ["status"]).labels
        )
        self.duration = Histogram(
            "plane_webhook_request_duration_seconds",
            "From the head of the request to the end of the answer, for reviews that were answered.",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.received_bytes = self._counter("received_bytes", "Bytes of the reviews that were read.")
        self.sent_bytes = self._counter("sent_bytes", "Bytes of the answers to them.")
        self.requests_in_flight = self._gauge(
            "requests_in_flight", "Requests to /mutate that are being read or answered."
        )
        self.bytes_in_flight = self._gauge("bytes_in_flight", "Bytes of the bodies that are being read.")

        self.certificate_not_after = self._gauge(
            "certificate_not_after_timestamp_seconds", "When the certificate being served expires; 0 without one."
        )
        self.certificate_reloads = self._counter("certificate_reloads", "Certificates that were taken into service.")
        self.certificate_errors = self._counter(
            "certificate_reload_errors", "Times that the certificate's files would not do: the log says why."
        )

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the text for Prometheus and its content type, in the format that the Accept header prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _counter(self, name: str, documentation: str, labels: list[str] | tuple[()] = ()) -> Counter:
        return Counter(f"plane_webhook_{name}", documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, labels: list[str] | tuple[()] = ()) -> Gauge:
        return Gauge(f"plane_webhook_{name}", documentation, labels, registry=self.registry)
