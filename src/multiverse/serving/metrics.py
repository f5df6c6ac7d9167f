"""Prometheus metrics: vLLM's names under our own prefix, and what only branches have."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..engine.events import BranchEndEvent, Event, FinishEvent, ForkEvent, JoinEvent, TokenEvent
from ..engine.generation import Generation
from ..errors import require
from . import logs

PREFIX = "multiverse:"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0)
_REQUEST = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 120.0, 240.0, 480.0, 960.0)
_PARALLELISM = (1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)


class Snapshot(NamedTuple):
    """State of the server at the moment of a scrape; what is `None` has no metric.

    Attributes:
        running, waiting: generations in the engine's batch and queue.
        kv_usage: share of the KV slots that are in use and cannot be evicted, from 0 to 1.
        prefix_queries, prefix_hits: tokens looked up in the prefix cache, and found.
        preemptions: number of preemptions.
        upstream_requests: requests that another engine's server is working on for this one.
    """

    running: int
    waiting: int
    kv_usage: float | None = None
    prefix_queries: int | None = None
    prefix_hits: int | None = None
    preemptions: int | None = None
    upstream_requests: int | None = None


class Metrics:
    """All metrics of one server.

    Args:
        model_name: the label `model_name` of every metric.
        snapshot: reads the present state; `None` leaves out its metrics.

    Attributes:
        branches: open branches of all generations.
    """

    def __init__(self, model_name: str, snapshot: Callable[[], Snapshot] | None = None) -> None:
        prometheus = require("prometheus_client", "serve")
        self.branches = 0
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        self._prometheus = prometheus
        self.model_name = model_name
        self.snapshot = snapshot
        self.registry.register(_Scraped(self))
        self.first_token = self._histogram("time_to_first_token_seconds", "From arrival to the first token.", _TTFT)
        self.between_tokens = self._histogram(
            "inter_token_latency_seconds", "Between two sampled tokens of one branch.", _BETWEEN
        )
        self.queue_time = self._histogram("request_queue_time_seconds", "From arrival until the engine begins with it.", _TTFT)
        self.seconds = self._histogram("e2e_request_latency_seconds", "From arrival to the end.", _REQUEST)
        self.parallelism = self._histogram("parallelism", "Generated tokens over critical path tokens.", _PARALLELISM)
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self.tokens = self._counter("generation_tokens", "Generated tokens, over all branches.")
        self.critical_tokens = self._counter("critical_path_tokens", "Critical path tokens of each generation.")
        self.critical_steps = self._counter("critical_path_steps", "Forwards on the critical path of each generation.")
        self.reread_tokens = self._counter("reread_tokens", "Tokens of paths that were read again at joins.")
        self.forks = self._counter("forks", "Blocks that were opened.")
        self.joins = self._counter("joins", "Blocks whose branches joined.")
        self._success = self._counter("request_success", "Generations that finished.", "finished_reason")
        self._failure = self._counter("request_failure", "Generations that did not finish.", "reason")
        self._rejected = self._counter("request_rejected", "Requests that were refused for lack of room.", "reason")
        self._http = self._counter("http_requests", "Answers to HTTP requests.", "method", "status")

    def finished(self, generation: Generation) -> None:
        """Count a finished generation."""
        self._success(generation.finish_reason).inc()
        self.prompt_tokens.inc(generation.usage.prompt_tokens)
        self.critical_tokens.inc(generation.usage.critical_path_tokens)
        self.critical_steps.inc(generation.usage.critical_path_steps)
        self.reread_tokens.inc(generation.usage.reread_tokens)
        self.parallelism.observe(generation.usage.parallelism)

    def failed(self, reason: str) -> None:
        """Count a generation that did not finish: ``disconnect``, ``refused``, ``timeout``, ``shutdown`` or ``error``."""
        self._failure(reason).inc()

    def rejected(self, reason: str) -> None:
        """Count a request that was not admitted: ``full`` or ``draining``."""
        self._rejected(reason).inc()

    def answered(self, method: str, status: int) -> None:
        """Count the answer to an HTTP request; 499 if its client left before."""
        known = method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH")
        self._http(method if known else "other", str(status)).inc()

    def render(self) -> bytes:
        """All metrics in Prometheus' text format (`CONTENT_TYPE`)."""
        text: bytes = self._prometheus.generate_latest(self.registry)
        return text

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Any:
        histogram = self._prometheus.Histogram(PREFIX + name, about, ["model_name"], buckets=buckets, registry=self.registry)
        return histogram.labels(self.model_name)

    def _counter(self, name: str, about: str, *labels: str) -> Any:
        counter = self._prometheus.Counter(PREFIX + name, about, ["model_name", *labels], registry=self.registry)
        return (lambda *values: counter.labels(self.model_name, *values)) if labels else counter.labels(self.model_name)


class _Scraped:
    """The metrics of a `Snapshot`; prometheus_client calls `collect`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        if self._metrics.snapshot is None:
            return
        now = self._metrics.snapshot()
        rows: tuple[tuple[Any, str, str, float | None], ...] = (
            (GaugeMetricFamily, "num_requests_running", "Generations in the engine's batch.", now.running),
            (GaugeMetricFamily, "num_requests_waiting", "Generations in the engine's queue.", now.waiting),
            (GaugeMetricFamily, "branches_running", "Open branches.", self._metrics.branches),
            (GaugeMetricFamily, "kv_cache_usage_perc", "Share of KV memory in use; 1 is all of it.", now.kv_usage),
            (CounterMetricFamily, "prefix_cache_queries", "Tokens looked up in the prefix cache.", now.prefix_queries),
            (CounterMetricFamily, "prefix_cache_hits", "Tokens found in the prefix cache.", now.prefix_hits),
            (CounterMetricFamily, "preemptions", "Preemptions of requests.", now.preemptions),
            (GaugeMetricFamily, "upstream_requests_running", "Requests at the upstream server.", now.upstream_requests),
        )
        for family, name, about, value in rows:
            if value is None:
                continue
            metric = family(PREFIX + name, about, labels=["model_name"])
            metric.add_metric([self._metrics.model_name], value)
            yield metric


class Measure:
    """Times one generation from its events, for the metrics and the request's log line.

    Args:
        metrics: where to count.
        finished: called with the seconds that the generation took, when it has finished.
    """

    def __init__(self, metrics: Metrics, finished: Callable[[float], None]) -> None:
        self._metrics, self._finished = metrics, finished
        self._exchange = logs.current()
        self._arrived = time.monotonic()
        self._last: dict[str, float] = {}  # when each branch had its last token, or was opened, or resumed
        self._first_token: float | None = None
        self._branches = 0
        self._open = True

    def feed(self, event: Event) -> None:
        """Take the next event."""
        now = time.monotonic()
        match event:
            case TokenEvent():
                self._token(event, now)
            case ForkEvent():
                self._metrics.forks.inc()
                self._count(len(event.labels) - 1)  # the one that forked waits
                self._last.update(dict.fromkeys(event.labels, now))
            case BranchEndEvent():
                self._count(-1)
            case JoinEvent():
                self._metrics.joins.inc()
                self._count(1)
                self._last[event.branch] = now
            case FinishEvent():
                self._finish(event.generation, now - self._arrived)

    def close(self, failure: str) -> None:
        """The request is over: a generation that has not finished has failed, for this reason (see `Metrics.failed`)."""
        if self._open:
            self._open = False
            self._count(-self._branches)
            self._metrics.failed(failure)

    def _token(self, event: TokenEvent, now: float) -> None:
        self._metrics.tokens.inc()
        if not self._branches:  # the first
            self._count(1)
        if event.forced:  # the engine writes several at once, without a forward
            return
        if self._first_token is None:
            self._first_token = now - self._arrived
            self._metrics.first_token.observe(self._first_token)
        elif event.branch in self._last:
            self._metrics.between_tokens.observe(now - self._last[event.branch])
        self._last[event.branch] = now

    def _count(self, more: int) -> None:
        self._branches += more
        self._metrics.branches += more

    def _finish(self, generation: Generation, seconds: float) -> None:
        if generation.finish_reason == "abort":  # by the server: a client that left gets no events
            self.close("shutdown")
            return
        if generation.finish_reason == "deadline" and not generation.usage.admitted:
            self.close("timeout")
            return
        self._open = False
        self._count(-self._branches)
        self._metrics.queue_time.observe(generation.usage.queue_seconds)
        self._metrics.seconds.observe(seconds)
        self._metrics.finished(generation)
        self._finished(seconds)
        if self._exchange is not None:
            self._note(generation, self._exchange.fields)

    def _note(self, generation: Generation, fields: dict[str, Any]) -> None:
        """Add to the log line; the numbers of several generations of one request are summed."""
        usage = generation.usage
        for name, value in (
            ("generations", 1),
            ("prompt_tokens", usage.prompt_tokens),
            ("cached_tokens", usage.cached_tokens),
            ("completion_tokens", usage.total_tokens),
            ("critical_path_tokens", usage.critical_path_tokens),
            ("critical_path_steps", usage.critical_path_steps),
            ("preemptions", usage.preemptions),
        ):
            fields[name] = fields.get(name, 0) + value
        fields.setdefault("finish_reasons", []).append(generation.finish_reason)
        if self._first_token is not None:
            fields["first_token_seconds"] = round(min(self._first_token, fields.get("first_token_seconds", math.inf)), 4)
