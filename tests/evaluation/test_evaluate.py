"""Evaluation and calibration of a model, with small stand-ins for the datasets."""

import dataclasses
import hashlib
import json
from types import SimpleNamespace

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import tensorflow as tf

from jdfd_keras.client.metadata import Calibration, save_calibration
from jdfd_keras.datasets import pipeline
from jdfd_keras.evaluation import eval_data
from jdfd_keras.evaluation import evaluate as module
from jdfd_keras.evaluation.calibrate import calibrate, digest_model
from jdfd_keras.evaluation.eval_data import EvalSet, Excluded, TrainingProtocol
from jdfd_keras.evaluation.evaluate import evaluate, join_manifest, predict_dataset
from jdfd_keras.evaluation.metrics import Estimate
from jdfd_keras.evaluation.report import Coverage, Report, choose_errors
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.evaluation.scores_file import read_scores, write_scores
from jdfd_keras.io.files import save_options
from jdfd_keras.model.network import build_detector
from jdfd_keras.options import (
    AugmentOptions,
    CalibrateOptions,
    EvaluateOptions,
    FaceOptions,
    FilterOptions,
    ModelOptions,
    SplitOptions,
    TrainOptions,
    UnlabelledOptions,
)
from jdfd_keras.reporting.evaluation_folder import write_calibration_figures, write_evaluation
from jdfd_keras.reporting.render_report import render_markdown
from jdfd_keras.reporting.report_text import summarize_calibration
from jdfd_keras.training.run_folder import DataFacts, TrainedModel, write_provenance

SIZE = 8
DIGEST = hashlib.sha256(b"the stand-in").hexdigest()


@pytest.fixture(scope="module")
def model():
    """A model that scores a face by its brightness and reconstructs it at half its contrast."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    last = keras.layers.ReLU(name="squeeze_relu")(keras.layers.Rescaling(1 / 255)(image))
    mean = keras.layers.GlobalAveragePooling2D()(last)
    score = keras.layers.Dense(
        1, kernel_initializer=lambda *_, **__: np.full((3, 1), 1 / 3), name="classifier_logit"
    )(mean)
    score = keras.layers.Activation("linear", name="classification")(score)
    half = keras.layers.Rescaling(0.5 / 127.5, offset=-0.5)(image)
    return keras.Model(image, {"classification": score, "reconstruction": half}, name="stand_in")


@pytest.fixture(scope="module")
def faces():
    """float32[10, 8, 8, 3], noisy faces, the first five fake and brighter."""
    level = np.array([200, 190, 180, 170, 90, 120, 80, 70, 60, 50], np.float32)
    noise = np.random.default_rng(0).uniform(-40, 40, (10, SIZE, SIZE, 3))
    return (level[:, None, None, None] + noise).astype(np.float32)


def hash_of(number):
    """Return a hash that differs from that of any other number in about half of its bits."""
    return np.random.default_rng(number).bytes(32).hex()


def to_columns(rows):
    return pa.Table.from_pylist([vars(row) for row in rows])


def make_rows(num_fake=5, num_real=5):
    """Return faces as in a manifest, two per video except the last of each class."""
    return [
        SimpleNamespace(
            video_id=f"clips/{'fake' if is_fake else 'real'}/{index // 2}",
            frame_index=index % 2 * 4,
            track_id=0,
            label=int(is_fake),
            manipulation="FaceSwap" if is_fake else "",
            compression="c23",
            split="test",
            shard="test.tfrecord",
            offset=index,
            source_ids=[f"{is_fake}{index // 2}"],
            phash=hash_of(2 * index + is_fake),
        )
        for is_fake, count in ((True, num_fake), (False, num_real))
        for index in range(count)
    ]


def make_video(video_id, **known):
    """Return a row of the table of videos."""
    label = int("/fake/" in video_id)
    manipulation = "FaceSwap" if label else ""
    return SimpleNamespace(
        video_id=video_id, label=label, manipulation=manipulation, compression="c23", **known
    )


def make_batches(faces, rows, batch_size=4):
    label = np.array([[row.label] for row in rows], np.float32)
    for start in range(0, len(rows), batch_size):
        image = faces[start : start + batch_size][: len(rows) - start]
        yield (
            image,
            {
                "classification": label[start : start + batch_size],
                "reconstruction": image / np.float32(127.5) - 1,
            },
        )


@pytest.fixture
def lend_rooms(monkeypatch, model, faces):
    """Return a function that replaces datasets and training by stand-ins with given faces."""

    def lend(rows, videos=(), shards=None):
        def load_faces(directory, split, *, batch_size, labelled_only):
            assert labelled_only, "unlabelled faces cannot be evaluated"
            return list(make_batches(faces, rows if shards is None else shards, batch_size))

        def read_faces(directory, *, split, columns):
            return to_columns(rows).filter(pc.field("split") == split).select(list(columns))

        def load_options(path, group, kind):
            options = {SplitOptions: SplitOptions(), FilterOptions: FilterOptions()}
            return options.get(kind, FaceOptions(detector="mtcnn"))

        monkeypatch.setattr(eval_data, "read_faces", read_faces)
        monkeypatch.setattr(eval_data, "read_videos", lambda directory: list(videos))
        monkeypatch.setattr(eval_data, "load_options", load_options)
        monkeypatch.setattr(pipeline, "load_faces", load_faces)
        loaded = TrainedModel(model, FaceOptions())
        monkeypatch.setattr(module, "load_run_model", lambda path: loaded)
        monkeypatch.setattr(module, "digest_model", lambda path: DIGEST)
        monkeypatch.setattr(
            module,
            "_read_crops",
            lambda sets, rows: faces[np.array(rows) % len(faces)].astype(np.uint8),
        )

    return lend


def test_predictions_have_the_order_of_the_data_set(model, faces):
    rows = make_rows()
    scored = predict_dataset(model, make_batches(faces, rows))
    np.testing.assert_allclose(scored.score, faces.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)
    assert scored.label.tolist() == [row.label for row in rows]


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_reconstruction_errors_do_not_depend_on_the_batch_size(model, faces, batch_size):
    scored = predict_dataset(model, make_batches(faces, make_rows(), batch_size), reconstruct=True)
    scaled = faces.astype(np.float64) / 127.5 - 1
    # The stand-in returns x / 2 for x, so its error is x / 2.
    expected = np.square(scaled / 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(scored.error, expected, rtol=1e-5)
    mean_face = scaled.mean(axis=0)
    assert scored.mean_face_mse == pytest.approx(np.square(scaled - mean_face).mean(), rel=1e-5)


def test_identical_faces_have_no_variance(model):
    # The variance of this face rounds to -1e-16.
    face = np.random.default_rng(0).uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32)
    batches = make_batches(np.stack([face] * 10), make_rows(10, 0), 10)
    assert 0 <= predict_dataset(model, batches, reconstruct=True).mean_face_mse < 1e-12


def test_no_batches_raise(model):
    with pytest.raises(ValueError, match="at least one face; got none"):
        predict_dataset(model, [])


def test_faces_of_another_size_raise(model):
    batches = make_batches(np.zeros((2, 16, 16, 3), np.float32), make_rows(2, 0))
    with pytest.raises(ValueError, match=r"faces of \(8, 8, 3\).*got \(16, 16, 3\)"):
        predict_dataset(model, batches)


@pytest.mark.parametrize("pack", [lambda flat: flat, lambda flat: {"reconstruction": flat}])
def test_a_model_without_classification_raises(pack):
    image = keras.Input((SIZE, SIZE, 3))
    other = keras.Model(image, pack(keras.layers.Flatten()(image)), name="other")
    with pytest.raises(ValueError, match="the output 'classification'; got 'other'"):
        predict_dataset(other, [])


@pytest.fixture(scope="module")
def baseline(model):
    """The same model without a decoder."""
    outputs = {"classification": model.output["classification"]}
    return keras.Model(model.input, outputs, name="baseline")


@pytest.mark.parametrize("reconstruct", [False, True])
def test_a_model_without_decoder_has_scores_but_no_reconstruction_error(
    baseline, faces, reconstruct
):
    scored = predict_dataset(baseline, make_batches(faces, make_rows()), reconstruct=reconstruct)
    np.testing.assert_allclose(scored.score, faces.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)
    assert scored.error is None and scored.mean_face_mse is None


def test_the_decoder_only_runs_on_request(faces):
    """The decoder of this model raises if it runs."""

    class Fails(keras.layers.Layer):
        def call(self, x):
            tf.debugging.assert_less(tf.reduce_max(x), -1.0)
            return x

    image = keras.Input((SIZE, SIZE, 3), name="image")
    score = keras.layers.Dense(1, "sigmoid")(keras.layers.GlobalAveragePooling2D()(image))
    model = keras.Model(image, {"classification": score, "reconstruction": Fails()(image)})
    assert len(predict_dataset(model, make_batches(faces, make_rows())).score) == 10
    with pytest.raises(tf.errors.InvalidArgumentError):
        predict_dataset(model, make_batches(faces, make_rows()), reconstruct=True)


def test_a_report_without_decoder_differs_only_in_the_reconstruction(
    lend_rooms, baseline, tmp_path, monkeypatch
):
    lend_rooms(make_rows())
    options = EvaluateOptions(reconstruction=True, n_resamples=100)
    full = evaluate("detector.keras", tmp_path, options)
    loaded = TrainedModel(baseline, FaceOptions())
    monkeypatch.setattr(module, "load_run_model", lambda path: loaded)
    report = evaluate("detector.keras", tmp_path, options)

    assert report == dataclasses.replace(full, reconstruction=None)
    assert full.reconstruction.mse > 0
    assert 0 <= full.reconstruction.frame_auc <= 1
    assert full.scores.reconstruction_error.mean() == pytest.approx(full.reconstruction.mse)
    assert report.scores.reconstruction_error is None
    np.testing.assert_array_equal(report.scores.score, full.scores.score)
    assert full.errors.residual.shape == full.errors.cam.shape
    assert (report.errors.residual, report.examples.reconstruction) == (None, None)


@pytest.mark.slow
def test_a_trained_detector_without_decoder_is_evaluated(prepared_set, tmp_path):
    options = ModelOptions(image_size=71, latent_dim=16, encoder_weights="none", decoder=False)
    detector = build_detector(options)
    detector.save(tmp_path / "baseline.keras")
    report = evaluate(tmp_path / "baseline.keras", prepared_set)
    assert report.reconstruction is None
    write_evaluation(report, tmp_path / "out")
    assert (tmp_path / "out/errors.png").is_file() and (tmp_path / "out/faces.svg").is_file()
    assert report.frame.num_real + report.frame.num_fake > 0
    assert report.protocol.model == "baseline.keras"
    digest = hashlib.sha256((tmp_path / "baseline.keras").read_bytes()).hexdigest()
    assert report.protocol.model_digest == digest


def test_scores_report_and_figures_are_written(lend_rooms, faces, tmp_path):
    rows = make_rows()
    rows.append(SimpleNamespace(**vars(rows[0]) | {"split": "train"}))
    videos = [
        make_video("clips/real/0", split="test", reason="cut short"),
        make_video("clips/real/9", split="test", reason="cut short"),
        make_video("clips/fake/8", split="test", reason=""),
        make_video("clips/fake/9", split="val", reason="no face"),
    ]
    lend_rooms(rows, videos, shards=rows[:10])
    (tmp_path / "run").mkdir()
    out = tmp_path / "deep" / "out"
    options = EvaluateOptions(threshold=0.4, batch_size=4, n_resamples=100)
    report = evaluate(tmp_path / "run", tmp_path / "clips", options)
    write_evaluation(report, out)

    figures = ["det", "errors", "faces", "precision-recall", "reliability", "roc", "scores"]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [f"{name}.{kind}" for name in figures for kind in ("png", "svg")]
        + ["report.html", "report.json", "report.md", "scores.parquet"]
    )
    assert json.loads((out / "report.json").read_text()) == report.to_dict()
    scores = read_scores(out / "scores.parquet")
    np.testing.assert_allclose(scores.score, faces.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)
    # The fake at 90, in the last fake video, scores below the real face at 120: 24 of 25 pairs
    # of faces and 8 of 9 pairs of videos (90 against 120 and 80, 70 and 60, 50) are in order.
    assert report.frame.auc.value == pytest.approx(24 / 25)
    assert report.video.num_fake == report.video.num_real == 3
    auc = report.video.auc
    assert auc.value == pytest.approx(8 / 9)
    assert auc.low < auc.value < auc.high <= 1
    assert report.by_manipulation["FaceSwap"].video == report.video
    assert report.excluded == (
        Excluded("clips", "clips/real/9", False, "cut short", "test", "c23", ""),
        Excluded(
            "clips",
            "clips/fake/8",
            True,
            "none of its faces has a score",
            "test",
            "c23",
            "FaceSwap",
        ),
    )
    assert report.coverage == Coverage(num_faces=10, num_scored=6, num_videos=8, share=0.75)
    protocol = report.protocol
    assert (list(protocol.data), protocol.split) == (["clips"], "test")
    assert protocol.threshold == 0.4
    assert protocol.data["clips"].faces.detector == "mtcnn"
    assert protocol.data["clips"].split.split == "official"
    assert protocol.training_faces.detector == "dlib"
    assert protocol.versions["keras"] == keras.__version__
    assert "validation" in protocol.checkpoint
    assert protocol.model_digest == DIGEST
    assert protocol.leakage == "not checked: the training data of this model is unknown"
    assert "(roc.png)" in (out / "report.md").read_text()


def test_a_report_on_one_class_has_no_curves_and_removes_old_ones(lend_rooms, tmp_path):
    lend_rooms(make_rows(num_fake=0))
    (tmp_path / "roc.png").write_bytes(b"of an earlier evaluation")
    report = evaluate("detector.keras", tmp_path)
    write_evaluation(report, tmp_path)
    assert report.frame.auc == Estimate(None)
    assert report.video.auc.value is None
    assert report.by_manipulation == {}
    assert "unknown" in report.protocol.checkpoint
    assert not (tmp_path / "roc.png").exists()
    assert "There are no curves" in (tmp_path / "report.md").read_text()


def test_an_empty_split_raises(lend_rooms, tmp_path):
    lend_rooms(make_rows())
    with pytest.raises(ValueError, match="faces in the split 'val' of .*; got none"):
        evaluate("run", tmp_path, EvaluateOptions(split="val"))


def test_shards_without_one_of_the_faces_raise(lend_rooms, tmp_path):
    rows = make_rows()
    lend_rooms(rows, shards=rows[:-1])
    with pytest.raises(ValueError, match="each of the 10 faces in the manifest; the shards hold 9"):
        evaluate("run", tmp_path)


def test_truncated_shards_raise_with_the_damage(lend_rooms, monkeypatch, faces, tmp_path):
    rows = make_rows()
    lend_rooms(rows)

    def fail(_):
        raise ValueError("Expected a face at byte 7 of train.tfrecord; got its end.")

    batches = tf.data.Dataset.from_tensors(next(make_batches(faces, rows, 9)))
    broken = tf.data.Dataset.range(1).map(lambda i: tf.numpy_function(fail, [i], tf.int64))
    read = tf.data.Dataset.zip(batches.repeat(2), tf.data.Dataset.range(1).concatenate(broken))
    monkeypatch.setattr(pipeline, "load_faces", lambda *_, **__: read.map(lambda batch, _: batch))
    monkeypatch.setattr(
        "jdfd_keras.datasets.transforms.find_damage", lambda directory: ["train is short"]
    )
    with pytest.raises(ValueError, match="every face.*at byte 7.*Damaged: train is short. Copy"):
        evaluate("run", tmp_path)


def test_shards_in_another_order_raise(model, faces):
    rows = make_rows()
    scored = predict_dataset(model, make_batches(faces, rows[::-1]))
    sets = [EvalSet("clips", None, to_columns(rows), [])]
    with pytest.raises(ValueError, match="frame 0 of 'clips/fake/0' is 1 in the manifest and 0"):
        join_manifest(sets, scored)


def test_a_nan_score_raises_with_the_face(model, faces):
    broken = faces.copy()
    broken[2] = np.nan
    rows = make_rows()
    sets = [EvalSet("clips", None, to_columns(rows), [])]
    with pytest.raises(ValueError, match="got nan for frame 0 of 'clips/fake/1'"):
        join_manifest(sets, predict_dataset(model, make_batches(broken, rows)))


def test_progress_is_written_to_stderr(lend_rooms, tmp_path, capsys):
    lend_rooms(make_rows())
    evaluate("run", tmp_path, EvaluateOptions(batch_size=4))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "10/10 faces" in captured.err


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("test", "source clips/True0 in training and evaluation"),
        ("val", "1 shared source"),
    ],
)
def test_training_data_is_only_evaluated_if_leakage_is_allowed(
    lend_rooms, tmp_path, split, message
):
    rows = make_rows()
    for row in rows:
        row.split = split
    lend_rooms(rows)
    (tmp_path / "run").mkdir()
    seen = make_rows(num_fake=1, num_real=0)  # shares the source of the first video of fakes
    seen[0].split = "train"
    write_provenance(tmp_path / "run", to_columns(seen))
    with pytest.raises(ValueError, match=f"{message}.*--allow-leak"):
        evaluate(tmp_path / "run", tmp_path, EvaluateOptions(split=split))
    allowed = EvaluateOptions(split=split, allow_leak=True)
    report = evaluate(tmp_path / "run", tmp_path, allowed)
    assert "1 source shared" in report.protocol.leakage
    assert "1 source shared" in render_markdown(report)


def test_a_near_duplicate_of_a_training_face_raises(lend_rooms, tmp_path):
    lend_rooms(make_rows())
    (tmp_path / "run").mkdir()
    seen = make_rows(num_fake=1, num_real=0)
    seen[0].video_id, seen[0].source_ids = "elsewhere/a", ["a"]
    flipped = int(seen[0].phash, 16) ^ 0b1011  # three bits of 256
    seen[0].phash = f"{flipped:064x}"
    write_provenance(tmp_path / "run", to_columns(seen))
    with pytest.raises(ValueError, match=r"elsewhere/a \(training\) looks like clips/fake/0"):
        evaluate(tmp_path / "run", tmp_path)


def test_the_validation_split_that_chose_the_epoch_may_be_evaluated(lend_rooms, tmp_path):
    rows = make_rows()
    for row in rows:
        row.split = "val"
    lend_rooms(rows)
    (tmp_path / "run").mkdir()
    write_provenance(tmp_path / "run", to_columns(rows))
    report = evaluate(tmp_path / "run", tmp_path, EvaluateOptions(split="val"))
    assert report.protocol.leakage.startswith("none between training and evaluation")


def test_several_datasets_are_strata(lend_rooms, tmp_path, monkeypatch, faces):
    lend_rooms(make_rows())
    others = make_rows()
    for row in others:
        row.video_id = row.video_id.replace("clips", "others")

    def pick(of_clips, of_others):
        return lambda directory, *args, **kwargs: (
            of_others if directory.name == "others" else of_clips
        )(directory, *args, **kwargs)

    read_others = lambda directory, *, split, columns: to_columns(others).select(list(columns))  # noqa: E731
    load_others = lambda *_, batch_size, **__: make_batches(255 - faces, others, batch_size)  # noqa: E731
    monkeypatch.setattr(eval_data, "read_faces", pick(eval_data.read_faces, read_others))
    monkeypatch.setattr(pipeline, "load_faces", pick(pipeline.load_faces, load_others))
    options = EvaluateOptions(n_resamples=0)
    report = evaluate("m.keras", [tmp_path / "clips", tmp_path / "others"], options)

    assert report.by_data["clips"].frame.auc.value == pytest.approx(24 / 25)
    assert report.by_data["others"].frame.auc.value == pytest.approx(1 / 25)
    assert report.frame.num_real == 10
    assert list(report.protocol.data) == ["clips", "others"]
    with pytest.raises(ValueError, match="each once; got .*clips, .*clips"):
        evaluate("m.keras", [tmp_path / "clips"] * 2, options)


def test_another_detector_is_compared_on_the_same_videos(lend_rooms, tmp_path):
    lend_rooms(make_rows())
    options = EvaluateOptions(n_resamples=0)
    first = evaluate("m.keras", tmp_path, options)
    scores = first.scores
    inverted = Scores.from_faces(
        video_id=scores.video_id,
        label=scores.label.astype(int),
        score=1 - scores.score,
        frame_index=scores.frame_index,
    )
    write_scores(tmp_path / "other.csv", inverted)
    report = evaluate("m.keras", tmp_path, options, compare=tmp_path / "other.csv")
    assert first.comparison is None
    assert report.comparison.compared_with == "other.csv"
    assert report.comparison.num_videos == 6
    found = report.comparison.video
    assert found.auc == pytest.approx(8 / 9) and found.other_auc == pytest.approx(1 / 9)
    assert found.difference.value == pytest.approx(7 / 9)


def test_the_examples_are_the_faces_of_the_rows_they_name(lend_rooms, tmp_path, faces):
    lend_rooms(make_rows())
    report = evaluate("m.keras", tmp_path, EvaluateOptions(n_resamples=0))
    # The first face of each video, real ones first; rows 0 to 4 of the data are fake.
    assert report.examples.label.tolist() == [False] * 3 + [True] * 3
    expected = faces[[5, 7, 9, 0, 2, 4]].astype(np.uint8)
    np.testing.assert_array_equal(report.examples.image, expected)
    assert report.errors.score.tolist() == [face.score for face in report.hardest]
    assert report.errors.cam.shape == (6, SIZE, SIZE)


def test_the_hardest_errors_are_the_worst_faces_of_different_videos():
    scores = Scores.from_faces(
        video_id=["r0", "r0", "r1", "f0", "f0", "f1"],
        label=[0, 0, 0, 1, 1, 1],
        score=[0.9, 0.8, 0.3, 0.7, 0.6, 0.1],
    )
    assert choose_errors(scores) == [0, 2, 5, 4]


@pytest.fixture
def lend_run(lend_rooms, tmp_path, monkeypatch):
    """A run folder with the stand-in model, and its faces in validation."""
    rows = make_rows()
    for row in rows:
        row.split = "val"
    lend_rooms(rows)
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.keras").write_bytes(b"the stand-in")
    monkeypatch.setattr("jdfd_keras.evaluation.calibrate.load_run_model", module.load_run_model)
    return run


def test_a_calibrated_run_is_evaluated_with_its_calibration(lend_run, lend_rooms, faces, tmp_path):
    result = calibrate(lend_run, tmp_path / "clips", CalibrateOptions(fpr=0.34))
    found = result.calibration
    # Video scores: real .22 .29 .39, fake .35 .69 .76; one error per class is allowed.
    assert (found.num_real, found.num_fake, found.target_error_rate) == (3, 3, 0.34)
    assert found.data == "clips"
    assert result.verdicts["real"]["fake"] <= 1
    assert f"temperature {found.temperature:.3g}" in summarize_calibration(result)
    write_calibration_figures(result, lend_run / "calibration")
    written = {"scores.parquet", "calibration_faces.parquet"}
    written |= {f"{name}.{kind}" for name in ("reliability", "scores") for kind in ("png", "svg")}
    assert {path.name for path in (lend_run / "calibration").iterdir()} == written
    raw = read_scores(lend_run / "calibration/scores.parquet")
    np.testing.assert_allclose(raw.score, faces.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)

    lend_rooms(make_rows())
    report = evaluate(lend_run, tmp_path, EvaluateOptions(n_resamples=0))
    assert report.protocol.threshold == found.threshold
    assert report.protocol.model_digest == report.protocol.calibration.model
    logit = np.log(raw.score / (1 - raw.score)) / found.temperature
    np.testing.assert_allclose(report.scores.score, 1 / (1 + np.exp(-logit)), rtol=1e-6)
    assert "The scores are calibrated" in render_markdown(report)
    own = EvaluateOptions(n_resamples=0, threshold=0.25)
    assert evaluate(lend_run, tmp_path, own).protocol.threshold == 0.25


def test_a_run_that_was_trained_further_must_be_calibrated_again(lend_run, tmp_path):
    calibration = Calibration(model=digest_model(lend_run))
    save_calibration(lend_run / "calibration.json", calibration)
    (lend_run / "best.keras").write_bytes(b"another epoch")
    with pytest.raises(ValueError, match="another model.*calibrate. again"):
        evaluate(lend_run, tmp_path, EvaluateOptions(split="val"))


def test_calibration_on_training_data_raises(lend_run, tmp_path):
    seen = make_rows(num_fake=1, num_real=0)
    seen[0].split = "train"
    write_provenance(lend_run, to_columns(seen))
    with pytest.raises(ValueError, match="1 shared source"):
        calibrate(lend_run, tmp_path / "clips")
    assert not (lend_run / "calibration.json").exists()
    allowed = calibrate(lend_run, tmp_path / "clips", CalibrateOptions(allow_leak=True))
    assert "1 source shared" in allowed.leakage


def test_a_single_model_file_cannot_be_calibrated(tmp_path):
    with pytest.raises(NotADirectoryError, match="Expected a run folder"):
        calibrate(tmp_path / "model.keras", tmp_path)


def test_scores_that_cannot_be_compared_raise_before_scoring(lend_rooms, tmp_path, monkeypatch):
    lend_rooms(make_rows())
    monkeypatch.setattr(pipeline, "load_faces", lambda *_, **__: pytest.fail("faces were read"))
    (tmp_path / "other.csv").write_text("video_id,label,score\nelsewhere,0,0.5\n")
    with pytest.raises(ValueError, match="none of them in both"):
        evaluate("m.keras", tmp_path, compare=tmp_path / "other.csv")


def test_evaluation_on_the_calibration_faces_raises(lend_run, lend_rooms, tmp_path):
    calibrate(lend_run, tmp_path / "clips")
    write_provenance(lend_run, to_columns(make_rows(1, 0)).slice(0, 0))  # training saw none of them
    lend_rooms(make_rows())  # the same faces, in a test split
    with pytest.raises(ValueError, match="--allow-leak"):
        evaluate(lend_run, tmp_path, EvaluateOptions(n_resamples=0))


def test_the_faces_of_a_removed_calibration_may_be_evaluated(lend_run, lend_rooms, tmp_path):
    calibrate(lend_run, tmp_path / "clips")
    write_provenance(lend_run, to_columns(make_rows(1, 0)).slice(0, 0))
    (lend_run / "calibration.json").unlink()
    lend_rooms(make_rows())
    report = evaluate(lend_run, tmp_path, EvaluateOptions(n_resamples=0))
    assert report.protocol.calibration is None


def test_exhausted_memory_raises_with_a_batch_size(lend_rooms, tmp_path, monkeypatch):
    lend_rooms(make_rows())

    def fail(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    monkeypatch.setattr(module, "predict_dataset", fail)
    with pytest.raises(ValueError, match="Expected enough memory.*--batch-size 16"):
        evaluate("m.keras", tmp_path)


def test_the_training_of_a_model_file_comes_from_its_run(lend_rooms, tmp_path):
    lend_rooms(make_rows())
    (tmp_path / "run").mkdir()
    training = TrainingProtocol(
        data=DataFacts("ffpp", "d", 4, 0, 2, "none"),
        split=SplitOptions("strict"),
        train=TrainOptions(seed=3),
        unlabelled=UnlabelledOptions(("celebdf",)),
        augment=AugmentOptions(),
    )
    save_options(tmp_path / "run/options.json", **vars(training))
    report = evaluate(tmp_path / "run/best.keras", tmp_path, EvaluateOptions(n_resamples=0))
    assert report.protocol.training == training
    assert "Trained on ffpp (strict splits, seed 3)" in render_markdown(report)
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))).protocol == report.protocol
