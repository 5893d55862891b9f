"""What Prometheus is told. Labels are codes from closed lists: never a name that a cluster's user chose."""

import platform
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterator
from functools import cache
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from webhook import __version__
from webhook.admission import Answer

# An answer takes about 50 us; the API server gives up after 10 s, and a second is already a broken server.
BUCKETS = (50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 0.2, 1.0)


class Reviews(Collector):
    """What is counted of each review, as plain numbers: counters of the library would cost five times that.

    One thread counts and is scraped.
    """

    def __init__(self) -> None:
        self._answers: Tally[tuple[str, str]] = Tally()
        self._risks: Tally[str] = Tally()
        self._received = self._sent = 0
        self._seconds = 0.0
        self._buckets = [0] * (len(BUCKETS) + 1)

    def add(self, answer: Answer, received: int, seconds: float) -> None:
        """Count one that had `received` bytes and took so long."""
        self._answers[answer.reason, answer.workload] += 1
        for risk in answer.risks:
            self._risks[risk] += 1
        self._received += received
        self._sent += sum(map(len, answer.parts))
        self._seconds += seconds
        self._buckets[bisect_left(BUCKETS, seconds)] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted so far."""
        decisions = _counter("decisions", "Reviews that were answered.", ["reason", "workload"])
        for labels, count in self._answers.items():
            decisions.add_metric(labels, count)
        risks = _counter("risks", "Reviews of pods that were injected and leave a risk open.", ["risk"])
        for risk, count in self._risks.items():
            risks.add_metric([risk], count)
        bounds = (*map(str, BUCKETS), "+Inf")
        yield from (decisions, risks)
        yield HistogramMetricFamily(
            "plane_webhook_request_duration_seconds",
            "From the head of the request to the end of the answer, for reviews that were answered.",
            buckets=list(zip(bounds, accumulate(self._buckets), strict=True)),
            sum_value=self._seconds,
        )
        yield _counter("received_bytes", "Bytes of the reviews that were read.", value=self._received)
        yield _counter("sent_bytes", "Bytes of the answers to them.", value=self._sent)


def _counter(
    name: str, documentation: str, labels: list[str] | None = None, value: float | None = None
) -> CounterMetricFamily:
    return CounterMetricFamily(f"plane_webhook_{name}", documentation, value=value, labels=labels)


class Metrics:
    """The registry of one server. Counters are found once and kept: a look-up by label costs more than an increment."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which says when it began
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        build = self._gauge("build_info", "Version of the webhook and of Python; always 1.", ["version", "python"])
        build.labels(__version__, platform.python_version()).set(1)

        self.reviews = Reviews()
        self.registry.register(self.reviews)
        self.malformed = cache(
            self._counter(
                "malformed",
                "Requests to /mutate that were refused (no review, too large, too many), by the answer's HTTP status.",
                ["status"],
            ).labels
        )
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
