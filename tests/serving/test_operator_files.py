"""The operator files match their schemas, each other, and the behaviour of `serve`.

They are not started: there is neither a Docker engine nor a cluster.
"""

import http.server
import re
import shutil
import subprocess
import threading
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from jdfd_keras.options import ServeOptions
from jdfd_keras.serving.model_config import read_models_config
from jdfd_keras.serving.serve import IMAGE, write_flags

SERVING = Path(__file__).parents[2] / "serving"
MANIFESTS = sorted((SERVING / "kubernetes").glob("*.yaml"))
# From TensorFlow Serving's session_bundle_config.proto and monitoring_config.proto, which its
# Python package does not contain.
INT64 = ".google.protobuf.Int64Value"
MESSAGES = {
    "BatchingParameters": {
        "max_batch_size": (1, INT64),
        "batch_timeout_micros": (2, INT64),
        "max_enqueued_batches": (3, INT64),
        "num_batch_threads": (4, INT64),
    },
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, ".test.PrometheusConfig")},
}
# From main.cc of TensorFlow Serving.
FLAGS = {
    "port",
    "rest_api_port",
    "rest_api_timeout_in_ms",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "allow_version_labels_for_unavailable_models",
    "monitoring_config_file",
    "enable_grpc_healthcheck_service",
    "enable_batching",
    "batching_parameters_file",
    "num_load_threads",
    "max_num_load_retries",
    "file_system_poll_wait_seconds",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
}


@pytest.fixture(scope="module")
def messages():
    """Message classes of MESSAGES."""
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="test", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, type_name) in fields.items():
            added = message.field.add(name=field, number=number, label=kinds.LABEL_OPTIONAL)
            if type_name.startswith("."):
                added.type, added.type_name = kinds.TYPE_MESSAGE, type_name
            else:
                added.type = {"bool": kinds.TYPE_BOOL, "string": kinds.TYPE_STRING}[type_name]
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"test.{name}"))
        for name in MESSAGES
    }


@pytest.fixture(scope="module")
def compose():
    return load("compose.yaml")


@pytest.fixture(scope="module")
def pod():
    return load("kubernetes/deployment.yaml")["spec"]["template"]


def load(name: str) -> dict:
    return yaml.safe_load((SERVING / name).read_text(encoding="utf-8"))


def flags_of(words: list[str]) -> dict[str, str]:
    return dict(word.removeprefix("--").split("=", 1) for word in words)


def test_every_label_in_models_config_is_of_a_served_version():
    (detector,) = read_models_config(SERVING / "models.config")
    assert (detector.name, detector.base_path) == ("detector", Path("/models/detector"))
    assert set(detector.labels) == {"stable", "canary"}
    # TensorFlow Serving also starts with other labels, but requests for them would get a 404.
    assert set(detector.labels.values()) <= set(detector.choose(range(1, 100)))


def test_batching_and_monitoring_files_equal_those_of_serve(messages, tmp_path):
    written = write_flags(tmp_path, ServeOptions())
    for flag, name, kind in (
        ("batching_parameters_file", "batching.config", "BatchingParameters"),
        ("monitoring_config_file", "monitoring.config", "MonitoringConfig"),
    ):
        texts = [path.read_text(encoding="utf-8") for path in (SERVING / name, written[flag])]
        copied, written_by_serve = (text_format.Parse(text, messages[kind]()) for text in texts)
        if kind == "BatchingParameters":
            written_by_serve.num_batch_threads.value = 4  # cores of the container
        assert copied == written_by_serve


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_match_the_kubernetes_schema(path):
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    assert documents
    for document in documents:
        # Strict: a misspelt field, which Kubernetes ignores, is an error.
        kubernetes_validate.validate(document, "1.33", strict=True)
        assert "namespace" not in document["metadata"]


def test_kustomize_includes_every_manifest_and_configuration():
    kustomization = load("kustomization.yaml")
    assert [SERVING / name for name in sorted(kustomization["resources"])] == MANIFESTS
    (config,) = kustomization["configMapGenerator"]
    assert all((SERVING / name).is_file() for name in config["files"])
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(SERVING)]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    documents = {document["kind"]: document for document in yaml.safe_load_all(built)}
    assert set(documents) == {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Service",
    }
    for document in documents.values():
        kubernetes_validate.validate(document, "1.33", strict=True)
    volumes = documents["Deployment"]["spec"]["template"]["spec"]["volumes"]
    names = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
    assert names == [documents["ConfigMap"]["metadata"]["name"]]


def test_manifests_select_the_same_pods_and_ports(pod):
    labels = pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": ServeOptions().grpc_port, "rest": ServeOptions().port}
    deployment, service = load("kubernetes/deployment.yaml"), load("kubernetes/service.yaml")
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        load("kubernetes/disruption.yaml")["spec"]["selector"]["matchLabels"],
        load("kubernetes/network.yaml")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    scaled = load("kubernetes/autoscaling.yaml")["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", deployment["metadata"]["name"])
    claim = load("kubernetes/models.yaml")["metadata"]["name"]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)


def test_a_pod_is_probed_for_its_model_and_has_time_to_stop(pod):
    (container,) = pod["spec"]["containers"]
    (model,) = read_models_config(SERVING / "models.config")
    for probe in ("startupProbe", "readinessProbe"):
        # GET /v1/models/NAME is 200 even while the model loads.
        assert container[probe]["httpGet"]["path"] == f"/v1/models/{model.name}/metadata"
    flags = flags_of(container["args"])
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    longest_s = int(flags["rest_api_timeout_in_ms"]) / 1000
    assert longest_s < int(seconds) < pod["spec"]["terminationGracePeriodSeconds"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"]


def test_compose_and_kubernetes_use_the_flags_of_serve(compose, pod, tmp_path):
    expected = {name: str(value) for name, value in write_flags(tmp_path, ServeOptions()).items()}
    (container,) = pod["spec"]["containers"]
    service = compose["services"]["tensorflow-serving"]
    for words, image in (
        (service["command"], service["image"]),
        (container["args"], container["image"]),
    ):
        assert image == IMAGE
        flags = flags_of(words)
        assert set(flags) <= FLAGS
        files = {name: flags[name] for name in flags if name.endswith("_file")}
        assert set(files) == {name for name in expected if name.endswith("_file")} | {
            "model_config_file"
        }
        assert all((SERVING / Path(path).name).is_file() for path in files.values())
        for name in expected.keys() & flags.keys() - files.keys():
            assert flags[name] == expected[name]
    assert set(expected) <= FLAGS


def test_only_the_proxy_is_reachable_and_all_images_are_pinned(compose):
    services = compose["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    assert compose["networks"]["inside"]["internal"]
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+\.\d+", service["image"])
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["read_only"]
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"])
        for volume in service["volumes"]:
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                assert (SERVING / source).is_dir()
                assert mode == ["ro"]
            else:
                assert source in compose["volumes"], name
        for word in service["command"]:
            if "/etc/serving/" in word:
                assert (SERVING / word.split("/etc/serving/")[1]).is_file()


def test_prometheus_and_the_proxy_use_the_ports_of_tensorflow_serving(compose, messages):
    assert "tensorflow-serving" in compose["services"]
    prometheus = load("prometheus.yml")
    (job,) = prometheus["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["tensorflow-serving:8501"]}]
    text = (SERVING / "monitoring.config").read_text(encoding="utf-8")
    monitoring = text_format.Parse(text, messages["MonitoringConfig"]())
    assert job["metrics_path"] == monitoring.prometheus_config.path
    assert all((SERVING / name).is_file() for name in prometheus["rule_files"])
    caddy = (SERVING / "Caddyfile").read_text(encoding="utf-8")
    assert re.findall(r"reverse_proxy (\S+)", caddy) == [
        "tensorflow-serving:8501",
        "h2c://tensorflow-serving:8500",
    ]
    assert f"max_size {ServeOptions().max_body_mb}MiB" in caddy
    assert caddy.count("import limits") == 2


def test_alerts_use_metrics_of_tensorflow_serving():
    (group,) = load("alerts.yml")["groups"]
    (job,) = load("prometheus.yml")["scrape_configs"]
    for rule in group["rules"]:
        names = re.findall(r":tensorflow:serving:(\w+)", rule["expr"])
        assert set(names) <= {"request_count", "request_latency_bucket"}
        assert names or f'up{{job="{job["job_name"]}"}}' in rule["expr"]
        for opening, closing in ("()", "{}", "[]"):
            assert rule["expr"].count(opening) == rule["expr"].count(closing)


def test_the_health_check_of_compose_fails_while_the_model_loads(compose):
    class Handler(http.server.BaseHTTPRequestHandler):
        status = 404

        def do_GET(self):
            known = self.path == "/v1/models/detector/metadata"
            self.send_response(self.status if known else 500)
            self.end_headers()

        def log_message(self, *_):
            pass

    command = compose["services"]["tensorflow-serving"]["healthcheck"]["test"][1:]
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        script = command[-1].replace("$$", "$").replace("/8501", f"/{server.server_port}")
        command = [*command[:-1], script]
        assert subprocess.run(command, timeout=5).returncode != 0
        Handler.status = 200
        assert subprocess.run(command, timeout=5).returncode == 0
        server.shutdown()
    assert subprocess.run(command, timeout=5, stderr=subprocess.DEVNULL).returncode != 0
