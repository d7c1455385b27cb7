"""What Prometheus reads at `/metrics`. Each application has a registry of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["Metrics", "Sample"]

LATENCIES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
Sample = tuple[str, str, dict[str, str], float]
"""Name, what it is, labels, value: one gauge, read when it is asked for."""


class _WhenAsked(Collector):
    """Gauges that are read at the moment of a scrape: the queue, the runs at work, the open models."""

    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for name, what, labels, value in self._read():
            if name not in families:
                families[name] = GaugeMetricFamily(name, what, labels=list(labels))
            families[name].add_metric(list(labels.values()), value)
        yield from families.values()


class Metrics:
    """The service's counters."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "ai_forge_request_seconds",
            "Time until a request was answered in full, by route.",
            ("method", "route", "status"),
            buckets=LATENCIES_S,
            registry=self.registry,
        )
        self.in_flight = Gauge("ai_forge_requests_in_flight", "Requests being answered.", registry=self.registry)
        self.first_token = Histogram(
            "ai_forge_first_token_seconds",
            "Time from the request to the first piece of its answer.",
            ("model",),
            buckets=LATENCIES_S,
            registry=self.registry,
        )
        self.tokens = Counter(
            "ai_forge_tokens_total",
            "Tokens read (prompt) and written (answer).",
            ("model", "kind"),
            registry=self.registry,
        )
        self.answer_seconds = Counter(
            "ai_forge_answer_seconds_total", "Time spent on answers.", ("model",), registry=self.registry
        )
        started = Gauge("ai_forge_started_at_seconds", "When the service started.", registry=self.registry)
        started.set(time.time())
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def read_when_asked(self, read: Callable[[], Iterable[Sample]]) -> None:
        """Add gauges whose values `read` tells at each scrape."""
        self.registry.register(_WhenAsked(read))
