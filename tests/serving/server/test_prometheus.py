from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.serving.server.prometheus import ServerMetrics
from jdfd_keras.serving.server.repository import Repository


def read(metrics):
    lines = metrics.expose().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_unknown_model_names_add_no_time_series(tmp_path):
    metrics = ServerMetrics(Repository([ModelConfig("tiny", tmp_path)]))
    for status in ("OK", "NOT_FOUND"):
        metrics.count("made up", "Predict", "REST", status, 0.001)
        metrics.count("tiny", "Predict", "REST", status, 0.001)
    before = read(metrics)
    for number in range(1000):
        metrics.count(f"model{number}", "Predict", "REST", "NOT_FOUND", 0.001)
        metrics.count(f"tiny{number}", "Predict", "REST", "OK", 0.001)
    after = read(metrics)
    assert after.keys() == before.keys()
    for status in ("OK", "NOT_FOUND"):
        counted = f':tensorflow:serving:request_count{{model_name="",status="{status}"}}'
        assert float(after[counted]) == float(before[counted]) + 1000
