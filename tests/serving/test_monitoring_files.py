"""Alerts, objects of the Prometheus Operator and the dashboard match their schemas and metrics."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.serving.server.prometheus import ServerMetrics
from jdfd_keras.serving.server.repository import Repository
from tests.programs import find_program

SERVING = Path(__file__).parents[2] / "serving"
MONITORING = SERVING / "kubernetes" / "monitoring"
# Of TensorFlow Serving alone: servables/tensorflow/util.cc and batching/batching_session.cc.
TENSORFLOW_SERVING = {
    ":tensorflow:serving:runtime_latency_bucket",
    ":tensorflow:serving:batching_session:queuing_latency_bucket",
}
METRIC = re.compile(r":tensorflow:serving:[\w:]+|jdfd_keras_\w+|\bup\b")
# Series of promtool: every 15 s, in 30 minutes. 3 of 100 requests fail in 10 minutes from 10 on.
REQUESTS = ':tensorflow:serving:request_count{{model_name="detector",status="{}",job="detector"}}'
ALERT_TESTS = {
    "rule_files": ["alerts.yml"],
    "evaluation_interval": "15s",
    "tests": [
        {
            "interval": "15s",
            "input_series": [
                {"series": 'up{job="detector",instance="a:8501"}', "values": "1x40 0x40 1x40"},
                {"series": REQUESTS.format("OK"), "values": "0+97x120"},
                {"series": REQUESTS.format("INTERNAL"), "values": "0x40 3+3x40 123x40"},
                {"series": REQUESTS.format("INVALID_ARGUMENT"), "values": "0x120"},
            ],
            "alert_rule_test": [
                {"eval_time": time, "alertname": name, "exp_alerts": alerts}
                for time, name, alerts in (
                    ("9m", "DetectorDown", []),
                    (
                        "14m",
                        "DetectorDown",
                        [
                            {
                                "exp_labels": {
                                    "severity": "page",
                                    "job": "detector",
                                    "instance": "a:8501",
                                },
                                "exp_annotations": {"summary": "a:8501 does not respond"},
                            }
                        ],
                    ),
                    ("25m", "DetectorDown", []),
                    ("9m", "DetectorServerErrors", []),
                    (
                        "19m",
                        "DetectorServerErrors",
                        [
                            {
                                "exp_labels": {"severity": "page"},
                                "exp_annotations": {
                                    "summary": "More than 1 % of requests fail because of the "
                                    "server"
                                },
                            }
                        ],
                    ),
                    ("28m", "DetectorServerErrors", []),
                    # A failure of the server is none of the client.
                    ("28m", "DetectorClientErrors", []),
                )
            ],
        }
    ],
}


@pytest.fixture(scope="module")
def dashboard():
    return json.loads((SERVING / "grafana" / "dashboard.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def exported_metrics(tmp_path_factory):
    """Names of the samples that our server exports, and those of TensorFlow Serving alone."""
    metrics = ServerMetrics(Repository([ModelConfig("tiny", tmp_path_factory.mktemp("tiny"))]))
    metrics.count("tiny", "REST", "Predict", "OK", 0.1)
    text = metrics.expose().decode()
    ours = set(re.findall(r"^([\w:]+)[{ ]", text, flags=re.MULTILINE))
    # A family without a version has no sample yet.
    ours |= set(re.findall(r"^# TYPE ([\w:]+) gauge", text, flags=re.MULTILINE))
    return ours | TENSORFLOW_SERVING


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def queries_of(dashboard):
    """The queries of all panels, with values for Grafana's variables."""
    return [
        target["expr"].replace("$__rate_interval", "5m").replace("$job", "detector")
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]


def find_lost(given, kept, path=""):
    """Return the paths of what a typed model did not keep of a document."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [
            lost
            for key in given
            for lost in find_lost(given[key], kept.get(key, "missing"), f"{path}/{key}")
        ]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        pairs = enumerate(zip(given, kept, strict=True))
        return [lost for at, pair in pairs for lost in find_lost(*pair, f"{path}/{at}")]
    return [] if given == kept else [path]


def test_the_rules_of_the_operator_are_those_of_prometheus():
    assert load(MONITORING / "prometheusrule.yaml")["spec"] == load(SERVING / "alerts.yml")


@pytest.mark.parametrize("name", ["PodMonitor", "PrometheusRule"])
def test_objects_of_the_operator_match_its_definitions(name):
    from cloudcoil.models.prometheus_operator import v1

    document = load(MONITORING / f"{name.lower()}.yaml")
    assert document["kind"] == name

    def keep(document):
        model = getattr(v1, name).model_validate(document)
        return model.model_dump(mode="json", by_alias=True, exclude_unset=True)

    assert find_lost(document, keep(document)) == []
    # The models ignore a field that they do not know: it is lost.
    misspelt = json.loads(json.dumps(document).replace('"spec": {', '"spec": {"grups": [],'))
    assert find_lost(misspelt, keep(misspelt)) == ["/spec/grups"]


def test_the_pod_monitor_finds_the_pods_and_their_metrics():
    monitor = load(MONITORING / "podmonitor.yaml")["spec"]
    pod = load(SERVING / "kubernetes" / "deployment.yaml")["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    (endpoint,) = monitor["podMetricsEndpoints"]
    (container,) = pod["spec"]["containers"]
    assert endpoint["port"] in [port["name"] for port in container["ports"]]
    (job,) = load(SERVING / "prometheus.yml")["scrape_configs"]
    assert endpoint["path"] == job["metrics_path"]
    # The alerts refer to this job.
    assert labels[monitor["jobLabel"]] == job["job_name"]


def test_the_dashboard_matches_the_schema_of_grafana(dashboard):
    from grafana_foundation_sdk.cog import encoder, plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()

    def keep(document):
        text = encoder.JSONEncoder(sort_keys=True).encode(Dashboard.from_json(document))
        return json.loads(text)

    assert find_lost(dashboard, keep(dashboard)) == []
    assert find_lost(dashboard | {"titel": ""}, keep(dashboard | {"titel": ""})) == ["/titel"]


def test_panels_of_the_dashboard_do_not_overlap(dashboard):
    occupied = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + column, place["y"] + row)
            for column in range(place["w"])
            for row in range(place["h"])
        }
        assert not cells & occupied, panel["title"]
        occupied |= cells
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_every_metric_of_alerts_and_dashboard_is_exported(dashboard, exported_metrics):
    queries = queries_of(dashboard)
    queries += [
        rule["expr"] for group in load(SERVING / "alerts.yml")["groups"] for rule in group["rules"]
    ]
    assert len(queries) > 15
    for query in queries:
        names = set(METRIC.findall(query))
        assert names, query
        assert names <= exported_metrics | {"up"}, query


def test_prometheus_reads_the_rules_and_all_queries(dashboard, tmp_path):
    rules = [
        {"record": f"panel:query{number}", "expr": query}
        for number, query in enumerate(queries_of(dashboard))
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool = find_program("promtool", "prometheus")
    command = [promtool, "check", "rules", str(SERVING / "alerts.yml"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_alerts_are_sent_while_their_condition_holds(tmp_path):
    (tmp_path / "alerts.yml").write_bytes((SERVING / "alerts.yml").read_bytes())
    (tmp_path / "test.yml").write_text(yaml.safe_dump(ALERT_TESTS))
    promtool = find_program("promtool", "prometheus")
    command = [promtool, "test", "rules", "test.yml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
