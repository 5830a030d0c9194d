"""What `/metrics` tells: queue, batches, times, tokens, cache reuse and memory."""

from __future__ import annotations

from collections.abc import Callable

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, histogram = self._counter, self._histogram
        self.answers = Counter(
            "issun_answers", "Answers by how they ended.", ["reason"], registry=self.registry
        )
        self.prompt_tokens = counter("issun_prompt_tokens", "Tokens of prompts.")
        self.reused_tokens = counter(
            "issun_reused_tokens", "Tokens of prompts that the KV cache held already."
        )
        self.new_tokens = counter("issun_new_tokens", "Tokens of answers.")
        self.refused = counter("issun_refused_requests", "Requests refused by a full queue.")
        self.unread = counter("issun_unread_streams", "Streams given up because nobody read them.")
        self.first_token = histogram(
            "issun_time_to_first_token_seconds", "From the request to its first token.", _SECONDS
        )
        self.rate = histogram(
            "issun_answer_tokens_per_second", "Of each answer behind its first token.", _RATES
        )
        self.batch = histogram("issun_batch_size", "Answers that one step works on.", _SIZES)
        self.watch("issun_resident_memory_bytes", "Memory of the process.", resident_bytes)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Tell `value()` whenever the metrics are asked for."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)


def resident_bytes() -> float:
    """Memory of this process that is in RAM, in bytes."""
    return float(psutil.Process().memory_info().rss)
