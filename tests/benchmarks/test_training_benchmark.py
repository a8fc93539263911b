"""The training benchmark: both frameworks train the same network, and the ratios are right."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from jdfd_keras.model.network import build_detector
from jdfd_keras.options import ModelOptions, UnlabelledOptions
from jdfd_keras.training.training_data import load_training_data

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    import training

    yield training
    sys.path.remove(str(BENCHMARKS))
    del sys.modules["training"]


def test_the_generated_data_set_can_be_trained_on(benchmark, tmp_path):
    benchmark.prepare_set(tmp_path / "set", 71, 16)
    loaded = load_training_data(tmp_path / "set", UnlabelledOptions(), seed=0, allow_leak=False)
    assert (loaded.facts.train_faces, loaded.facts.val_faces) == (16, 4)
    assert loaded.train.read(15).shape == (71, 71, 3)


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is not installed")
def test_the_pytorch_detector_has_as_many_trainable_weights(benchmark):
    from torch_detector import Detector

    theirs = sum(weight.numel() for weight in Detector(299).parameters())
    ours = build_detector(ModelOptions(encoder_weights="none"))
    assert theirs == sum(int(v.numpy().size) for v in ours.trainable_variables)


def test_ratios_are_quotients_of_the_times(benchmark):
    seconds = {"from shards": 2.1, "in memory": 2.0, "without decoder": 1.6}
    seconds |= {"PyTorch, channels first": 4.0, "PyTorch, channels last": 2.5}
    measured = benchmark.find_ratios({"steps": {"seconds": seconds}, "memory": {"growth_mb": 3.0}})
    assert measured == pytest.approx(
        {"pipeline": 1.05, "decoder": 1.25, "torch": 0.8, "memory": 3.0}
    )
    del seconds["PyTorch, channels first"], seconds["PyTorch, channels last"]
    assert "torch" not in benchmark.find_ratios({"steps": {"seconds": seconds}})


def test_the_page_shows_met_targets_and_skipped_parts(benchmark):
    seconds = {"from shards": 2.2, "in memory": 2.0, "without decoder": 1.6}
    page = benchmark.render(
        {
            "machine": {"date": "2026-01-01", "processor": "P", "cores": "2", "python": "3.12"},
            "steps": {"seconds": seconds, "batch_size": 4, "size": 299, "processes": 3},
            "jax": {"skipped": "JAX finds no GPU, only cpu"},
        }
    )
    assert "1.1 | **not met** |" in page
    assert "1.25 | met |" in page
    assert "Skipped: JAX finds no GPU, only cpu." in page
    assert "| from shards | 2.200 | 1.82 |" in page


def test_the_readmes_show_the_latest_result(benchmark):
    report = json.loads((BENCHMARKS / "results/training.json").read_text(encoding="utf-8"))
    page = benchmark.render(report)
    assert page == (BENCHMARKS / "results/training.md").read_text(encoding="utf-8")
    table = page.split("\n\n")[2]
    assert table.startswith("| measurement")
    for readme in (BENCHMARKS.parent / "README.md", BENCHMARKS / "README.md"):
        assert table in readme.read_text(encoding="utf-8")
