"""Sections of the model card: what was recorded, and what was not."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from jdfd_keras.client.metadata import Calibration
from jdfd_keras.evaluation.eval_data import Excluded, Protocol, TrainingProtocol
from jdfd_keras.evaluation.evaluate_scores import save_report
from jdfd_keras.evaluation.metrics import Estimate
from jdfd_keras.evaluation.report import build_report
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.io.files import save_options
from jdfd_keras.options import (
    AugmentOptions,
    EvaluateOptions,
    OptimizerOptions,
    SplitOptions,
    TrainOptions,
    UnlabelledOptions,
)
from jdfd_keras.serving.export.card_sections import describe_report, describe_run, read_report
from jdfd_keras.training.run_folder import DataFacts, write_provenance

DIGEST = "a" * 64


@pytest.fixture
def provenance():
    """Six faces of four videos; the last one of training is from another dataset."""
    swap, real, foreign, own = "ffpp/FaceSwap/c23/0_3", "ffpp/real/c23/0", "u/1", "u/2"
    return pa.table(
        {
            "video_id": [swap, swap, real, foreign, own, own],
            "split": ["train"] * 4 + ["val"] * 2,
            "label": pa.array([1, 1, 0, -1, 1, 1], pa.int8()),
        }
    )


@pytest.fixture
def run(tmp_path, provenance):
    """A run folder whose second epoch of three is the best."""
    facts = DataFacts("faces32", "d", 4, 1, 2, "none that we | know")
    optimizer = OptimizerOptions(optimizer="adam", decay_rate=0.25)
    save_options(
        tmp_path / "options.json", data=facts, optimizer=optimizer, split=SplitOptions("strict")
    )
    write_provenance(tmp_path, provenance)
    (tmp_path / "history.csv").write_text("val_classification_frame_auc\n0.6\n0.75\n0.5\n")
    return tmp_path


def test_the_data_of_a_run_is_described_by_split(run):
    text = describe_run(run)["Training data"]
    assert "Dataset: **faces32**. Splits: strict." in text
    assert "| split | faces | real / fake faces | videos | real / fake videos |" in text
    assert "| training | 4 | 1 / 2 | 3 | 1 / 1 |" in text
    assert "| validation | 2 | 0 / 2 | 1 | 0 / 1 |" in text
    assert "FaceForensics++ (2 videos), `u`, not a published dataset (2 videos)" in text
    assert "1 of the training faces were used without their labels" in text
    assert "Leakage: none that we \\| know." in text


@pytest.mark.parametrize(("leakage", "has_note"), [("none between all", True), ("1 pair", False)])
def test_an_unused_permission_of_leakage_is_explained(tmp_path, leakage, has_note):
    facts = DataFacts("d", "digest", 4, 0, 2, leakage)
    save_options(tmp_path / "options.json", data=facts, train=TrainOptions(allow_leak=True))
    text = describe_run(tmp_path)["Training data"]
    assert ("had no effect: there was none" in text) is has_note


def test_the_training_of_a_run_is_described(run):
    text = describe_run(run)["Training"]
    assert "epoch 2 of 3, the best by validation frame AUC (0.750)" in text
    assert "| optimizer | adam | optimizer (the paper's is SGD) |" in text
    assert (
        "| decay rate | 0.25 | factor on both learning rates at every decay; 1: constant |" in text
    )


def test_missing_facts_are_stated_as_not_recorded(tmp_path):
    save_options(tmp_path / "options.json")
    text = "\n".join(describe_run(tmp_path).values())
    assert "The training dataset was not recorded." in text
    assert "| training | not recorded | not recorded | not recorded | not recorded |" in text
    assert "The number of training epochs was not recorded." in text
    assert "Leakage: not recorded." in text


def test_a_single_model_file_has_no_sections(tmp_path):
    assert describe_run(tmp_path / "model.keras") == {}


@pytest.fixture(scope="module")
def report():
    """A report on two datasets, in which one video has no face."""
    rng = np.random.default_rng(0)
    num_videos = 24
    label = np.arange(num_videos) % 2
    scores = Scores.from_faces(
        video_id=pa.array([f"v{video}" for video in range(num_videos)]),
        label=label,
        score=np.clip(0.35 + 0.15 * label + 0.2 * rng.standard_normal(num_videos), 0, 1),
        frame_index=np.zeros(num_videos, int),
        track_id=np.zeros(num_videos, int),
        data=pa.array(["near"] * 12 + ["far"] * 12),
        manipulation=pa.array(["FaceSwap" if fake else "" for fake in label]),
        compression=pa.array(["c23"] * num_videos),
        split=pa.array(["test"] * num_videos),
    )
    protocol = Protocol(
        model="run",
        model_digest=DIGEST,
        training=TrainingProtocol(
            DataFacts("faces32", "d", 4, 1, 2, "none"),
            SplitOptions(),
            TrainOptions(),
            UnlabelledOptions(),
            AugmentOptions(),
        ),
        split="test",
        data={"near": None, "far": None},
        leakage="none",
    )
    return build_report(
        scores,
        threshold=0.5,
        options=EvaluateOptions(n_resamples=100),
        protocol=protocol,
        excluded=[Excluded("far", "v99", True, "no face was found", "test", "c23", "FaceSwap")],
    )


def test_metrics_are_listed_with_intervals_by_dataset(report):
    text = describe_report(report)["Figures"]
    auc = {"all": report.video.auc}
    auc |= {name: stratum.video.auc for name, stratum in report.by_data.items()}
    assert auc.keys() == {"all", "near", "far"}
    for name, counts in (("all", "12 / 12"), ("near", "6 / 6"), ("far", "6 / 6")):
        estimate = auc[name]
        assert estimate.low < estimate.value < estimate.high
        assert (
            f"| {name} | {counts} | {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
        ) in text
    assert "95 %, BCa bootstrap over videos within each class, 100 resamples" in text
    assert "A video's score is the mean of its face scores." in text
    assert "With fewer than 20 videos of a class" in text
    assert text.index("the smaller class has 12 videos") < text.index("| dataset |")
    many = replace(report, video=replace(report.video, num_real=20, num_fake=20))
    assert "These are few" not in describe_report(many)["Figures"]


def test_metrics_without_intervals_have_no_brackets(report):
    bare = dict.fromkeys(("auc", "eer", "accuracy"), Estimate(1.0))
    text = describe_report(replace(report, video=replace(report.video, **bare)))["Figures"]
    assert "| 1.000 | 1.000 | 1.000 |" in text
    assert "brackets" not in text and "With fewer" not in text


def test_the_evaluation_is_described_with_excluded_videos(report):
    text = describe_report(report)["Evaluation"]
    assert "Split `test`, threshold 0.500, 24 faces." in text
    assert "without a score: 1 of 25 videos (no face was found: 1)" in text
    whole = describe_report(replace(report, excluded=()))["Evaluation"]
    assert "All 25 videos have a score." in whole


def save(report, folder, **protocol):
    changed = {"model_digest": "", "calibration": None} | protocol
    save_report(replace(report, protocol=replace(report.protocol, **changed)), folder)
    return folder


def test_a_report_is_identified_by_the_digest_of_its_model(report, tmp_path):
    assert read_report(save(report, tmp_path, model_digest=DIGEST), DIGEST).video == report.video
    calibration = Calibration(model=DIGEST)
    assert read_report(save(report, tmp_path, calibration=calibration), DIGEST)


@pytest.mark.parametrize("protocol", [{}, {"model_digest": "b" * 64}])
def test_a_report_of_another_model_raises(report, tmp_path, protocol):
    with pytest.raises(ValueError, match="of the exported model, with the SHA-256 aaaa"):
        read_report(save(report, tmp_path, **protocol), DIGEST)


def test_an_invalid_report_raises(tmp_path):
    with pytest.raises(OSError, match=r"without report\.json"):
        read_report(tmp_path, DIGEST)
    for text in ("[]", "{", '{"protocol": {}}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(ValueError, match="as `jdfd-keras evaluate` writes it"):
            read_report(tmp_path, DIGEST)
