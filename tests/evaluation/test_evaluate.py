"""Evaluation and calibration of a model, with stand-ins for the datasets, and of tables."""

import dataclasses
import hashlib
import json
import re
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from jdfd_keras.client.calibration import Calibration, save_calibration
from jdfd_keras.client.domain import Domain
from jdfd_keras.datasets import pipeline
from jdfd_keras.datasets.manifest import read_videos
from jdfd_keras.datasets.split_tables import SplitTable
from jdfd_keras.evaluation import eval_data
from jdfd_keras.evaluation import model_scores as module
from jdfd_keras.evaluation.calibrate import calibrate, digest_model
from jdfd_keras.evaluation.eval_data import (
    EvalSet,
    Excluded,
    Protocol,
    TrainingProtocol,
    join_manifest,
)
from jdfd_keras.evaluation.evaluate import evaluate
from jdfd_keras.evaluation.metrics import Estimate
from jdfd_keras.evaluation.report import (
    Coverage,
    Report,
    build_report,
    choose_errors,
    load_report,
    save_report,
)
from jdfd_keras.evaluation.scores import Scores, score_videos
from jdfd_keras.evaluation.scores_file import read_scores, write_scores
from jdfd_keras.inference.dataset_scores import predict_dataset
from jdfd_keras.io import files
from jdfd_keras.io.files import save_options
from jdfd_keras.model.methods import build_detector
from jdfd_keras.model.weight_import import ImportFacts
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
            box=(10, 10, 90, 90),
            detector_score=1.0,
            sharpness=30.0,
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
        def load_faces(directory, split, *, batch_size, labelled_only, split_table):
            assert labelled_only, "unlabelled faces cannot be evaluated"
            assert split_table == ("" if split == "all" else "official")
            return list(make_batches(faces, rows if shards is None else shards, batch_size))

        def read_faces(directory, *, split, split_table, columns):
            selected = (pc.field("split") == split) | pc.scalar(split == "all")
            return to_columns(rows).filter(selected).select(list(columns))

        def read_split_table(directory, name):
            splits = pd.DataFrame(columns=["video_id", "split", "reason"])
            return SplitTable(name, "", SplitOptions(), splits)

        def load_options(path, group, kind):
            if path.is_file():
                return files.load_options(path, group, kind)
            options = {SplitOptions: SplitOptions(), FilterOptions: FilterOptions()}
            return options.get(kind, FaceOptions(detector="mtcnn"))

        monkeypatch.setattr(eval_data, "read_faces", read_faces)
        monkeypatch.setattr(eval_data, "read_videos", lambda directory, **_: list(videos))
        monkeypatch.setattr(eval_data, "read_split_table", read_split_table)
        monkeypatch.setattr(module, "load_options", load_options)
        monkeypatch.setattr(pipeline, "load_faces", load_faces)
        loaded = TrainedModel(model, FaceOptions())
        monkeypatch.setattr(module, "load_run_model", lambda path: loaded)
        monkeypatch.setattr(module, "digest_model", lambda path: DIGEST)
        monkeypatch.setattr(
            module,
            "_read_examples",
            lambda sets, rows, _: faces[np.array(rows) % len(faces)].astype(np.uint8)[:, None],
        )

    return lend


def test_predictions_have_the_order_of_the_data_set(model, faces):
    rows = make_rows()
    scored = predict_dataset(model, make_batches(faces, rows))
    np.testing.assert_allclose(scored.score, faces.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)
    assert scored.label.tolist() == [row.label for row in rows]


@pytest.mark.parametrize("batch_size", [1, 4])
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
    with pytest.raises(ValueError, match="face; got none"):
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
    assert report.errors.reconstruction is None and report.examples.cam.shape[1:] == (71, 71)
    assert report.frame.num_real + report.frame.num_fake > 0
    assert report.protocol.model == "baseline.keras"
    digest = hashlib.sha256((tmp_path / "baseline.keras").read_bytes()).hexdigest()
    assert report.protocol.model_digest == digest


def test_a_model_is_evaluated_with_its_protocol(lend_rooms, faces, tmp_path, snapshot):
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
    options = EvaluateOptions(threshold=0.4, batch_size=4, n_resamples=100)
    report = evaluate(tmp_path / "run", tmp_path / "clips", options)
    expected = faces.mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(report.scores.score, expected, rtol=1e-5)
    # The fake at 90, in the last fake video, scores below the real face at 120: 24 of 25 pairs
    # of faces and 8 of 9 pairs of videos (90 against 120 and 80, 70 and 60, 50) are in order.
    assert report.frame.auc.value == pytest.approx(24 / 25)
    assert report.video.num_fake == report.video.num_real == 3
    auc = report.video.auc
    assert auc.value == pytest.approx(8 / 9)
    assert auc.low < auc.value < auc.high <= 1
    assert report.by_manipulation["FaceSwap"].video == report.video
    assert report.excluded == snapshot
    assert report.coverage == Coverage(num_faces=10, num_scored=6, num_videos=8, share=0.75)
    protocol = report.protocol
    assert (list(protocol.data), protocol.split) == (["clips"], "test")
    assert protocol.threshold == 0.4
    assert protocol.data["clips"].faces.detector == "mtcnn"
    assert protocol.data["clips"].split == SplitOptions("official")
    assert (protocol.data["clips"].split_table, protocol.data["clips"].held_out) == ("official", "")
    assert protocol.coverage == "all videos of the split in the manifest"
    assert protocol.training_faces.detector == "dlib"
    assert protocol.versions["keras"] == keras.__version__
    assert "validation" in protocol.checkpoint
    assert protocol.model_digest == DIGEST
    assert protocol.leakage.startswith("not checked: the training data")


def test_faces_by_other_landmarks_than_those_of_the_training_are_refused(
    lend_rooms, model, tmp_path, monkeypatch
):
    lend_rooms(make_rows())  # of the detector mtcnn
    trained = TrainedModel(model, FaceOptions(detector="mesh"))
    monkeypatch.setattr(module, "load_run_model", lambda path: trained)
    with pytest.raises(ValueError, match="detector mesh, .* got mtcnn, .* --detector mesh"):
        evaluate("detector.keras", tmp_path)


def test_one_class_has_no_auc(lend_rooms, tmp_path):
    lend_rooms(make_rows(num_fake=0))
    report = evaluate("detector.keras", tmp_path)
    assert report.frame.auc == Estimate(None)
    assert report.video.auc.value is None
    assert report.by_manipulation == {}
    assert "unknown" in report.protocol.checkpoint


def test_faces_of_every_split_are_evaluated_together(lend_rooms, tmp_path):
    rows = make_rows()
    for row in rows:
        row.split = ("train", "val", "")[int(row.video_id[-1])]
    lend_rooms(rows)
    report = evaluate("detector.keras", tmp_path, EvaluateOptions(n_resamples=0, split="all"))
    assert report.coverage.num_faces == 10
    assert set(report.by_split) == {"train", "val", ""}
    data = report.protocol.data[tmp_path.name]
    assert (data.split, data.split_table) == (None, "")
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))).protocol == report.protocol


def test_an_empty_split_raises(lend_rooms, tmp_path):
    lend_rooms(make_rows())
    with pytest.raises(ValueError, match="the val split of .*; got none, .* 0 labelled videos"):
        evaluate("run", tmp_path, EvaluateOptions(split="val"))


def test_shards_without_one_of_the_faces_raise(lend_rooms, tmp_path):
    rows = make_rows()
    lend_rooms(rows, shards=rows[:-1])
    with pytest.raises(ValueError, match="10 faces.*shards hold 9"):
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
    with pytest.raises(ValueError, match="at byte 7.*: train is short"):
        evaluate("run", tmp_path)


def test_shards_in_another_order_raise(model, faces):
    rows = make_rows()
    scored = predict_dataset(model, make_batches(faces, rows[::-1]))
    sets = [EvalSet("clips", None, "test", None, to_columns(rows), [])]
    with pytest.raises(ValueError, match="frame 0 of 'clips/fake/0' is 1 .* 0"):
        join_manifest(sets, scored)


def test_a_nan_score_raises_with_the_face(model, faces):
    broken = faces.copy()
    broken[2] = np.nan
    rows = make_rows()
    sets = [EvalSet("clips", None, "test", None, to_columns(rows), [])]
    with pytest.raises(ValueError, match="nan for frame 0 of 'clips/fake/1'"):
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
    assert re.match("none .*evaluation", report.protocol.leakage)


def test_several_datasets_are_strata(lend_rooms, tmp_path, monkeypatch, faces):
    lend_rooms(make_rows())
    others = make_rows()
    for row in others:
        row.video_id = row.video_id.replace("clips", "others")

    def pick(of_clips, of_others):
        return lambda directory, *args, **kwargs: (
            of_others if directory.name == "others" else of_clips
        )(directory, *args, **kwargs)

    read_others = lambda *_, columns, **__: to_columns(others).select(list(columns))  # noqa: E731
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
    # Only the last fake video, of 90 of 255, is on the wrong side of 0.5.
    wrong = [face.label for face in report.hardest]
    assert wrong and len(wrong) < 6 and report.errors.cam.shape == (len(wrong), SIZE, SIZE)


def test_the_hardest_errors_are_the_worst_faces_of_different_videos():
    scores = Scores.from_faces(
        video_id=["r0", "r0", "r1", "f0", "f0", "f1"],
        label=[0, 0, 0, 1, 1, 1],
        score=[0.9, 0.8, 0.3, 0.7, 0.6, 0.1],
    )
    videos = score_videos(scores)
    assert choose_errors(scores, videos, 0.2) == [0, 2, 5]
    assert choose_errors(scores, videos, 0.5) == [0, 5]
    assert choose_errors(scores, videos, 0.7) == [0, 5, 4]
    assert choose_errors(scores, videos, 0.9) == [5, 4]


@pytest.fixture
def lend_run(lend_rooms, tmp_path, monkeypatch):
    """A run folder with the stand-in model, and its faces in validation."""
    rows = make_rows()
    for row in rows:
        row.split = "val"
    names = list(dict.fromkeys(row.video_id for row in rows))
    # The last face of each class is the only one of its video.
    lend_rooms(
        rows, [make_video(name, num_frames=2 - name.endswith("2"), split="val") for name in names]
    )
    monkeypatch.setattr("jdfd_keras.evaluation.calibrate.load_options", module.load_options)
    monkeypatch.setattr(
        "jdfd_keras.evaluation.calibrate.fit_validation_domain", lambda *arguments: Domain()
    )
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
    written = {"scores.parquet", "calibration_faces.parquet"}
    assert {path.name for path in (lend_run / "calibration").iterdir()} == written
    raw = read_scores(lend_run / "calibration/scores.parquet")
    np.testing.assert_allclose(raw.score, faces.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)

    lend_rooms(make_rows())
    report = evaluate(lend_run, tmp_path, EvaluateOptions(n_resamples=0))
    assert report.protocol.threshold == found.threshold
    assert report.protocol.model_digest == report.protocol.calibration.model
    logit = np.log(raw.score / (1 - raw.score)) / found.temperature + found.bias
    np.testing.assert_allclose(report.scores.score, 1 / (1 + np.exp(-logit)), rtol=1e-6)
    own = EvaluateOptions(n_resamples=0, threshold=0.25)
    assert evaluate(lend_run, tmp_path, own).protocol.threshold == 0.25


def test_a_run_that_was_trained_further_must_be_calibrated_again(lend_run, tmp_path):
    scores = {"num_real": 1, "num_fake": 1, "real_scores": (0.2,), "fake_scores": (0.9,)}
    calibration = Calibration(model=digest_model(lend_run), **scores)
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
    with pytest.raises(NotADirectoryError, match="run folder.*model.keras"):
        calibrate(tmp_path / "model.keras", tmp_path)


def test_scores_that_cannot_be_compared_raise_before_scoring(lend_rooms, tmp_path, monkeypatch):
    lend_rooms(make_rows())
    monkeypatch.setattr(pipeline, "load_faces", lambda *_, **__: pytest.fail("faces were read"))
    (tmp_path / "other.csv").write_text("video_id,label,score\nelsewhere,0,0.5\n")
    with pytest.raises(ValueError, match="6 and 1 videos.*'elsewhere'"):
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

    monkeypatch.setattr(eval_data, "predict_dataset", fail)
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
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))).protocol == report.protocol


def test_published_weights_are_named_as_the_checkpoint(lend_rooms, tmp_path):
    lend_rooms(make_rows())
    (tmp_path / "run").mkdir()
    facts = ImportFacts("mesonet-meso4", "meso4", "Meso4_DF.h5", "ab" * 32)
    save_options(tmp_path / "run/options.json", imported=facts)
    report = evaluate(tmp_path / "run", tmp_path, EvaluateOptions(n_resamples=0))
    expected = "published weights Meso4_DF.h5 (mesonet-meso4): their training is unknown"
    assert report.protocol.checkpoint == expected
    assert report.protocol.training is None


OPTIONS = EvaluateOptions(n_resamples=100)


def evaluate_table(path, options=None, **others) -> Report:
    return evaluate(scores=path, options=options, **others)


def write_table(path, rows) -> None:
    lines = [",".join(map(str, row)) for row in rows]
    path.write_text("\n".join(["video_id,label,score", *lines, ""]))


def draw_rows(num_videos: int = 8, faces: int = 3) -> list[tuple]:
    rng = np.random.default_rng(0)
    return [
        (f"v{video}", video % 2, round(float(rng.uniform(0, 0.6) + 0.4 * (video % 2)), 3))
        for video in range(num_videos)
        for _ in range(faces)
    ]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "other detector.csv"
    write_table(path, draw_rows())
    return path


def test_a_table_of_another_detector_is_evaluated(table):
    report = evaluate_table(table, OPTIONS)
    rows = draw_rows()
    auc = roc_auc_score([row[1] for row in rows], [row[2] for row in rows])
    assert report.frame.auc.value == pytest.approx(auc)
    assert report.protocol.model == "other detector.csv"
    assert report.examples is None


@pytest.mark.parametrize(
    "rows",
    [
        [("a", 0, 0.5), ("a", 0, 0.25), ("b", 0, 1)],
        [("a", 1, 0.5)],
        [(f"v{number}", number % 2, 0.5) for number in range(6)],
    ],
    ids=["one class", "one face", "ties"],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_degenerate_scores_give_a_report(tmp_path, rows):
    write_table(tmp_path / "scores.csv", rows)
    report = evaluate_table(tmp_path / "scores.csv", OPTIONS)
    has_both = len({row[1] for row in rows}) == 2
    assert report.video.auc.value == (0.5 if has_both else None)


def test_a_saved_report_can_be_computed_again_from_its_scores(tmp_path):
    scores = Scores.from_faces(
        video_id=list("abcd"), label=[0, 0, 1, 1], score=[0.1, 0.6, 0.4, 0.9]
    )
    calibration = Calibration(temperature=2.0, threshold=0.5, uncertain_from=0.3, uncertain_to=0.5)
    excluded = [Excluded("clips", "e", True, "no face", "test", "c23", "Deepfakes")]
    protocol = Protocol(
        model="run",
        model_digest="ab" * 32,
        split="test",
        data={"clips": None},
        leakage="none found",
        calibration=calibration,
    )
    first = build_report(
        scores, threshold=0.5, protocol=protocol, excluded=excluded, options=OPTIONS
    )
    save_report(first, tmp_path)
    table = tmp_path / "scores.parquet"
    assert evaluate_table(table, OPTIONS) == first
    assert first.verdicts["fake"] == {"no_evidence": 0, "uncertain": 1, "fake": 1}
    changed = dataclasses.replace(scores, score=np.array([0.2, 0.6, 0.4, 0.9]))
    write_scores(tmp_path / "changed.parquet", changed)
    metadata = pq.read_schema(table).metadata
    scores_only = pq.read_table(tmp_path / "changed.parquet")
    pq.write_table(scores_only.replace_schema_metadata(metadata), tmp_path / "changed.parquet")
    other = evaluate_table(tmp_path / "changed.parquet", OPTIONS)
    assert (other.protocol.model_digest, other.protocol.calibration) == ("", None)
    assert other.excluded == ()
    own = evaluate_table(table, EvaluateOptions(n_resamples=0, threshold=0.7))
    assert own.protocol.threshold == 0.7 and own.verdicts is None
    assert own.coverage.num_videos == 5


def test_a_report_without_scores_cannot_be_saved(tmp_path, table):
    save_report(evaluate_table(table, OPTIONS), tmp_path)
    with pytest.raises(ValueError, match="scores; got .*report.json"):
        save_report(load_report(tmp_path), tmp_path)


def test_either_a_model_or_scores_are_evaluated(table):
    for model in (None, "run"):
        with pytest.raises(ValueError, match=f"model_path={model}"):
            evaluate(model, scores=table if model else None)


def test_options_are_used(table):
    options = EvaluateOptions(n_resamples=0, threshold=0.25, aggregation="max")
    report = evaluate_table(table, options)
    assert (report.protocol.threshold, report.protocol.aggregation) == (0.25, "max")
    highest: dict[str, float] = {}
    for name, label, score in draw_rows():
        if not label:
            highest[name] = max(highest.get(name, 0), score)
    expected = np.mean([score >= 0.25 for score in highest.values()])
    assert report.video.fpr == Estimate(expected)
    assert evaluate_table(table).protocol.threshold == 0.5


def test_datasets_of_the_table_are_in_the_report(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("video_id,label,score,data\na,0,0.5,x\nb,1,0.5,x\nc,1,0.5,\n")
    report = evaluate_table(path, OPTIONS)
    assert report.protocol.data == {"x": None}
    assert set(report.by_data) == {"", "x"}


def test_another_detector_is_compared(tmp_path, table):
    other = tmp_path / "baseline.csv"
    write_table(other, [(name, label, 1 - score) for name, label, score in draw_rows()][3:])
    found = evaluate_table(table, OPTIONS, compare=other).comparison
    assert (found.compared_with, found.num_videos) == ("baseline.csv", 7)
    assert found.only_first == ("v0",)
    assert found.video.other_auc == pytest.approx(1 - found.video.auc)
    assert evaluate_table(table, OPTIONS).comparison is None


@pytest.mark.parametrize(
    ("rows", "changed", "error", "message"),
    [
        ([("a", 0, 1.5)], {}, ValueError, "got 1.5 for frame 0"),
        ([("a", 0, 0.5)], {"options": EvaluateOptions(threshold=2)}, ValueError, "got 2"),
        (
            [("a", 0, 0.5)],
            {"options": EvaluateOptions(n_resamples=-1)},
            ValueError,
            "n_resamples of 100 or more, or 0",
        ),
        ([("a", 0, 0.5)], {"options": EvaluateOptions(aggregation="min")}, ValueError, "'min'"),
        ([("a", 0, 0.5)], {"compare": "nowhere.csv"}, OSError, "nowhere.csv"),
        ([("z", 0, 0.5)], {"compare": "table"}, ValueError, "none of them in both"),
        ([("v1", 0, 0.5)], {"compare": "table"}, ValueError, "same labels in both tables"),
        ([("a", 0, 0.5)], {"data": ["nowhere"]}, OSError, "nowhere"),
    ],
)
def test_bad_input_raises(tmp_path, table, rows, changed, error, message):
    write_table(tmp_path / "scores.csv", rows)
    if changed.get("compare") == "table":
        changed = {"compare": table}
    with pytest.raises(error, match=message):
        evaluate_table(tmp_path / "scores.csv", **changed)


def test_a_missing_table_raises_an_os_error(tmp_path):
    with pytest.raises(OSError, match="scores.csv, which"):
        evaluate_table(tmp_path / "scores.csv")


def list_rows(prepared_set, split: str) -> list[tuple]:
    return [
        (video.video_id, video.label, 0.25 + 0.5 * video.label)
        for video in read_videos(prepared_set, split_table="official")
        if video.split == split
    ]


def test_videos_without_a_score_are_listed(tmp_path, prepared_set):
    rows = list_rows(prepared_set, "val")
    write_table(tmp_path / "scores.csv", rows[1:])
    options = EvaluateOptions(n_resamples=0, split="val")
    report = evaluate_table(tmp_path / "scores.csv", options, data=[prepared_set])
    assert report.excluded == (
        Excluded(
            data="prepared",
            video_id=rows[0][0],
            is_fake=bool(rows[0][1]),
            reason=report.excluded[0].reason,
            split="val",
            compression="",
            manipulation=rows[0][1] * "fake",
        ),
    )
    assert report.excluded[0].reason.endswith("has a score")
    assert report.coverage.num_scored == len(rows) - 1 == 3
    assert report.coverage.share == pytest.approx(3 / 4)
    assert report.protocol.split == "val"
    # The groups of the videos come from the dataset.
    assert list(report.by_manipulation) == ["fake"]
    # How faces were extracted for scores of another detector is unknown.
    assert report.protocol.data == {"prepared": None}


def test_a_video_without_a_face_is_listed_with_the_reason(tmp_path, prepared_set):
    videos = read_videos(prepared_set, split_table="official")
    (without,) = [video for video in videos if not video.num_faces]
    rows = [row for row in list_rows(prepared_set, without.split) if row[0] != without.video_id]
    write_table(tmp_path / "scores.csv", rows)
    options = EvaluateOptions(n_resamples=0, split=without.split)
    report = evaluate_table(tmp_path / "scores.csv", options, data=[prepared_set])
    (excluded,) = report.excluded
    assert (excluded.video_id, excluded.reason) == (without.video_id, without.reason)
    assert without.reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, ("nobody", 0, 0.5)], "got 1 of other videos, such as 'nobody'"),
        (
            lambda rows: [(name, 1 - label, score) for name, label, score in rows],
            "other labels for 4 videos, such as .* Write 1 for fake",
        ),
    ],
)
def test_scores_of_another_data_set_raise(tmp_path, prepared_set, change, message):
    write_table(tmp_path / "scores.csv", change(list_rows(prepared_set, "val")))
    options = EvaluateOptions(split="val")
    with pytest.raises(ValueError, match=message) as error:
        evaluate_table(tmp_path / "scores.csv", options, data=[prepared_set])
    assert f"val split of {prepared_set}" in str(error.value)


def test_scores_of_all_videos_are_evaluated_without_a_split_table(tmp_path, prepared_set):
    shutil.copytree(prepared_set, tmp_path / "set", ignore=shutil.ignore_patterns("splits"))
    rows = [(row.video_id, row.label, 0.5) for row in read_videos(tmp_path / "set")]
    write_table(tmp_path / "scores.csv", rows)
    options = EvaluateOptions(n_resamples=0, split="all")
    report = evaluate_table(tmp_path / "scores.csv", options, data=[tmp_path / "set"])
    assert (report.coverage.num_videos, report.excluded) == (16, ())
    assert report.protocol.coverage == "all videos in the manifest"
    with pytest.raises(OSError, match="not been split.*--split all needs none"):
        evaluate_table(tmp_path / "scores.csv", data=[tmp_path / "set"])


def test_scores_of_another_split_raise(tmp_path, prepared_set):
    write_table(tmp_path / "scores.csv", list_rows(prepared_set, "val"))
    with pytest.raises(ValueError, match="test split of .* got 4 of"):
        evaluate_table(tmp_path / "scores.csv", data=[prepared_set])


def test_possibly_duplicate_rows_are_reported(tmp_path):
    rows = [("a", 0, 0.5), ("a", 0, 0.5), ("b", 0, 0.5), ("c", 1, 0.5), ("c", 1, 0.75)]
    write_table(tmp_path / "scores.csv", [*rows, rows[0]])
    report = evaluate_table(tmp_path / "scores.csv", OPTIONS)
    assert report.protocol.repeated_rows == 2
    # Frame indices show that they are different faces.
    lines = [f"{v},{label},{score},{frame}" for frame, (v, label, score) in enumerate(rows)]
    (tmp_path / "scores.csv").write_text(
        "\n".join(["video_id,label,score,frame_index", *lines, ""])
    )
    report = evaluate_table(tmp_path / "scores.csv", OPTIONS)
    assert report.protocol.repeated_rows == 0


def test_a_given_threshold_overrides_the_calibrated_one(tmp_path):
    scores = Scores.from_faces(video_id=["a", "b"], label=[0, 1], score=[0.1, 0.9])
    calibration = Calibration(threshold=0.7)
    protocol = Protocol(model="run", data={}, leakage="none", calibration=calibration)
    options = EvaluateOptions(n_resamples=0)
    save_report(build_report(scores, protocol=protocol, options=options), tmp_path)
    table = tmp_path / "scores.parquet"
    assert evaluate_table(table, options).protocol.threshold == 0.7
    own = dataclasses.replace(options, threshold=0.0)
    assert evaluate_table(table, own).protocol.threshold == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"threshold": 1.5},
        {"threshold": -0.1},
        {"batch_size": 0},
        {"seed": -1},
        {"n_resamples": -1},
        {"n_resamples": 99},
    ],
)
def test_options_out_of_range_raise(table, changed):
    with pytest.raises(ValueError, match="Expected (a threshold|batch_size|n_resamples of 100)"):
        evaluate_table(table, EvaluateOptions(**changed))


def test_a_report_of_another_format_version_is_refused(tmp_path, table):
    save_report(evaluate_table(table, OPTIONS), tmp_path)
    path = tmp_path / "report.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 9'))
    with pytest.raises(ValueError, match="format_version 2 .*report.json; got 9") as error:
        load_report(tmp_path)
    assert str(path) in str(error.value)
