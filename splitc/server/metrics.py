"""The server's metrics, for Prometheus."""

from collections.abc import Callable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

# From the smallest file to a request over a slow link.
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)
NO_MODEL = ""


class Metrics:
    """Counters of one server, in a registry of its own.

    Labels hold names of models and files that exist, never what a client sent.

    Args:
        price: None if the server has no price.
    """

    def __init__(
        self,
        *,
        queued: Callable[[], int],
        in_flight: Callable[[], int],
        price: Callable[[], float] | None = None,
    ) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests that were answered.", "model", "status")
        self._refusals = self._counter("refusals", "Requests that were not served, and why.", "reason")
        self._received = self._counter("received_bytes", "Bytes of bodies of requests.", "model")
        self._sent = self._counter("sent_bytes", "Bytes of bodies of answers.", "model")
        self._receive_s = self._histogram("receive_seconds", "From head to last byte of a request.", _SECONDS)
        self._queue_s = self._histogram(
            "queue_seconds", "Waits for the compute thread, all of a request.", _SECONDS
        )
        self._compute_s = self._histogram("compute_seconds", "Runs of a file, batched or not.", _SECONDS)
        self._batch = self._histogram("batch_size", "Requests that ran as one.", _SIZES)
        self._gauge("queue_length", "Requests that wait for their first run.", queued)
        self._gauge("in_flight_requests", "Requests that were begun and not yet answered.", in_flight)
        if price is not None:
            self._gauge("price", "Seconds of latency that a second of computing is worth.", price)
        ProcessCollector(registry=self._registry)

    def answered(self, model: str, status: int, *, received_bytes: int, sent_bytes: int) -> None:
        """Count an answer, an error or not."""
        self._requests(model, str(status)).inc()
        self._received(model).inc(received_bytes)
        self._sent(model).inc(sent_bytes)

    def refused(self, reason: str) -> None:
        """Count a request that was not served."""
        self._refusals(reason).inc()

    def served(self, model: str, *, receive_s: float, queue_s: float) -> None:
        """Note the times of a request that was computed."""
        self._receive_s(model).observe(receive_s)
        self._queue_s(model).observe(queue_s)

    def ran(self, model: str, size: int, compute_s: float) -> None:
        """Note a run of a file for *size* requests; *model* is its name."""
        self._batch(model).observe(size)
        self._compute_s(model).observe(compute_s)

    def text(self, accept: str) -> tuple[bytes, str]:
        """All of it in the format that the header Accept asks for, and that format's content type."""
        try:
            encode, kind = choose_encoder(accept)
        except (TypeError, ValueError):  # it does not expect versions that are not numbers
            encode, kind = choose_encoder("")
        return encode(self._registry), kind

    def _counter(self, name: str, text: str, *labels: str) -> Callable[..., Counter]:
        # Finding a child by its labels costs more than counting.
        return cache(Counter(f"splitc_{name}", text, labels, registry=self._registry).labels)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Callable[[str], Histogram]:
        made = Histogram(f"splitc_{name}", text, ["model"], buckets=buckets, registry=self._registry)
        return cache(made.labels)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(f"splitc_{name}", text, registry=self._registry).set_function(value)
