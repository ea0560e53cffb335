"""What the service counts, in the form that Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["METRICS_MEDIA_TYPE", "ServiceMetrics"]

METRICS_MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_CROPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class ServiceMetrics:
    """Counters of one service, in a registry of their own: a process may hold several services.

    Parameters
    ----------
    n_waiting : callable
        Gives the number of crops that wait.
    """

    def __init__(self, n_waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "tumble_requests", "Requests by route and status.", ["route", "status"], registry=self._registry
        )
        self._request_seconds = Histogram(
            "tumble_request_seconds", "Time of a request.", ["route"], buckets=_SECONDS, registry=self._registry
        )
        self._particles = Counter(
            "tumble_particles", "Particles by predicted class.", ["class"], registry=self._registry
        )
        self._batch_crops = Histogram(
            "tumble_batch_crops", "Crops classified together.", buckets=_CROPS, registry=self._registry
        )
        self._batch_seconds = Histogram(
            "tumble_batch_seconds", "Time of a batch in the model.", buckets=_SECONDS, registry=self._registry
        )
        waiting = Gauge("tumble_waiting_crops", "Crops that wait.", registry=self._registry)
        waiting.set_function(n_waiting)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def count_batch(self, n_crops: int, seconds: float) -> None:
        """Count a batch."""
        self._batch_crops.observe(n_crops)
        self._batch_seconds.observe(seconds)

    def count_particles(self, counts: Mapping[str, int]) -> None:
        """Count predictions by class."""
        for name, count in counts.items():
            self._particles.labels(name).inc(count)

    def text(self) -> bytes:
        """Give all metrics in Prometheus's text format."""
        return generate_latest(self._registry)
