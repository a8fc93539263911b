"""The server's metrics in Prometheus' text format.

A metric that TensorFlow Serving has too keeps its name, labels and unit, so that one dashboard
works for both. Label values are bounded: names of served models, never text sent by a client.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from jdfd_keras.serving.server.repository import STATES, Repository

REQUESTS = ":tensorflow:serving:request_count"
LATENCY = ":tensorflow:serving:request_latency"
MICROSECONDS = [10 * 1.8**power for power in range(33)]  # TensorFlow Serving's buckets
BATCH_ROWS = [2**power for power in range(11)]


class ServerMetrics(Collector):
    """The metrics of one server."""

    def __init__(self, repository: Repository):
        """Create all metrics at 0, for the models of a repository."""
        self._repository = repository
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            REQUESTS,
            "Requests by status; an empty model name means any model that is not served.",
            ["model_name", "status"],
            registry=registry,
        )
        self._latency = Histogram(
            LATENCY,
            "Latency of successful requests in microseconds, from the complete request on.",
            ["model_name", "API", "entrypoint"],
            buckets=MICROSECONDS,
            registry=registry,
        )

        def add_gauge(name: str, text: str) -> Gauge:
            return Gauge(f"jdfd_keras_{name}", text, registry=registry)

        self.queue_length = add_gauge("queue_length", "Requests waiting for a model.")
        self.in_flight = add_gauge("in_flight", "Requests being processed.")
        self.body_bytes = add_gauge("body_bytes", "Bytes held by request bodies.")
        self.batch_rows = Histogram(
            "jdfd_keras_batch_rows", "Rows of each batch.", buckets=BATCH_ROWS, registry=registry
        )
        registry.register(self)

    def count(self, model: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Count one request over `REST` or `GRPC`, for a model as the client named it."""
        model = model if model in self._repository.configs else ""
        self._requests.labels(model, status).inc()
        if status == "OK":
            self._latency.labels(model, api, entrypoint).observe(seconds * 1e6)

    def expose(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        # prometheus_client appends _total to the name of a counter; TensorFlow Serving does not.
        text = generate_latest(self._registry)
        return text.replace(f"{REQUESTS}_total".encode(), REQUESTS.encode())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read state and engine of every version; the registry calls this at each scrape."""
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
        family = GaugeMetricFamily(
            "jdfd_keras_model_engine",
            "1 for the engine that computes the scores of a loaded version.",
            labels=["model_name", "version", "backend", "backend_version", "precision"],
        )
        for served in self._repository.all():
            if served.loaded and (engine := served.identity):
                labels = [served.name, str(served.version), engine.backend, engine.version]
                family.add_metric([*labels, engine.precision], 1.0)
        yield family
