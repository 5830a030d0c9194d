"""The Prometheus metrics: queue, batches, latencies, tokens, cache reuse and memory."""

from __future__ import annotations

from collections.abc import Callable

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_TOKEN_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one server, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, histogram = self._counter, self._histogram
        self.answers = Counter(
            "issun_answers", "Answers by finish reason.", ["reason"], registry=self.registry
        )
        self.prompt_tokens = counter("issun_prompt_tokens", "Prompt tokens.")
        self.reused_tokens = counter(
            "issun_reused_tokens", "Prompt tokens that were already in the KV cache."
        )
        self.new_tokens = counter("issun_new_tokens", "Generated tokens.")
        self.refused = counter(
            "issun_refused_requests", "Requests refused because the queue was full."
        )
        self.stalled = counter(
            "issun_unread_streams", "Streams cancelled because the client did not read them."
        )
        self.first_token = histogram(
            "issun_time_to_first_token_seconds",
            "Time from the request to its first token (TTFT).",
            _SECONDS,
        )
        self.inter_token = histogram(
            "issun_inter_token_latency_seconds",
            "Time between two tokens of an answer (ITL).",
            _TOKEN_SECONDS,
        )
        self.per_token = histogram(
            "issun_time_per_output_token_seconds",
            "Mean time per token of each answer after its first token (TPOT).",
            _TOKEN_SECONDS,
        )
        self.batch = histogram("issun_batch_size", "Answers decoded in one step.", _SIZES)
        self.watch("issun_resident_memory_bytes", "Resident memory of the process.", resident_bytes)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Export `value()` as a gauge, evaluated at every scrape."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)


def resident_bytes() -> float:
    """Resident memory of this process in bytes."""
    return float(psutil.Process().memory_info().rss)
