"""What Prometheus reads at `/metrics`. Names end in their units."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models")
"""Paths with a label of their own. All others share one, so that nobody can make labels without end."""

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: Any = {"registry": self.registry}
        ProcessCollector(**own)
        self.requests = Counter("mm1_requests", "Requests answered.", ["path", "status"], **own)
        self.seconds = Histogram("mm1_request_seconds", "To the end of an answer.", ["path"], buckets=_SECONDS, **own)
        self.first = Histogram("mm1_first_token_seconds", "To the first token.", buckets=_SECONDS, **own)
        self.under_way = Gauge("mm1_requests_under_way", "Requests accepted and not yet answered.", **own)
        self.waiting = Gauge("mm1_requests_waiting", "Requests that wait for a batch.", **own)
        self.batch = Histogram("mm1_batch_requests", "Requests of a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), **own)
        self.prompt_tokens = Counter("mm1_prompt_tokens", "Tokens of prompts, image tokens included.", **own)
        self.answer_tokens = Counter("mm1_answer_tokens", "Tokens of answers.", **own)
        self.pictures = Counter("mm1_pictures", "Pictures of prompts.", **own)
        self.given_up = Counter("mm1_requests_given_up", "Requests whose client left before the end.", **own)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request that has its answer."""
        path = path if path in PATHS else "other"
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self.registry)
