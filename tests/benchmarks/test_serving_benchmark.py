"""The benchmark of serving: measurements, targets and report."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    import serving

    yield serving
    sys.path.remove(str(BENCHMARKS))
    for name in ("serving", "serving_load", "serving_processes"):
        del sys.modules[name]


class Client:
    """Takes 20 ms per request; every fourth request fails."""

    def __init__(self):
        self.sent = -1  # the first request is not timed

    def send(self) -> str:
        time.sleep(0.02)
        self.sent += 1
        return "503" if self.sent and self.sent % 4 == 0 else ""

    def close(self) -> None:
        pass


def make_report() -> dict:
    per_s = {"direct": [10.0, 99.0, 8.0], "REST": [9.0, 9.0, 1.0], "gRPC": [9.5, 9.5, 9.5]}
    row = {"transport": "REST", "clients": 64, "requests": 9, "per_s": 7.5, "failed": 0}
    return {
        "machine": {"date": "2026-01-01", "processor": "P", "cores": "2", "python": "3.12"},
        "load": {"size": 299, "seconds": 30.0, "rows": [row | {"p50_ms": 8500, "p99_ms": 9000}]},
        "throughput": {"size": 299, "batch_size": 32, "batches": 6, "per_s": per_s},
        "overhead": {
            "size": 299,
            "calls": 50,
            "p50_ms": {"direct": [100.0], "REST": [105.5], "gRPC": [101.0]},
        },
        "overhead_small": {
            "size": 71,
            "calls": 50,
            "p50_ms": {"direct": [20.0], "REST": [22.0], "gRPC": [21.0]},
        },
        "decoder": {"size": 299, "batch_size": 32, "seconds": {"faces": [2.0], "both": [2.4]}},
        "memory": {"size": 71, "requests": 100, "rss_mb": [500.0] * 5 + [900.0] * 5 + [921.0] * 5},
        "swap": {"size": 71, "requests": 99, "failed": 1, "load_s": 3.0, "longest_ms": 70.0},
    }


def test_clients_record_latencies_failures_and_duration(benchmark):
    load = benchmark.run_clients([Client(), Client()], lambda started: started < 16)
    assert len(load.latencies_s) + len(load.errors) == 16
    assert load.errors and set(load.errors) == {"503"}
    # Sixteen requests of 20 ms, two at a time: 160 ms.
    assert 0.16 <= load.duration_s < 0.4
    assert load.per_s == pytest.approx(len(load.latencies_s) / load.duration_s)
    assert 20 <= load.quantile_ms(0.5) <= load.quantile_ms(0.99) < 100
    load.latencies_s = [value / 1000 for value in range(100, 0, -1)]
    assert load.quantile_ms(0.5) == pytest.approx(50)
    assert load.quantile_ms(0.99) == pytest.approx(99)


def test_measurements_use_the_slower_transport_and_medians(benchmark):
    measured = benchmark.compare_with_targets(make_report())
    expected = {"throughput": 0.9, "overhead_ms": 5.5, "decoder": 1.2, "growth_mb": 21.0}
    assert measured == pytest.approx(expected | {"failed": 1})
    assert benchmark.compare_with_targets({}) == {}


def test_the_report_states_which_targets_were_met(benchmark):
    page = benchmark.render(make_report())
    assert "| at least 0.9 | 0.9 | met |" in page
    assert "| at most 5 | 5.5 | **not met** |" in page
    assert "| at least 1.2 | 1.2 | met |" in page
    assert "| at most 20 | 21 | **not met** |" in page
    assert "| at most 0 | 1 | **not met** |" in page
    assert "| REST, JPEG in base64 | 64 | 7.50 | 8,500 | 9,000 | 0 |" in page


@pytest.mark.slow
def test_the_swap_benchmark_runs_to_its_end(tmp_path):
    out = tmp_path / "serving.json"
    command = [sys.executable, str(BENCHMARKS / "serving.py"), "--out", str(out)]
    options = ["--only", "swap", "--before-swap", "0.5"]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    assert "| at most 0 | 0 | met |" in done.stdout
    assert out.is_file()


def test_the_readme_shows_the_tables_of_the_latest_result(benchmark):
    report = json.loads((BENCHMARKS / "results/serving.json").read_text(encoding="utf-8"))
    page = benchmark.render(report)
    assert page == (BENCHMARKS / "results/serving.md").read_text(encoding="utf-8")
    tables = [block for block in page.strip().split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    readme = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    for table in tables:
        assert table in readme
