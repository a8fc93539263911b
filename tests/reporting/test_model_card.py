"""The model card: what was recorded, what was not, and the reading of scores."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

import jdfd_keras
from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.domain import FileMeasures, fit_domain
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.evaluation.eval_data import Excluded, Protocol, TrainingProtocol
from jdfd_keras.evaluation.metrics import Estimate
from jdfd_keras.evaluation.report import build_report, save_report
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.io.files import save_options
from jdfd_keras.model.weight_import import ImportFacts
from jdfd_keras.options import (
    AugmentOptions,
    EvaluateOptions,
    FaceOptions,
    ModelOptions,
    OptimizerOptions,
    SplitOptions,
    TrainOptions,
    UnlabelledOptions,
)
from jdfd_keras.reporting.model_card import read_report, write_model_card
from jdfd_keras.training.run_folder import DataFacts, write_provenance

DIGEST = "a" * 64


@pytest.fixture
def write(tmp_path):
    """A function that writes a card and returns its sections by title, the first one by ""."""

    def write_card(calibration=None, demonstration=False, faces=None, **sections):
        path = tmp_path / "card.md"
        facts = ("detector", 7, "0123abcd", demonstration)
        metadata = ModelMetadata(faces or FaceOptions(), calibration, *facts)
        write_model_card(path, metadata, has_decoder=True, **sections)
        first, *others = path.read_text(encoding="utf-8").split("\n## ")
        return {"": first} | dict(text.split("\n", 1) for text in others)

    return write_card


@pytest.fixture
def run(tmp_path):
    """A run folder whose second epoch of three is the best.

    It has six faces of four videos; the last one of training is from another dataset.
    """
    swap, real, foreign, own = "ffpp/FaceSwap/c23/0_3", "ffpp/real/c23/0", "u/1", "u/2"
    provenance = pa.table(
        {
            "video_id": [swap, swap, real, foreign, own, own],
            "split": ["train"] * 4 + ["val"] * 2,
            "label": pa.array([1, 1, 0, -1, 1, 1], pa.int8()),
        }
    )
    folder = tmp_path / "run"
    folder.mkdir()
    facts = DataFacts("faces32", "d", 4, 1, 2, "none that we | know")
    optimizer = OptimizerOptions(optimizer="adam", decay_rate=0.25)
    groups = {"split": SplitOptions("strict"), "train": TrainOptions(split_table="mine")}
    save_options(folder / "options.json", data=facts, optimizer=optimizer, **groups)
    write_provenance(folder, provenance)
    (folder / "history.csv").write_text(
        "val_classification_frame_auc,val_loss\n0.6,1\n0.75,1\n0.5,1\n"
    )
    return folder


@pytest.mark.parametrize("mark", [False, True])
def test_a_card_begins_with_what_is_not_seen_and_the_mark_of_a_demonstration(write, mark):
    first = write(demonstration=mark)[""]
    assert "does not see changed sound or generated scenes" in first
    sentence = "**For demonstration only: this model cannot judge real videos.**"
    assert (first.split("\n\n")[1] == sentence) is mark and first.count(sentence) == mark


@pytest.mark.parametrize(
    ("faces", "expected"),
    [
        (FaceOptions(), "aligned with dlib's model of 68 landmarks"),
        (FaceOptions(detector="mtcnn"), "aligned with dlib's model of 68 landmarks"),
        (FaceOptions(detector="mesh"), "aligned with the face mesh of MediaPipe"),
        (FaceOptions(detector="mesh", alignment="box"), "none: faces were cropped"),
        (FaceOptions(detector="none"), "none: images were taken as they are"),
    ],
)
def test_a_card_names_the_landmarks_of_the_training(write, faces, expected):
    (line,) = [one for one in write(faces=faces)["Licences"].split("\n- ") if "Landmarks" in one]
    assert expected in line and ("iBUG" in line) == ("dlib" in line)


def test_the_card_states_its_date_and_software(write):
    before = datetime.now().astimezone().date()
    text = write()[""]
    after = datetime.now().astimezone().date()
    assert text.startswith("# detector, version 7\n")
    assert any(f"| written | {day:%Y-%m-%d} |" in text for day in (before, after))
    assert f"| by | jdfd-keras {jdfd_keras.__version__} |" in text


def test_a_run_adds_its_sections_after_limits_and_reading(write, run):
    titles = ["Limits", "Reading a score", "Input", "Licences", "Figures", "Training data"]
    titles += ["Training", "Notes", "Lite"]
    sections = write(run=run, card={"Notes": {"a_b": "x|y"}}, extra={"Lite": "as it is"})
    assert [title for title in sections if title in titles] == titles
    assert sections["Notes"].strip() == "- a b: x\\|y"
    assert sections["Lite"].strip() == "as it is"
    assert "No test figures" in sections["Figures"]


def test_without_a_run_its_facts_are_stated_as_missing(write, tmp_path):
    assert "without its run" in write()["Data, training and figures"]
    of_file = write(run=tmp_path / "model.keras")
    assert "Figures" in of_file and "Training" not in of_file


def test_fake_segments_are_explained_if_verdicts_can_be_uncertain(write):
    sentence = "a quarter of their faces"
    text = write(Calibration(uncertain_from=0.3, uncertain_to=0.8))["Reading a score"]
    assert sentence in text and "| 0.3 to 0.8 | uncertain |" in text
    assert "| below 0.3 | no evidence of manipulation |" in text
    text = write(Calibration())["Reading a score"]
    assert sentence not in text and " to 0.5 | uncertain |" not in text


def test_a_card_states_the_evidence_that_validation_supports(write):
    real, fake = np.linspace(0.01, 0.79, 40), np.linspace(0.31, 0.99, 30)
    files = [FileMeasures(size_px=80 + n, pixel_format="yuv420p") for n in range(70)]
    calibration = Calibration(
        uncertain_from=0.3,
        uncertain_to=0.8,
        threshold=0.8,
        bias=-0.5,
        num_real=40,
        num_fake=30,
        cllr=0.4,
        min_cllr=0.25,
        target_error_rate=0.05,
        auc=0.8,
        auc_low=0.7,
        auc_high=0.9,
        lr_slope=1.0,
        real_scores=tuple(real),
        fake_scores=tuple(fake),
        domain=fit_domain(files),
    )
    sections = write(calibration)
    text = sections["Reading a score"]
    assert "P(fake) at equal priors" in text and "bias -0.5" in text
    assert "Cllr 0.400 bits, at best 0.250" in text
    assert "At most 5 % of real files" in text
    # 0 of 40 real files are up to 8.81 %, and 0 of 30 fake ones up to 11.57 %.
    assert "from 1/8.64 to 11.4" in text
    two = calibration.thresholds(2)
    assert "| 1 | 0.3 | 0.8 |" in text and f"| 2 | {two[0]:.4g} | {two[1]:.4g} |" in text
    assert f"more than {calibration.max_people} judged people" in text
    assert "0.800 [0.700, 0.900]" in text and "better than chance" not in text
    assert "the 70 validation files" in sections["Domain"]
    assert "yuv420p" in sections["Domain"] and " px |" in sections["Domain"]
    chance = write(replace(calibration, auc_low=0.5))["Reading a score"]
    assert "does not show that it is better than chance" in chance
    assert "Unknown" in write(replace(calibration, domain=None))["Domain"]


def test_the_data_of_a_run_is_described_by_split(write, run, snapshot):
    assert write(run=run)["Training data"] == snapshot


@pytest.mark.parametrize(("leakage", "has_note"), [("none between all", True), ("1 pair", False)])
def test_an_unused_permission_of_leakage_is_explained(write, tmp_path, leakage, has_note):
    facts = DataFacts("d", "digest", 4, 0, 2, leakage)
    save_options(tmp_path / "options.json", data=facts, train=TrainOptions(allow_leak=True))
    text = write(run=tmp_path)["Training data"]
    assert ("`allow leak`" in text) is has_note


def test_a_card_states_that_validation_fakes_were_blended(write, tmp_path):
    facts = DataFacts("d", "digest", 8, 0, 2, "none", 8, "blended fakes (swapped)")
    save_options(tmp_path / "options.json", data=facts)
    text = write(run=tmp_path)["Training data"]
    assert "8 of the real faces were also trained on as blended fakes" in text
    assert "epoch was chosen on blended fakes (swapped): the validation AUC is no" in text


def test_the_training_of_a_run_is_described(write, run):
    text = write(run=run)["Training"]
    assert "epoch 2 of 3" in text and "(0.750)" in text
    assert "| optimizer | adam | " in text and "| decay rate | 0.25 | " in text


def test_missing_facts_are_stated_as_not_recorded(write, tmp_path):
    save_options(tmp_path / "options.json")
    sections = write(run=tmp_path)
    assert "| training " + 4 * "| not recorded " + "|" in sections["Training data"]
    assert "Leakage: not recorded." in sections["Training data"]
    assert "not recorded" in sections["Training"]


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


def test_metrics_are_listed_with_intervals_by_dataset(write, report):
    text = write(report=report)["Figures"]
    auc = {"all": report.video.auc}
    auc |= {name: stratum.video.auc for name, stratum in report.by_data.items()}
    assert auc.keys() == {"all", "near", "far"}
    for name, counts in (("all", "12 / 12"), ("near", "6 / 6"), ("far", "6 / 6")):
        estimate = auc[name]
        assert estimate.low < estimate.value < estimate.high
        assert (
            f"| {name} | {counts} | {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
        ) in text
    assert report.protocol.intervals in text and "BCa" in text and "100 resamples" in text
    assert "fewer than 20 videos" in text
    assert text.index("class has 12 videos") < text.index("| dataset |")
    many = replace(report, video=replace(report.video, num_real=20, num_fake=20))
    assert "few videos" not in write(report=many)["Figures"]


def test_metrics_without_intervals_have_no_brackets(write, report):
    bare = dict.fromkeys(("auc", "eer", "accuracy"), Estimate(1.0))
    text = write(report=replace(report, video=replace(report.video, **bare)))["Figures"]
    assert "| 1.000 | 1.000 | 1.000 |" in text
    assert "brackets" not in text and "fewer than" not in text


def test_the_evaluation_is_described_with_excluded_videos(write, report):
    text = write(report=report)["Evaluation"]
    assert "Split `test`, threshold 0.500, 24 faces." in text
    assert "1 of 25 videos (no face" in text and "found: 1)" in text
    assert "All 25 videos" in write(report=replace(report, excluded=()))["Evaluation"]


def save(report, folder, **protocol):
    changed = {"model_digest": "", "calibration": None} | protocol
    save_report(replace(report, protocol=replace(report.protocol, **changed)), folder)
    return folder


def test_a_report_is_identified_by_the_digest_of_its_model(report, tmp_path):
    assert read_report(save(report, tmp_path, model_digest=DIGEST), DIGEST).video == report.video
    calibration = Calibration(model=DIGEST)
    assert read_report(save(report, tmp_path, calibration=calibration), DIGEST)
    for protocol in ({}, {"model_digest": "b" * 64}):
        with pytest.raises(ValueError, match="model, with the SHA-256 aaaa"):
            read_report(save(report, tmp_path, **protocol), DIGEST)


def test_a_card_of_published_weights_names_them_and_no_training(write, tmp_path):
    facts = ImportFacts("mesonet-meso4", "meso4", "Meso4_DF.h5", "ab" * 32)
    save_options(tmp_path / "options.json", imported=facts, model=ModelOptions(network="meso4"))
    sections = write(run=tmp_path)
    assert "`Meso4_DF.h5` (mesonet-meso4, SHA-256 abab" in sections["Origin of the weights"]
    assert not {"Training data", "Training"} & set(sections)


def test_the_evaluation_states_that_fakes_were_blended(write, report):
    training = report.protocol.training
    assert "blended" not in write(report=report)["Evaluation"]
    facts = replace(training.data, blended_fakes=8, validated_on="blended fakes (local)")
    protocol = replace(report.protocol, training=replace(training, data=facts))
    text = " ".join(write(report=replace(report, protocol=protocol))["Evaluation"].split())
    assert "seed 0. Trained also on 8 blended fakes, made from real faces anew" in text
    assert "epoch. The epoch was chosen on blended fakes (local). " in text
