"""The data benchmark measures a valid dataset, and times as documented."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

from jdfd_keras.datasets.manifest import read_faces
from jdfd_keras.datasets.pipeline import load_faces
from jdfd_keras.datasets.transforms import find_damage

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    import data

    yield data
    sys.path.remove(str(BENCHMARKS))
    del sys.modules["data"]


def test_the_set_is_undamaged_and_its_faces_differ(benchmark, tmp_path):
    out = benchmark.write_set(tmp_path, 20)
    assert find_damage(out) == []
    images = np.concatenate([image.numpy() for image, _ in load_faces(out, "train", batch_size=8)])
    assert images.shape == (20, 299, 299, 3)
    assert len({image.tobytes() for image in images}) == 20


def test_the_large_manifest_has_its_rows_and_no_leakage(benchmark, tmp_path):
    benchmark.write_large_manifest(tmp_path / "large", 3200)
    faces = read_faces(tmp_path / "large")
    assert len(faces) == 3200
    assert len(set(faces["video_id"].to_pylist())) == 100
    assert set(faces["split"].to_pylist()) == {"train", "val", "test"}
    result = benchmark.audit_rows(tmp_path / "large")
    assert result["leaks"] == 0
    assert 0 <= result["seconds"] < 30


def test_functions_are_timed_in_turns_after_a_warm_up(benchmark):
    calls = []
    times = benchmark.time_in_turns(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    )
    assert calls == ["a", "b"] * (benchmark.ROUNDS + 1)
    assert {name: len(of) for name, of in times.items()} == dict.fromkeys("ab", benchmark.ROUNDS)


@pytest.mark.slow
def test_two_processes_are_compared_to_one(benchmark, tmp_path):
    result = benchmark.measure_prepare(tmp_path, argparse.Namespace(clips=4, frames=3))
    assert result["clips"] == 4
    expected = result["videos_per_s"]["2"] / result["videos_per_s"]["1"] / 2
    assert result["share_of_linear"] == pytest.approx(expected, rel=0.1)


def test_the_page_states_which_targets_were_met(benchmark):
    report = {
        "machine": {"date": "", "processor": "", "cores": "", "python": "", "opencv": ""},
        "audit": {"rows": 10, "seconds": 61.0, "peak_mb": 1999, "leaks": 0},
    }
    lines = benchmark.render(report).splitlines()
    assert next(line for line in lines if "60 s" in line).endswith("| 61 | **not met** |")
    assert next(line for line in lines if "MB" in line).endswith("| 1999 | met |")
