"""What Prometheus is told: requests, latency, queue, batches, errors; of all worker processes together."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of one process.

    Args:
        shared: whether several processes write theirs into the folder that PROMETHEUS_MULTIPROC_DIR names.
    """

    def __init__(self, shared: bool) -> None:
        self._shared = shared
        self._registry = registry = CollectorRegistry()
        self.requests: Counter = Counter(
            "inceptionnet_requests", "Requests that were answered.", ("route", "status"), registry=registry
        )
        self.latency: Histogram = Histogram(
            "inceptionnet_request_seconds", "From the headers of a request to the end of its answer.", ("route",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.images: Counter = Counter(
            "inceptionnet_images", "Images that were answered.", ("model",), registry=registry
        )
        self.errors: Counter = Counter(
            "inceptionnet_image_errors", "Images that could not be decoded.", ("model",), registry=registry
        )
        self.batch: Histogram = Histogram(
            "inceptionnet_batch_images", "Images in a batch.", ("model",), buckets=_IMAGES, registry=registry
        )
        self.engine: Histogram = Histogram(
            "inceptionnet_batch_seconds", "Time of the engine for a batch.", ("model",), buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.decode: Histogram = Histogram(
            "inceptionnet_decode_seconds", "From an image's arrival in the queue until it is decoded.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._queue = Gauge(
            "inceptionnet_queue_images", "Images that wait or are being worked on.", multiprocess_mode="livesum",
            registry=registry,
        )  # fmt: skip
        self._memory = Gauge(
            "inceptionnet_body_bytes", "Memory that is held for bodies.", multiprocess_mode="livesum",
            registry=registry,
        )  # fmt: skip

    def levels(self, queue: int, memory: int) -> None:
        """State how much there is now."""
        self._queue.set(queue)
        self._memory.set(memory)

    def ran(self, model: str) -> Callable[[int, float], None]:
        """What a model's batcher tells of each batch."""

        def told(images: int, seconds: float) -> None:
            self.batch.labels(model).observe(images)
            self.engine.labels(model).observe(seconds)

        return told

    def text(self) -> bytes:
        """In Prometheus' text format."""
        if not self._shared:
            return generate_latest(self._registry)
        every = CollectorRegistry()
        MultiProcessCollector(every)  # type: ignore[no-untyped-call]
        return generate_latest(every)
