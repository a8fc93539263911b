"""The server's metrics in Prometheus' text format.

A metric that TensorFlow Serving has too keeps its name, labels and unit, so that one dashboard
works for both. Label values are bounded: names of served models, never text sent by a client.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from jdfd_keras.serving.server.repository import STATES, Repository

PREFIX = ":tensorflow:serving:"
# prometheus_client appends this to the name of a counter; TensorFlow Serving does not.
TOTAL = "_total"
MICROSECONDS = [10 * 1.8**power for power in range(33)]  # TensorFlow Serving's buckets
BATCH_ROWS = [2**power for power in range(11)]
UNKNOWN_MODEL = ""


class ServerMetrics:
    """The metrics of one server.

    Attributes:
        queue_length: Requests waiting for a model.
        batch_rows: Rows of each batch.
        in_flight: Requests being processed.
        body_bytes: Memory held by request bodies, in bytes.
    """

    def __init__(self, repository: Repository):
        """Create all metrics at 0.

        Args:
            repository: The models to report.
        """
        self._models = repository.configs.keys()
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            f"{PREFIX}request_count",
            "Requests by status; an empty model name means any model that is not served.",
            ["model_name", "status"],
            registry=registry,
        )
        self._latency = Histogram(
            f"{PREFIX}request_latency",
            "Latency of successful requests in microseconds, from the complete request on.",
            ["model_name", "API", "entrypoint"],
            buckets=MICROSECONDS,
            registry=registry,
        )
        self.queue_length = Gauge(
            "jdfd_keras_queue_length", "Requests waiting for a model.", registry=registry
        )
        self.in_flight = Gauge(
            "jdfd_keras_in_flight", "Requests being processed.", registry=registry
        )
        self.body_bytes = Gauge(
            "jdfd_keras_body_bytes", "Bytes held by request bodies.", registry=registry
        )
        self.batch_rows = Histogram(
            "jdfd_keras_batch_rows",
            "Rows of each batch.",
            buckets=BATCH_ROWS,
            registry=registry,
        )
        registry.register(_ModelStates(repository))

    def count(self, model: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Count one request.

        Args:
            model: The requested model, as the client wrote it.
            api: `Predict`, `Classify` and so on.
            entrypoint: `REST` or `GRPC`.
            status: Name of the canonical code.
            seconds: Duration.
        """
        model = model if model in self._models else UNKNOWN_MODEL
        self._requests.labels(model, status).inc()
        if status == "OK":
            self._latency.labels(model, api, entrypoint).observe(seconds * 1e6)

    def expose(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        text = generate_latest(self._registry)
        name = f"{PREFIX}request_count"
        return text.replace(f"{name}{TOTAL}".encode(), name.encode())


class _ModelStates:
    """Reports the current state of every version at each scrape."""

    def __init__(self, repository: Repository):
        self._repository = repository

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "jdfd_keras_model_state",
            "1 for the current state of a version, 0 for the others.",
            labels=["model_name", "version", "state"],
        )
        for served in self._repository.all():
            for state in STATES:
                labels = [served.name, str(served.version), state]
                family.add_metric(labels, float(served.state == state))
        yield family
