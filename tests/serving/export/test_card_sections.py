"""What the card says of a run: what was recorded, and that the rest was not."""

import json

import numpy as np
import pyarrow as pa
import pytest

from jdfd_keras.evaluation.eval_data import Excluded
from jdfd_keras.evaluation.report import build_report
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.io.files import save_options
from jdfd_keras.options import EvaluateOptions, OptimizerOptions, SplitOptions
from jdfd_keras.serving.export.card_sections import read_report, tell_report, tell_run
from jdfd_keras.training.run_folder import write_seen
from jdfd_keras.training.training_data import DataFacts

DIGEST = "a" * 64


@pytest.fixture
def seen():
    """Six faces of four videos, the last of training a foreign one."""
    swap, real, foreign, own = "ffpp/FaceSwap/c23/0_3", "ffpp/real/c23/0", "u/1", "u/2"
    return pa.table(
        {
            "video_id": [swap, swap, real, foreign, own, own],
            "split": ["train"] * 4 + ["val"] * 2,
            "label": pa.array([1, 1, 0, -1, 1, 1], pa.int8()),
        }
    )


@pytest.fixture
def run(tmp_path, seen):
    """A run folder, one epoch of three the best."""
    facts = DataFacts("faces32", "d", 4, 1, 2, "none that we | know")
    optimizer = OptimizerOptions(optimizer="adam", decay_rate=0.25)
    save_options(
        tmp_path / "options.json", data=facts, optimizer=optimizer, split=SplitOptions("strict")
    )
    write_seen(tmp_path, seen)
    (tmp_path / "history.csv").write_text("val_classification_frame_auc\n0.6\n0.75\n0.5\n")
    return tmp_path


def test_run_tells_its_data_by_split(run):
    told = tell_run(run)["Data it was trained on"]
    assert "Data set: **faces32**. Splits: strict." in told
    assert "| split | faces | real / fake faces | videos | real / fake videos |" in told
    assert "| training | 4 | 1 / 2 | 3 | 1 / 1 |" in told
    assert "| validation | 2 | 0 / 2 | 1 | 0 / 1 |" in told
    assert "FaceForensics++ (2 videos), `u`, no published set (2 videos)" in told
    assert "Of the training faces 1 are foreign" in told
    assert "Leaks: none that we \\| know." in told


@pytest.mark.parametrize(("leaks", "is_said"), [("none between all", True), ("1 pair", False)])
def test_leaks_that_were_allowed_but_not_there_are_no_riddle(tmp_path, leaks, is_said):
    told = {"data": {"name": "d", "leaks": leaks}, "train": {"allow_leak": True}}
    (tmp_path / "options.json").write_text(json.dumps(told))
    said = tell_run(tmp_path)["Data it was trained on"]
    assert ("would have let them pass; there were none" in said) is is_said


def test_an_older_run_tells_no_classes(run, seen):
    write_seen(run, seen.drop_columns("label"))
    told = tell_run(run)["Data it was trained on"]
    assert "| training | 4 | not recorded | 3 | not recorded |" in told
    assert "| validation | 2 | not recorded | 1 | not recorded |" in told


def test_run_tells_its_training_in_words(run):
    told = tell_run(run)["Training"]
    assert "epoch 2 of 3, the best by validation frame AUC (0.750)" in told
    assert "| optimizer | adam | optimizer (the paper's is SGD) |" in told
    assert "| decay rate | 0.25 | factor on both rates at every decay (1 keeps them) |" in told


def test_what_was_not_recorded_is_said_to_be_unknown(tmp_path):
    (tmp_path / "options.json").write_text("{}")
    told = "\n".join(tell_run(tmp_path).values())
    assert "Which data set it was trained on was not recorded." in told
    assert "| training | not recorded | not recorded | not recorded | not recorded |" in told
    assert "How many epochs it was trained for was not recorded." in told
    assert "Leaks: not recorded." in told


def test_a_file_alone_tells_nothing(tmp_path):
    assert tell_run(tmp_path / "model.keras") == {}


@pytest.fixture(scope="module")
def report():
    """What `evaluate` gives of two data sets, of which one video lacks a face."""
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
    protocol = {
        "model": "run",
        "model_digest": DIGEST,
        "training": {"data": {"name": "faces32"}},
        "calibration": None,
        "split": "test",
        "data": {"near": {}, "far": {}},
        "leaks": "none",
    }
    return build_report(
        scores,
        threshold=0.5,
        options=EvaluateOptions(rounds=100),
        protocol=protocol,
        excluded=[Excluded("far", "v99", True, "no face was found", "test", "c23", "FaceSwap")],
    )


def test_report_tells_its_figures_with_intervals_by_data_set(report):
    told = tell_report(report)["Figures"]
    auc = {"all": report["video"]["auc"]}
    auc |= {name: group["video"]["auc"] for name, group in report["by_data"].items()}
    assert auc.keys() == {"all", "near", "far"}
    for name, counts in (("all", "12 / 12"), ("near", "6 / 6"), ("far", "6 / 6")):
        value = auc[name]
        assert value["low"] < value["value"] < value["high"]
        assert (
            f"| {name} | {counts} | {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
        ) in told
    assert "95 %, BCa bootstrap over videos within each class, 100 rounds" in told
    assert "A video's score is the mean of its faces." in told
    assert "With fewer than 20 videos of a class" in told
    assert told.index("the smaller class has 12 videos") < told.index("| data set |")
    many = report["video"] | {"num_real": 20, "num_fake": 20}
    assert "These are few" not in tell_report(report | {"video": many})["Figures"]


def test_figures_without_intervals_tell_of_none(report):
    bare = {
        metric: {"value": 1.0, "low": None, "high": None} for metric in ("auc", "eer", "accuracy")
    }
    told = tell_report(report | {"video": report["video"] | bare})["Figures"]
    assert "| 1.000 | 1.000 | 1.000 |" in told
    assert "brackets" not in told and "With fewer" not in told


def test_report_tells_how_it_was_tested_and_what_was_left_out(report):
    told = tell_report(report)["How it was tested"]
    assert "Split `test`, threshold 0.500, 24 faces." in told
    assert "without a score: 1 of 25 videos (no face was found: 1)" in told
    whole = tell_report(report | {"excluded": []})["How it was tested"]
    assert "Every one of the 25 videos has a score." in whole


def write_report(folder, **protocol):
    (folder / "report.json").write_text(json.dumps({"protocol": {"calibration": None, **protocol}}))
    return folder


def test_report_is_known_by_the_digest_of_its_model(tmp_path):
    assert read_report(write_report(tmp_path, model_digest=DIGEST), DIGEST)
    assert read_report(write_report(tmp_path, calibration={"model": DIGEST}), DIGEST)


@pytest.mark.parametrize("protocol", [{}, {"model_digest": "b" * 64}])
def test_report_of_another_model_is_refused(tmp_path, protocol):
    with pytest.raises(ValueError, match="of the model that is exported, with the SHA-256 aaaa"):
        read_report(write_report(tmp_path, **protocol), DIGEST)


def test_report_that_is_none_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"without report\.json"):
        read_report(tmp_path, DIGEST)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(ValueError, match="as `jdfd-keras evaluate` writes it"):
        read_report(tmp_path, DIGEST)
    with pytest.raises(ValueError, match="of this version of jdfd-keras"):
        tell_report({"protocol": {}})
