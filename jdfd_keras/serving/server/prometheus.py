"""What an operator may watch, as Prometheus reads it.

Where TensorFlow Serving has a metric it has the same name, labels and unit here, so that one
dashboard serves both. Labels take few values: names of served models, never what a client sent.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from jdfd_keras.serving.server.repository import STATES, Repository

PREFIX = ":tensorflow:serving:"
# A counter is exported with this ending, which TensorFlow Serving's have not.
TOTAL = "_total"
MICROSECONDS = [10 * 1.8**power for power in range(33)]  # TensorFlow Serving's own steps
BATCH_ROWS = [2**power for power in range(11)]
UNKNOWN_MODEL = ""


class Metrics:
    """The counters of one server.

    Attributes:
        queue_length: Requests that wait for a model.
        batch_rows: Rows of the batches that were run.
        in_flight: Calls that are being answered.
        body_bytes: Bytes of request bodies that are held.
    """

    def __init__(self, repository: Repository):
        """Begin at nothing.

        Args:
            repository: The models whose states are told.
        """
        self._models = repository.configs.keys()
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            f"{PREFIX}request_count",
            "Calls by their outcome; without a model those of none that is served.",
            ["model_name", "status"],
            registry=registry,
        )
        self._latency = Histogram(
            f"{PREFIX}request_latency",
            "Microseconds from a whole request to its answer.",
            ["model_name", "API", "entrypoint"],
            buckets=MICROSECONDS,
            registry=registry,
        )
        self.queue_length = Gauge(
            "jdfd_keras_queue_length", "Requests that wait for a model.", registry=registry
        )
        self.in_flight = Gauge(
            "jdfd_keras_in_flight", "Calls that are being answered.", registry=registry
        )
        self.body_bytes = Gauge(
            "jdfd_keras_body_bytes", "Bytes of request bodies that are held.", registry=registry
        )
        self.batch_rows = Histogram(
            "jdfd_keras_batch_rows",
            "Rows of each run of a model.",
            buckets=BATCH_ROWS,
            registry=registry,
        )
        registry.register(_States(repository))

    def count(self, model: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Count one call.

        Args:
            model: The model asked for, as the client wrote it.
            api: `Predict`, `Classify` and so on.
            entrypoint: `REST` or `GRPC`.
            status: The name of its canonical code.
            seconds: How long it took.
        """
        model = model if model in self._models else UNKNOWN_MODEL
        self._requests.labels(model, status).inc()
        if status == "OK":
            self._latency.labels(model, api, entrypoint).observe(seconds * 1e6)

    def expose(self) -> bytes:
        """Write all of it in Prometheus' text format."""
        text = generate_latest(self._registry)
        name = f"{PREFIX}request_count"
        return text.replace(f"{name}{TOTAL}".encode(), name.encode())


class _States:
    """Tells the states of all versions at the moment of asking."""

    def __init__(self, repository: Repository):
        self._repository = repository

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "jdfd_keras_model_state",
            "1 for the state that a version is in.",
            labels=["model_name", "version", "state"],
        )
        for served in self._repository.all():
            for state in STATES:
                labels = [served.name, str(served.version), state]
                family.add_metric(labels, float(served.state == state))
        yield family
