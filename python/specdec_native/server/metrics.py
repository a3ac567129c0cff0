"""Figures for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ..results import DecodeStats

__all__ = ["CONTENT_TYPE_LATEST", "Metrics", "merged"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """Of one server; not of the process, so that two in one process do not meet."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"specdec_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"specdec_{name}", text, buckets=_SECONDS, registry=registry)

        self.answers = counter("http_answers", "answers", ("path", "status"))
        self.finished = counter("requests_finished", "generations that ended", ("reason",))
        self.prompt_tokens = counter("prompt_tokens", "prompt tokens, cached ones too")
        self.cached_tokens = counter("cached_prompt_tokens", "prompt tokens found in the cache")
        self.generated_tokens = counter("generated_tokens", "tokens given out")
        self.drafted_tokens = counter("drafted_tokens", "tokens that drafters proposed")
        self.accepted_tokens = counter("accepted_tokens", "proposed tokens that were right")
        self.passes = counter("target_passes", "passes of the target model, one per request")
        self.first_token = histogram("time_to_first_token_seconds", "from arrival to first token")
        self.whole = histogram("request_seconds", "from arrival to the end")
        self._running = Gauge("specdec_requests_running", "being decoded", registry=registry)
        self._waiting = Gauge("specdec_requests_waiting", "in the queue", registry=registry)
        self._cache = Gauge("specdec_kv_bytes", "bytes of caches in use", registry=registry)

    def count(self, stats: DecodeStats, reason: str, seconds: float) -> None:
        """One generation that ended."""
        self.finished.labels(reason).inc()
        self.prompt_tokens.inc(stats.prompt_tokens)
        self.cached_tokens.inc(stats.reused_prompt_tokens)
        self.generated_tokens.inc(stats.emitted)
        self.drafted_tokens.inc(stats.drafted)
        self.accepted_tokens.inc(stats.accepted)
        self.passes.inc(stats.rounds + stats.plain_steps)
        self.whole.observe(seconds)

    def text(self, *, running: int, waiting: int, kv_bytes: int) -> bytes:
        self._running.set(running)
        self._waiting.set(waiting)
        self._cache.set(kv_bytes)
        return generate_latest(self._registry)


def merged(texts: Mapping[str, str]) -> bytes:
    """Figures of several servers as those of one, with the label `replica` for their names."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Several(texts))
    return generate_latest(registry)


class _Several(Collector):
    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        for replica, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                same = Metric(family.name, family.documentation, family.type)
                told = found.setdefault(family.name, same)
                for sample in family.samples:
                    labels = {**sample.labels, "replica": replica}
                    told.add_sample(sample.name, labels, sample.value)
        yield from found.values()
