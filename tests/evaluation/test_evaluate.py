"""Model and data set to report, with the neighbours' rooms stood in for by small lists."""

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
from jdfd_keras.evaluation import eval_data as gather
from jdfd_keras.evaluation import evaluate as module
from jdfd_keras.evaluation.calibrate import calibrate, digest_model, summarize
from jdfd_keras.evaluation.eval_data import TestSet
from jdfd_keras.evaluation.evaluate import evaluate, join_manifest, score_dataset
from jdfd_keras.evaluation.report import choose_errors
from jdfd_keras.evaluation.scores import Scores
from jdfd_keras.evaluation.scores_file import read_scores, write_scores
from jdfd_keras.model.network import build_detector
from jdfd_keras.options import (
    CalibrateOptions,
    EvaluateOptions,
    FaceOptions,
    FilterOptions,
    ModelOptions,
    SplitOptions,
)
from jdfd_keras.reporting import evaluation_folder as folder
from jdfd_keras.training.run_folder import write_seen

SIZE = 8
DIGEST = hashlib.sha256(b"the stand-in").hexdigest()


@pytest.fixture(scope="module")
def model():
    """Scores a face by how bright it is and reconstructs it at half its contrast."""
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
    """float32[10, 8, 8, 3] noisy faces, the first five fake and brighter."""
    level = np.array([200, 190, 180, 170, 90, 120, 80, 70, 60, 50], np.float32)
    noise = np.random.default_rng(0).uniform(-40, 40, (10, SIZE, SIZE, 3))
    return (level[:, None, None, None] + noise).astype(np.float32)


def hash_of(number):
    """A hash that differs from that of any other number in half of its bits or so."""
    return np.random.default_rng(number).bytes(32).hex()


def to_columns(rows):
    return pa.Table.from_pylist([vars(row) for row in rows])


def make_rows(num_fake=5, num_real=5):
    """Faces as a manifest holds them, two to a video but for the last of each class."""
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
    """A row of the table of videos."""
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
    """Stand in for the data and the training room; gives a function that sets the faces."""

    def lend(rows, videos=(), shards=None, *, draw=False):
        def load_faces(directory, split, *, batch_size, labelled_only):
            assert labelled_only, "faces of neither class cannot be measured"
            return list(make_batches(faces, rows if shards is None else shards, batch_size))

        def read_faces(directory, *, split, columns):
            return to_columns(rows).filter(pc.field("split") == split).select(list(columns))

        def load_options(path, group, kind):
            told = {SplitOptions: SplitOptions(), FilterOptions: FilterOptions()}
            return told.get(kind, FaceOptions(detector="mtcnn"))

        monkeypatch.setattr(gather, "read_faces", read_faces)
        monkeypatch.setattr(gather, "read_videos", lambda directory: list(videos))
        monkeypatch.setattr(gather, "load_options", load_options)
        monkeypatch.setattr(module, "load_faces", load_faces)
        monkeypatch.setattr(module, "load_run_model", lambda path: (model, FaceOptions()))
        monkeypatch.setattr(module, "digest_model", lambda path: DIGEST)
        monkeypatch.setattr(
            module, "_read_crops", lambda sets, chosen: faces[np.array(chosen)].astype(np.uint8)
        )
        if not draw:
            monkeypatch.setattr(folder, "_draw", lambda *_: None)
            monkeypatch.setattr(module, "_draw_faces", lambda *_: None)

    return lend


def test_scores_come_in_the_order_of_the_data_set(model, faces):
    rows = make_rows()
    scored = score_dataset(model, make_batches(faces, rows))
    np.testing.assert_allclose(scored.score, faces.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)
    assert scored.label.tolist() == [row.label for row in rows]


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_errors_are_those_of_all_faces_whatever_the_batch(model, faces, batch_size):
    scored = score_dataset(model, make_batches(faces, make_rows(), batch_size), reconstruct=True)
    scaled = faces.astype(np.float64) / 127.5 - 1
    # The stand-in answers x / 2 for x, so it errs by x / 2.
    expected = np.square(scaled / 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(scored.error, expected, rtol=1e-5)
    mean_face = scaled.mean(axis=0)
    assert scored.mean_face_mse == pytest.approx(np.square(scaled - mean_face).mean(), rel=1e-5)


def test_faces_all_alike_have_no_variance(model):
    # Of this face the variance rounds to -1e-16.
    face = np.random.default_rng(0).uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32)
    batches = make_batches(np.stack([face] * 10), make_rows(10, 0), 10)
    assert 0 <= score_dataset(model, batches, reconstruct=True).mean_face_mse < 1e-12


def test_no_batches_are_refused(model):
    with pytest.raises(ValueError, match="at least one face; got none"):
        score_dataset(model, [])


def test_faces_of_another_size_are_refused(model):
    batches = make_batches(np.zeros((2, 16, 16, 3), np.float32), make_rows(2, 0))
    with pytest.raises(ValueError, match=r"faces of \(8, 8, 3\).*has \(16, 16, 3\)"):
        score_dataset(model, batches)


@pytest.mark.parametrize("pack", [lambda flat: flat, lambda flat: {"reconstruction": flat}])
def test_a_model_that_does_not_classify_is_refused(pack):
    image = keras.Input((SIZE, SIZE, 3))
    other = keras.Model(image, pack(keras.layers.Flatten()(image)), name="other")
    with pytest.raises(ValueError, match="the output 'classification'; got 'other'"):
        score_dataset(other, [])


@pytest.fixture(scope="module")
def baseline(model):
    """The same stand-in without a decoder."""
    outputs = {"classification": model.output["classification"]}
    return keras.Model(model.input, outputs, name="baseline")


@pytest.mark.parametrize("reconstruct", [False, True])
def test_without_a_decoder_there_are_scores_but_no_error(baseline, faces, reconstruct):
    scored = score_dataset(baseline, make_batches(faces, make_rows()), reconstruct=reconstruct)
    np.testing.assert_allclose(scored.score, faces.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)
    assert scored.error is None and scored.mean_face_mse is None


def test_the_decoder_is_not_run_unless_it_is_asked_for(faces):
    """A decoder that cannot be run: it would be noticed."""

    class Fails(keras.layers.Layer):
        def call(self, x):
            tf.debugging.assert_less(tf.reduce_max(x), -1.0)
            return x

    image = keras.Input((SIZE, SIZE, 3), name="image")
    score = keras.layers.Dense(1, "sigmoid")(keras.layers.GlobalAveragePooling2D()(image))
    model = keras.Model(image, {"classification": score, "reconstruction": Fails()(image)})
    assert len(score_dataset(model, make_batches(faces, make_rows())).score) == 10
    with pytest.raises(tf.errors.InvalidArgumentError):
        score_dataset(model, make_batches(faces, make_rows()), reconstruct=True)


def test_a_detector_without_decoder_differs_in_nothing_but_the_reconstruction(
    lend_rooms, baseline, tmp_path, monkeypatch
):
    lend_rooms(make_rows())
    asked = EvaluateOptions(reconstruction=True, rounds=100)
    full = evaluate("detector.keras", tmp_path, tmp_path / "full", asked)
    monkeypatch.setattr(module, "load_run_model", lambda path: (baseline, FaceOptions()))
    report = evaluate("detector.keras", tmp_path, tmp_path / "out", asked)

    assert json.loads((tmp_path / "out/report.json").read_text()) == report
    assert report == full | {"reconstruction": None}
    # The stand-in halves a face: the brighter, or darker than grey, the more it errs.
    assert full["reconstruction"]["mse"] > 0
    assert 0 <= full["reconstruction"]["frame_auc"] <= 1
    with_errors = read_scores(tmp_path / "full/scores.parquet")
    assert with_errors.reconstruction_error.mean() == pytest.approx(full["reconstruction"]["mse"])
    without = read_scores(tmp_path / "out/scores.parquet")
    assert without.reconstruction_error is None
    np.testing.assert_array_equal(without.score, with_errors.score)


@pytest.mark.slow
def test_a_trained_detector_without_decoder_is_evaluated(prepared_set, tmp_path, monkeypatch):
    options = ModelOptions(image_size=71, latent_dim=16, encoder_weights="none", decoder=False)
    detector = build_detector(options)
    detector.save(tmp_path / "baseline.keras")
    monkeypatch.setattr(folder, "_draw", lambda *_: None)
    report = evaluate(tmp_path / "baseline.keras", prepared_set, tmp_path / "out")
    assert report["reconstruction"] is None
    assert (tmp_path / "out/errors.png").is_file() and (tmp_path / "out/faces.svg").is_file()
    assert report["frame"]["num_real"] + report["frame"]["num_fake"] > 0
    assert report["protocol"]["model"] == "baseline.keras"
    of_file = hashlib.sha256((tmp_path / "baseline.keras").read_bytes()).hexdigest()
    assert report["protocol"]["model_digest"] == of_file


def test_evaluate_writes_scores_report_and_picture(lend_rooms, faces, tmp_path):
    rows = make_rows()
    rows.append(SimpleNamespace(**vars(rows[0]) | {"split": "train"}))
    videos = [
        make_video("clips/real/0", split="test", reason="cut short"),
        make_video("clips/real/9", split="test", reason="cut short"),
        make_video("clips/fake/8", split="test", reason=""),
        make_video("clips/fake/9", split="val", reason="no face"),
    ]
    lend_rooms(rows, videos, shards=rows[:10], draw=True)
    (tmp_path / "run").mkdir()
    out = tmp_path / "deep" / "out"
    asked = EvaluateOptions(threshold=0.4, batch_size=4, rounds=100)
    report = evaluate(tmp_path / "run", tmp_path / "clips", out, asked)

    pictures = ["det", "errors", "faces", "precision-recall", "reliability", "roc", "scores"]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [f"{name}.{kind}" for name in pictures for kind in ("png", "svg")]
        + ["report.html", "report.json", "report.md", "scores.parquet"]
    )
    assert json.loads((out / "report.json").read_text()) == report
    scores = read_scores(out / "scores.parquet")
    np.testing.assert_allclose(scores.score, faces.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)
    # The fake at 90 lies under the real at 120, in the last video of fakes: 24 of 25 pairs of
    # faces, 8 of 9 of videos (90 against 120 and 80, 70 and 60, 50).
    assert report["frame"]["auc"]["value"] == pytest.approx(24 / 25)
    assert report["video"]["num_fake"] == report["video"]["num_real"] == 3
    auc = report["video"]["auc"]
    assert auc["value"] == pytest.approx(8 / 9)
    assert auc["low"] < auc["value"] < auc["high"] <= 1
    assert report["by_manipulation"]["FaceSwap"]["video"] == report["video"]
    place = {"split": "test", "compression": "c23", "manipulation": ""}
    assert report["excluded"] == [
        {
            "data": "clips",
            "video_id": "clips/real/9",
            "is_fake": False,
            "reason": "cut short",
            **place,
        },
        {
            "data": "clips",
            "video_id": "clips/fake/8",
            "is_fake": True,
            "reason": "no face of it has a score",
            **place,
            "manipulation": "FaceSwap",
        },
    ]
    assert report["coverage"] == {
        "num_faces": 10,
        "num_scored": 6,
        "num_videos": 8,
        "share": 0.75,
    }
    protocol = report["protocol"]
    assert (list(protocol["data"]), protocol["split"]) == (["clips"], "test")
    assert protocol["threshold"] == 0.4
    assert protocol["data"]["clips"]["faces"]["detector"] == "mtcnn"
    assert protocol["data"]["clips"]["split"]["split"] == "official"
    assert protocol["training_faces"]["detector"] == "dlib"
    assert protocol["versions"]["keras"] == keras.__version__
    assert "validation" in protocol["checkpoint"]
    assert protocol["model_digest"] == DIGEST
    assert protocol["leaks"] == "not checked: what this model was trained on is not known here"
    assert "(roc.png)" in (out / "report.md").read_text()


def test_one_class_gives_a_report_without_a_picture_and_removes_the_old_one(lend_rooms, tmp_path):
    lend_rooms(make_rows(num_fake=0))
    (tmp_path / "roc.png").write_bytes(b"of an earlier evaluation")
    report = evaluate("detector.keras", tmp_path, tmp_path)
    assert report["frame"]["auc"] == {"value": None, "low": None, "high": None}
    assert report["video"]["auc"]["value"] is None
    assert report["by_manipulation"] == {}
    assert "not known" in report["protocol"]["checkpoint"]
    assert not (tmp_path / "roc.png").exists()
    assert "There are no curves" in (tmp_path / "report.md").read_text()


def test_an_empty_split_is_refused_before_anything_is_written(lend_rooms, tmp_path):
    lend_rooms(make_rows())
    with pytest.raises(ValueError, match="faces in the split 'val' of .*; got none"):
        evaluate("run", tmp_path, tmp_path / "out", EvaluateOptions(split="val"))
    assert not (tmp_path / "out").exists()


def test_shards_that_lack_a_face_are_refused(lend_rooms, tmp_path):
    rows = make_rows()
    lend_rooms(rows, shards=rows[:-1])
    with pytest.raises(ValueError, match="each of the 10 faces in the manifest; the shards gave 9"):
        evaluate("run", tmp_path, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_shards_cut_short_are_refused_in_words(lend_rooms, monkeypatch, faces, tmp_path):
    rows = make_rows()
    lend_rooms(rows)

    def fail(_):
        raise ValueError("Expected a face at byte 7 of train.tfrecord; got its end.")

    batches = tf.data.Dataset.from_tensors(next(make_batches(faces, rows, 9)))
    broken = tf.data.Dataset.range(1).map(lambda i: tf.numpy_function(fail, [i], tf.int64))
    read = tf.data.Dataset.zip(batches.repeat(2), tf.data.Dataset.range(1).concatenate(broken))
    monkeypatch.setattr(module, "load_faces", lambda *_, **__: read.map(lambda batch, _: batch))
    monkeypatch.setattr(
        "jdfd_keras.datasets.transforms.find_damage", lambda directory: ["train is short"]
    )
    with pytest.raises(ValueError, match="every face.*at byte 7.*Damaged: train is short. Copy"):
        evaluate("run", tmp_path, tmp_path / "out")


def test_shards_in_another_order_are_refused(model, faces):
    rows = make_rows()
    scored = score_dataset(model, make_batches(faces, rows[::-1]))
    sets = [TestSet("clips", None, to_columns(rows), [])]
    with pytest.raises(ValueError, match="frame 0 of 'clips/fake/0' is 1 in the manifest and 0"):
        join_manifest(sets, scored)


def test_a_detector_that_gives_nan_is_refused_by_name(model, faces):
    broken = faces.copy()
    broken[2] = np.nan
    rows = make_rows()
    sets = [TestSet("clips", None, to_columns(rows), [])]
    with pytest.raises(ValueError, match="got nan for frame 0 of 'clips/fake/1'"):
        join_manifest(sets, score_dataset(model, make_batches(broken, rows)))


def test_progress_leaves_stdout_to_the_results(lend_rooms, tmp_path, capsys):
    lend_rooms(make_rows())
    evaluate("run", tmp_path, tmp_path / "out", EvaluateOptions(batch_size=4))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "10/10 faces" in captured.err


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ("test", "source clips/True0 in training and evaluation"),
        ("val", "1 shared source"),
    ],
)
def test_what_training_saw_is_not_evaluated_unless_that_is_allowed(
    lend_rooms, tmp_path, split, told
):
    rows = make_rows()
    for row in rows:
        row.split = split
    lend_rooms(rows)
    (tmp_path / "run").mkdir()
    seen = make_rows(num_fake=1, num_real=0)  # shares the source of the first video of fakes
    seen[0].split = "train"
    write_seen(tmp_path / "run", to_columns(seen))
    with pytest.raises(ValueError, match=f"{told}.*--allow-leak"):
        evaluate(tmp_path / "run", tmp_path, tmp_path / "out", EvaluateOptions(split=split))
    assert not (tmp_path / "out").exists()
    allowed = EvaluateOptions(split=split, allow_leak=True)
    report = evaluate(tmp_path / "run", tmp_path, tmp_path / "out", allowed)
    assert "1 source shared" in report["protocol"]["leaks"]
    assert "1 source shared" in (tmp_path / "out/report.md").read_text()


def test_a_near_duplicate_of_a_training_face_is_found_too(lend_rooms, tmp_path):
    lend_rooms(make_rows())
    (tmp_path / "run").mkdir()
    seen = make_rows(num_fake=1, num_real=0)
    seen[0].video_id, seen[0].source_ids = "elsewhere/a", ["a"]
    flipped = int(seen[0].phash, 16) ^ 0b1011  # three bits of 256
    seen[0].phash = f"{flipped:064x}"
    write_seen(tmp_path / "run", to_columns(seen))
    with pytest.raises(ValueError, match=r"elsewhere/a \(training\) looks like clips/fake/0"):
        evaluate(tmp_path / "run", tmp_path, tmp_path / "out")


def test_validation_may_choose_the_epoch_and_be_looked_at_again(lend_rooms, tmp_path):
    rows = make_rows()
    for row in rows:
        row.split = "val"
    lend_rooms(rows)
    (tmp_path / "run").mkdir()
    write_seen(tmp_path / "run", to_columns(rows))
    report = evaluate(tmp_path / "run", tmp_path, tmp_path / "out", EvaluateOptions(split="val"))
    assert report["protocol"]["leaks"].startswith("none between training and evaluation")


def test_several_data_sets_are_told_apart(lend_rooms, tmp_path, monkeypatch, faces):
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
    monkeypatch.setattr(gather, "read_faces", pick(gather.read_faces, read_others))
    monkeypatch.setattr(module, "load_faces", pick(module.load_faces, load_others))
    asked = EvaluateOptions(rounds=0)
    report = evaluate("m.keras", [tmp_path / "clips", tmp_path / "others"], tmp_path / "o", asked)

    assert report["by_data"]["clips"]["frame"]["auc"]["value"] == pytest.approx(24 / 25)
    assert report["by_data"]["others"]["frame"]["auc"]["value"] == pytest.approx(1 / 25)
    assert report["frame"]["num_real"] == 10
    assert list(report["protocol"]["data"]) == ["clips", "others"]
    with pytest.raises(ValueError, match="each once; got .*clips, .*clips"):
        evaluate("m.keras", [tmp_path / "clips"] * 2, tmp_path / "o", asked)


def test_another_detector_is_compared_on_the_same_videos(lend_rooms, tmp_path):
    lend_rooms(make_rows())
    first = evaluate("m.keras", tmp_path, tmp_path / "a", EvaluateOptions(rounds=0))
    scores = read_scores(tmp_path / "a/scores.parquet")
    turned = Scores.from_faces(
        video_id=scores.video_id,
        label=scores.label.astype(int),
        score=1 - scores.score,
        frame_index=scores.frame_index,
    )
    write_scores(tmp_path / "other.csv", turned)
    asked = EvaluateOptions(rounds=0)
    report = evaluate("m.keras", tmp_path, tmp_path / "b", asked, compare=tmp_path / "other.csv")
    assert "comparison" not in first
    assert report["comparison"]["with"] == "other.csv"
    assert report["comparison"]["num_videos"] == 6
    found = report["comparison"]["video"]
    assert found["auc"] == pytest.approx(8 / 9) and found["other_auc"] == pytest.approx(1 / 9)
    assert found["difference"]["value"] == pytest.approx(7 / 9)


def test_the_hardest_errors_are_the_worst_faces_of_different_videos():
    scores = Scores.from_faces(
        video_id=["r0", "r0", "r1", "f0", "f0", "f1"],
        label=[0, 0, 0, 1, 1, 1],
        score=[0.9, 0.8, 0.3, 0.7, 0.6, 0.1],
    )
    assert choose_errors(scores) == [0, 2, 5, 4]


@pytest.fixture
def lend_run(lend_rooms, tmp_path, monkeypatch):
    """A run folder whose model scores as the stand-in does, with rows in validation."""
    rows = make_rows()
    for row in rows:
        row.split = "val"
    lend_rooms(rows)
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.keras").write_bytes(b"the stand-in")
    monkeypatch.setattr("jdfd_keras.evaluation.calibrate._draw", lambda *_: None)
    monkeypatch.setattr("jdfd_keras.evaluation.calibrate.load_run_model", module.load_run_model)
    return run


def test_a_calibrated_run_is_evaluated_with_its_calibration(lend_run, lend_rooms, faces, tmp_path):
    result = calibrate(lend_run, tmp_path / "clips", CalibrateOptions(fpr=0.34))
    # Videos by score: reals .22 .29 .39, fakes .35 .69 .76 or so: one real and one fake may err.
    assert (result["num_real"], result["num_fake"], result["wanted_rate"]) == (3, 3, 0.34)
    assert result["data"] == "clips"
    assert result["validation"]["real"]["fake"] <= 1
    assert f"temperature {result['temperature']:.3g}" in summarize(result)
    raw = read_scores(lend_run / "calibration/scores.parquet")
    np.testing.assert_allclose(raw.score, faces.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)

    lend_rooms(make_rows())
    report = evaluate(lend_run, tmp_path, tmp_path / "out", EvaluateOptions(rounds=0))
    assert report["protocol"]["threshold"] == result["threshold"]
    assert report["protocol"]["model_digest"] == report["protocol"]["calibration"]["model"]
    scores = read_scores(tmp_path / "out/scores.parquet")
    logit = np.log(raw.score / (1 - raw.score)) / result["temperature"]
    np.testing.assert_allclose(scores.score, 1 / (1 + np.exp(-logit)), rtol=1e-6)
    assert "The scores are calibrated" in (tmp_path / "out/report.md").read_text()
    own = EvaluateOptions(rounds=0, threshold=0.25)
    report = evaluate(lend_run, tmp_path, tmp_path / "out", own)
    assert report["protocol"]["threshold"] == 0.25


def test_a_run_that_was_trained_further_is_to_be_calibrated_again(lend_run, tmp_path):
    calibration = Calibration(model=digest_model(lend_run))
    save_calibration(lend_run / "calibration.json", calibration)
    (lend_run / "best.keras").write_bytes(b"another epoch")
    with pytest.raises(ValueError, match="trained further since.*calibrate. again"):
        evaluate(lend_run, tmp_path, tmp_path / "out", EvaluateOptions(split="val"))


def test_what_training_saw_does_not_calibrate(lend_run, tmp_path):
    seen = make_rows(num_fake=1, num_real=0)
    seen[0].split = "train"
    write_seen(lend_run, to_columns(seen))
    with pytest.raises(ValueError, match="1 shared source"):
        calibrate(lend_run, tmp_path / "clips")
    assert not (lend_run / "calibration.json").exists()
    allowed = calibrate(lend_run, tmp_path / "clips", CalibrateOptions(allow_leak=True))
    assert "1 source shared" in allowed["leaks"]


def test_a_model_file_alone_cannot_keep_a_calibration(tmp_path):
    with pytest.raises(NotADirectoryError, match="Expected a run folder"):
        calibrate(tmp_path / "model.keras", tmp_path)


def test_what_cannot_be_compared_is_refused_before_anything_is_scored(
    lend_rooms, tmp_path, monkeypatch
):
    lend_rooms(make_rows())
    monkeypatch.setattr(module, "load_faces", lambda *_, **__: pytest.fail("faces were read"))
    (tmp_path / "other.csv").write_text("video_id,label,score\nelsewhere,0,0.5\n")
    with pytest.raises(ValueError, match="none of them in both"):
        evaluate("m.keras", tmp_path, tmp_path / "out", compare=tmp_path / "other.csv")
    assert not (tmp_path / "out").exists()


def test_what_calibrated_a_run_does_not_test_it(lend_run, lend_rooms, tmp_path):
    calibrate(lend_run, tmp_path / "clips")
    write_seen(lend_run, to_columns(make_rows(1, 0)).slice(0, 0))  # training saw nothing of it
    lend_rooms(make_rows())  # the same faces, in a test split
    with pytest.raises(ValueError, match="--allow-leak"):
        evaluate(lend_run, tmp_path, tmp_path / "out", EvaluateOptions(rounds=0))


def test_a_calibration_that_was_removed_holds_nothing_back(lend_run, lend_rooms, tmp_path):
    calibrate(lend_run, tmp_path / "clips")
    write_seen(lend_run, to_columns(make_rows(1, 0)).slice(0, 0))
    (lend_run / "calibration.json").unlink()
    lend_rooms(make_rows())
    report = evaluate(lend_run, tmp_path, tmp_path / "out", EvaluateOptions(rounds=0))
    assert report["protocol"]["calibration"] is None


def test_a_lack_of_memory_says_what_to_try(lend_rooms, tmp_path, monkeypatch):
    lend_rooms(make_rows())

    def fail(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    monkeypatch.setattr(module, "score_dataset", fail)
    with pytest.raises(ValueError, match="Expected memory.*--batch-size 16"):
        evaluate("m.keras", tmp_path, tmp_path / "out")


def test_a_model_file_in_its_run_knows_its_training(lend_rooms, tmp_path):
    lend_rooms(make_rows())
    (tmp_path / "run").mkdir()
    (tmp_path / "run/options.json").write_text('{"data": {"name": "ffpp"}, "train": {"seed": 3}}')
    report = evaluate(
        tmp_path / "run/best.keras", tmp_path, tmp_path / "o", EvaluateOptions(rounds=0)
    )
    assert report["protocol"]["training"] == {"data": {"name": "ffpp"}, "train": {"seed": 3}}
    assert "Trained on ffpp" in (tmp_path / "o/report.md").read_text()
