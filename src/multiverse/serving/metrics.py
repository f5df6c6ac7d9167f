"""Prometheus metrics: vLLM's names under our own prefix, and what only branches have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ExtraError

if TYPE_CHECKING:
    from ..engine import Generation

PREFIX = "multiverse:"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0)
_REQUEST = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 120.0, 240.0, 480.0, 960.0)
_PARALLELISM = (1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)


class Snapshot(NamedTuple):
    """What is read off the server at the moment of a scrape.

    Attributes:
        running, waiting: generations in the engine's batch; those that wait for it.
        branches: branches that go on by themselves.
        kv_usage: share of the slots for keys and values that cannot be had now, from 0 to 1.
        prefix_queries, prefix_hits: tokens that the prefix cache was asked for, and found.
        preemptions: how often a request had to give way.
    """

    running: int
    waiting: int
    branches: int
    kv_usage: float
    prefix_queries: int
    prefix_hits: int
    preemptions: int


class Metrics:
    """All metrics of one server.

    Args:
        model_name: the label `model_name` of every metric.
        snapshot: reads the present state; `None` leaves out what is read off the server.
    """

    def __init__(self, model_name: str, snapshot: Callable[[], Snapshot] | None = None) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError as error:
            raise ExtraError("prometheus_client", "serve") from error
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        self._prometheus = prometheus
        self.model_name = model_name
        self.snapshot = snapshot
        self.registry.register(_Scraped(self))
        self.first_token = self._histogram("time_to_first_token_seconds", "From arrival to the first token.", _TTFT)
        self.between_tokens = self._histogram(
            "inter_token_latency_seconds", "Between two tokens that the model chose for one branch.", _BETWEEN
        )
        self.queue_time = self._histogram("request_queue_time_seconds", "From arrival until the engine takes it.", _TTFT)
        self.seconds = self._histogram("e2e_request_latency_seconds", "From arrival to the end.", _REQUEST)
        self.parallelism = self._histogram("parallelism", "All tokens over those of the critical path.", _PARALLELISM)
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self.tokens = self._counter("generation_tokens", "Tokens that were generated, over all branches.")
        self.critical_tokens = self._counter("critical_path_tokens", "Tokens along the longest chain of each generation.")
        self.forks = self._counter("forks", "Blocks that were opened.")
        self.joins = self._counter("joins", "Blocks whose branches came together again.")
        self._success = self._counter("request_success", "Generations that came to their end.", "finished_reason")
        self._failure = self._counter("request_failure", "Generations that did not come to their end.", "reason")
        self._rejected = self._counter("request_rejected", "Requests that were turned away at the door.", "reason")
        self._http = self._counter("http_requests", "Answers to HTTP requests.", "method", "status")

    def finished(self, generation: Generation) -> None:
        """A generation is over; its tokens have been counted."""
        self._success(generation.finish_reason).inc()
        self.critical_tokens.inc(generation.usage.critical_path_tokens)
        self.parallelism.observe(generation.usage.parallelism)

    def failed(self, reason: str) -> None:
        """A generation ends before its time: ``disconnect``, ``refused``, ``timeout``, ``shutdown`` or ``error``."""
        self._failure(reason).inc()

    def rejected(self, reason: str) -> None:
        """A request was not let in: ``full`` or ``draining``."""
        self._rejected(reason).inc()

    def answered(self, method: str, status: int) -> None:
        """An HTTP request was answered; 499 if its client did not wait for that."""
        known = method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH")
        self._http(method if known else "other", str(status)).inc()

    def render(self) -> bytes:
        """Everything, in Prometheus' text form (`CONTENT_TYPE`)."""
        text: bytes = self._prometheus.generate_latest(self.registry)
        return text

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Any:
        histogram = self._prometheus.Histogram(PREFIX + name, about, ["model_name"], buckets=buckets, registry=self.registry)
        return histogram.labels(self.model_name)

    def _counter(self, name: str, about: str, *labels: str) -> Any:
        counter = self._prometheus.Counter(PREFIX + name, about, ["model_name", *labels], registry=self.registry)
        return (lambda *values: counter.labels(self.model_name, *values)) if labels else counter.labels(self.model_name)


class _Scraped:
    """What is read at the moment of a scrape; prometheus_client calls `collect`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        if self._metrics.snapshot is None:
            return
        now = self._metrics.snapshot()
        rows: tuple[tuple[Any, str, str, float], ...] = (
            (GaugeMetricFamily, "num_requests_running", "Generations in the engine's batch.", now.running),
            (GaugeMetricFamily, "num_requests_waiting", "Generations that wait.", now.waiting),
            (GaugeMetricFamily, "branches_running", "Branches that go on by themselves.", now.branches),
            (GaugeMetricFamily, "kv_cache_usage_perc", "Share of KV memory in use; 1 is all of it.", now.kv_usage),
            (CounterMetricFamily, "prefix_cache_queries", "Tokens that the prefix cache was asked for.", now.prefix_queries),
            (CounterMetricFamily, "prefix_cache_hits", "Tokens that the prefix cache had.", now.prefix_hits),
            (CounterMetricFamily, "preemptions", "Times that a request had to give way.", now.preemptions),
        )
        for family, name, about, value in rows:
            metric = family(PREFIX + name, about, labels=["model_name"])
            metric.add_metric([self._metrics.model_name], value)
            yield metric
