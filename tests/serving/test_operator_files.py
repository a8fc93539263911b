"""The operator files match their schemas, each other, and the behaviour of `serve`.

They are not started, since there is neither a Docker engine nor a cluster; the proxy is, by
test_proxy.py.
"""

import http.server
import os
import re
import shutil
import subprocess
import sys
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

import jdfd_keras
from jdfd_keras.cli.main import parse
from jdfd_keras.cli.parser import read_options
from jdfd_keras.options import FileServiceOptions, ServeOptions
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
ENVIRONMENT = {
    "JDFD_KERAS_TOKEN": "0123456789abcdef",
    "PYTHON_DIGEST": f"sha256:{64 * 'a'}",
    "TENSORFLOW_SERVING_DIGEST": f"sha256:{64 * 'b'}",
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


def load_all(name: str) -> dict[str, dict]:
    """Return the documents of a file by their kind."""
    documents = yaml.safe_load_all((SERVING / name).read_text(encoding="utf-8"))
    return {document["kind"]: document for document in documents}


def interpolate(value, variables: dict[str, str]):
    """Replace variables as compose does.

    Raises:
        ValueError: If a required one, ${NAME:?message}, is missing or empty.
    """

    def replace(match):
        if match[0] == "$$":
            return "$"
        name, kind, text = match.groups()
        if kind == ":?" and not variables.get(name):
            raise ValueError(f"{name}: {text}")
        return variables.get(name) or text or ""

    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    if isinstance(value, str):
        return re.sub(r"\$\$|\$\{(\w+)(?:(:[-?])([^}]*))?\}", replace, value)
    return value


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
    config, _ = kustomization["configMapGenerator"]
    assert all((SERVING / name).is_file() for name in config["files"])
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(SERVING)]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    documents = list(yaml.safe_load_all(built))
    kinds = sorted(document["kind"] for document in documents)
    assert kinds == [
        *("ConfigMap", "ConfigMap", "Deployment", "Deployment", "HorizontalPodAutoscaler"),
        *("NetworkPolicy", "NetworkPolicy", "PersistentVolumeClaim", "PersistentVolumeClaim"),
        *("PodDisruptionBudget", "Service", "Service"),
    ]
    names = {document["metadata"]["name"] for document in documents}
    for document in documents:
        kubernetes_validate.validate(document, "1.33", strict=True)
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            for volume in pod["volumes"]:
                assert volume.get("configMap", {}).get("name") in names | {None}
            assert "@sha256:" in pod["containers"][0]["image"]


def test_images_of_the_cluster_are_pinned_by_placeholders_of_digests():
    images = {image["name"]: image for image in load("kustomization.yaml")["images"]}
    containers = [
        load("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["containers"],
        load_all("kubernetes/file-service.yaml")["Deployment"]["spec"]["template"]["spec"][
            "containers"
        ],
    ]
    assert {each[0]["image"].split(":")[0] for each in containers} == set(images)
    for image in images.values():
        assert image["digest"] == "sha256:" + 64 * "0"


def test_one_variable_names_the_model_for_all_probes(compose, pod):
    (model,) = read_models_config(SERVING / "models.config")
    kustomization = load("kustomization.yaml")
    literals = {
        generated["name"]: generated.get("literals")
        for generated in kustomization["configMapGenerator"]
    }
    assert literals["detector-model"] == [f"MODEL_NAME={model.name}"]
    # kustomize: the part of each path that it replaces is the name of the model.
    (replacement,) = kustomization["replacements"]
    assert replacement["source"]["name"] == "detector-model"
    (target,) = replacement["targets"]
    (container,) = pod["spec"]["containers"]
    probes = [path.split(".")[-3] for path in target["fieldPaths"]]
    assert probes == [name for name in container if "httpGet" in str(container[name])]
    for path, probe in zip(target["fieldPaths"], probes, strict=True):
        head = f"spec.template.spec.containers.[name={container['name']}]."
        assert path == f"{head}{probe}.httpGet.path"
        parts = container[probe]["httpGet"]["path"].split(target["options"]["delimiter"])
        assert parts[target["options"]["index"]] == model.name
    (served,) = load_all("kubernetes/file-service.yaml")["Deployment"]["spec"]["template"]["spec"][
        "containers"
    ]
    (variable,) = [item for item in served["env"] if item["name"] == "MODEL_NAME"]
    assert variable["valueFrom"]["configMapKeyRef"] == {
        "name": "detector-model",
        "key": "MODEL_NAME",
    }
    assert f"--model={model.base_path.parent}/$(MODEL_NAME)" in served["args"]
    # compose
    services = interpolate(compose, ENVIRONMENT)["services"]
    assert services["tensorflow-serving"]["environment"]["MODEL_NAME"] == model.name
    assert f"--model={model.base_path}" in services["file-service"]["command"]
    other = interpolate(compose, ENVIRONMENT | {"MODEL_NAME": "other"})["services"]
    assert "detector" not in str(other["file-service"]["command"])
    assert "detector" not in str(other["tensorflow-serving"]["healthcheck"])


def test_the_file_service_of_the_cluster_has_a_token_and_a_pod_of_its_own():
    documents = load_all("kubernetes/file-service.yaml")
    pod = documents["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    (token,) = [item for item in container["env"] if item["name"] == "JDFD_KERAS_TOKEN"]
    assert set(token["valueFrom"]["secretKeyRef"]) == {
        "name",
        "key",
    }  # optional would start without
    assert documents["Deployment"]["spec"]["replicas"] == 1
    assert documents["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    labels = pod["metadata"]["labels"]
    assert documents["Service"]["spec"]["selector"] == labels
    assert documents["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert [port["containerPort"] for port in container["ports"]] == [ServeOptions().port]
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts) == {"/models", "/state", "/tmp"}
    assert set(mounts.values()) == {volume["name"] for volume in pod["spec"]["volumes"]}
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == {
        load("kubernetes/models.yaml")["metadata"]["name"],
        documents["PersistentVolumeClaim"]["metadata"]["name"],
    }


def test_no_service_of_the_cluster_is_reachable_from_outside():
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if document["kind"] == "Service":
                assert document["spec"].get("type", "ClusterIP") == "ClusterIP"
            assert document["kind"] not in ("Ingress", "Gateway", "HTTPRoute")
            assert "hostPort" not in str(document)
            assert "hostNetwork" not in str(document)


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
        assert image.split("@")[0] == IMAGE
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


def test_compose_matches_its_schema():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, SERVING / "compose.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_compose_starts_nothing_without_a_token(compose):
    interpolate(compose, ENVIRONMENT)
    for name in ENVIRONMENT:
        for given in ({}, {name: ""}):
            others = {key: value for key, value in ENVIRONMENT.items() if key != name}
            with pytest.raises(ValueError, match=f"{name}: Expected a"):
                interpolate(compose, others | given)
    # The file that an operator copies names every variable.
    example = (SERVING / ".env.example").read_text(encoding="utf-8")
    named = dict(re.findall(r"^(\w+)=(.*)$", example, flags=re.MULTILINE))
    text = (SERVING / "compose.yaml").read_text(encoding="utf-8")
    used = dict(re.findall(r"\$\{(\w+)(?::-([^}]*))?", text))
    assert named == used


def test_the_token_of_compose_is_in_no_command(compose):
    services = interpolate(compose, ENVIRONMENT)["services"]
    token = ENVIRONMENT["JDFD_KERAS_TOKEN"]
    have_it = [
        name for name, service in services.items() if token in str(service.get("environment", ""))
    ]
    assert have_it == ["file-service", "proxy"]
    for service in services.values():
        without = {key: value for key, value in service.items() if key != "environment"}
        assert token not in str(without)


def test_the_image_of_compose_is_built_from_the_dockerfile(compose):
    service = compose["services"]["file-service"]
    assert service["image"] == f"jdfd-keras:{jdfd_keras.__version__}"
    root = (SERVING / service["build"]["context"]).resolve()
    arguments = re.findall(r"^ARG (\w+)", (root / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert set(service["build"]["args"]) <= set(arguments)
    command = service["command"]
    assert "--host=0.0.0.0" in command  # of the container, whose token is required
    words = [word.replace("${CORES:-4}", "4") for word in command]
    assert read_options(parse(words), FileServiceOptions).workers == 4


def test_only_the_proxy_is_reachable_and_all_images_are_pinned(compose):
    services = interpolate(compose, ENVIRONMENT)["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    assert compose["networks"]["inside"]["internal"]
    outside = [name for name, service in services.items() if service["networks"] != ["inside"]]
    assert outside == ["proxy"]
    assert services["tensorflow-serving"]["image"].endswith(
        f"@{ENVIRONMENT['TENSORFLOW_SERVING_DIGEST']}"
    )
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+\.\d+", service["image"])
        assert service["restart"] == "unless-stopped"
        if "build" not in service:  # else its image has one
            assert service["healthcheck"]["test"][0] == "CMD"
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
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
    hosts = re.findall(r"reverse_proxy (?:h2c://)?([\w-]+):", caddy)
    assert set(hosts) <= set(compose["services"])
    assert f"max_size {ServeOptions().max_body_mb}MiB" in caddy
    assert caddy.count("import limits") == 2


def test_the_health_check_of_compose_fails_while_the_model_loads(compose):
    class Handler(http.server.BaseHTTPRequestHandler):
        status = 404

        def do_GET(self):
            known = self.path == "/v1/models/other/metadata"
            self.send_response(self.status if known else 500)
            self.end_headers()

        def log_message(self, *_):
            pass

    command = compose["services"]["tensorflow-serving"]["healthcheck"]["test"][1:]
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        script = command[-1].replace("$$", "$").replace("/8501", f"/{server.server_port}")
        command = [*command[:-1], script]
        environment = os.environ | {"MODEL_NAME": "other"}
        assert subprocess.run(command, timeout=5, env=environment).returncode != 0
        Handler.status = 200
        assert subprocess.run(command, timeout=5, env=environment).returncode == 0
        server.shutdown()
    done = subprocess.run(command, timeout=5, env=environment, stderr=subprocess.DEVNULL)
    assert done.returncode != 0
