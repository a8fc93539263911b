"""Model and data set to report, with the neighbours' rooms stood in for by small lists."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import tensorflow as tf

from jdfd_keras.evaluation import evaluate as module
from jdfd_keras.evaluation.evaluate import evaluate, join_manifest, score_dataset
from jdfd_keras.evaluation.scores import read_scores
from jdfd_keras.model.network import build_detector
from jdfd_keras.options import EvaluateOptions, FaceOptions, ModelOptions, SplitOptions
from jdfd_keras.training.run import write_seen

SIZE = 8


@pytest.fixture(scope="module")
def model():
    """Scores a face by how bright it is and reconstructs it at half its contrast."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    score = keras.layers.Dense(1, kernel_initializer=lambda *_, **__: np.full((3, 1), 1 / 3))(mean)
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
            split="test",
            source_ids=[f"{is_fake}{index // 2}"],
            phash=hash_of(2 * index + is_fake),
        )
        for is_fake, count in ((True, num_fake), (False, num_real))
        for index in range(count)
    ]


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

    def lend(rows, videos=(), shards=None):
        def load_faces(directory, split, *, batch_size, labelled_only):
            assert labelled_only, "faces of neither class cannot be measured"
            return list(make_batches(faces, rows if shards is None else shards, batch_size))

        def read_faces(directory, *, split, columns):
            return to_columns(rows).filter(pc.field("split") == split).select(list(columns))

        monkeypatch.setattr(module, "read_faces", read_faces)
        monkeypatch.setattr(module, "read_videos", lambda directory: list(videos))
        monkeypatch.setattr(module, "load_faces", load_faces)
        monkeypatch.setattr(
            module,
            "load_options",
            lambda path, group, kind: (
                SplitOptions() if kind is SplitOptions else FaceOptions(detector="mtcnn")
            ),
        )
        monkeypatch.setattr(module, "load_run_model", lambda path: (model, FaceOptions()))

    return lend


def test_scores_come_in_the_order_of_the_data_set(model, faces):
    rows = make_rows()
    scored = score_dataset(model, make_batches(faces, rows))
    np.testing.assert_allclose(scored.score, faces.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)
    assert scored.label.tolist() == [row.label for row in rows]


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_errors_are_those_of_all_faces_whatever_the_batch(model, faces, batch_size):
    scored = score_dataset(model, make_batches(faces, make_rows(), batch_size))
    scaled = faces.astype(np.float64) / 127.5 - 1
    # The stand-in answers x / 2 for x, so it errs by x / 2.
    assert scored.reconstruction.mse == pytest.approx(np.square(scaled / 2).mean(), rel=1e-5)
    mean_face = scaled.mean(axis=0)
    assert scored.reconstruction.mean_face_mse == pytest.approx(
        np.square(scaled - mean_face).mean(), rel=1e-5
    )


def test_faces_all_alike_have_no_variance(model):
    # Of this face the variance rounds to -1e-16.
    face = np.random.default_rng(0).uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32)
    scored = score_dataset(model, make_batches(np.stack([face] * 10), make_rows(10, 0), 10))
    assert 0 <= scored.reconstruction.mean_face_mse < 1e-12


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


def test_without_a_decoder_there_are_scores_and_faces_but_no_error(baseline, faces):
    scored = score_dataset(baseline, make_batches(faces, make_rows()), show={0, 7})
    np.testing.assert_allclose(scored.score, faces.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)
    assert scored.reconstruction is None
    assert set(scored.pictures) == {0, 7}
    expected = faces[7].astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(scored.pictures[7], expected[None], atol=1e-6)


def test_with_a_decoder_pictures_are_face_and_reconstruction(model, faces):
    scored = score_dataset(model, make_batches(faces, make_rows()), show={7})
    face = faces[7].astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(scored.pictures[7], [face, face / 2], atol=1e-6)


def test_a_detector_without_decoder_differs_in_nothing_but_the_reconstruction(
    lend_rooms, baseline, tmp_path, monkeypatch
):
    lend_rooms(make_rows())
    full = evaluate("detector.keras", tmp_path, tmp_path / "full")
    monkeypatch.setattr(module, "load_run_model", lambda path: (baseline, FaceOptions()))
    report = evaluate("detector.keras", tmp_path, tmp_path / "out")

    assert json.loads((tmp_path / "out/report.json").read_text()) == report
    assert report == full | {"reconstruction": None}
    assert full["reconstruction"]["mse"] > 0
    for name in ("scores.csv", "roc.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "full" / name).read_bytes()
    page = (tmp_path / "out/report.md").read_text()
    assert "This detector has no decoder." in page and "(faces.png)" in page


def test_a_trained_detector_without_decoder_is_evaluated(prepared_set, tmp_path):
    options = ModelOptions(image_size=71, latent_dim=16, encoder_weights="none", decoder=False)
    detector = build_detector(options)
    detector.save(tmp_path / "baseline.keras")
    report = evaluate(tmp_path / "baseline.keras", prepared_set, tmp_path / "out")
    assert report["reconstruction"] is None
    assert report["frame"]["num_real"] + report["frame"]["num_fake"] > 0
    assert report["protocol"]["model"] == "baseline.keras"


def test_evaluate_writes_scores_report_and_picture(lend_rooms, faces, tmp_path):
    rows = make_rows()
    rows.append(SimpleNamespace(**vars(rows[0]) | {"split": "train"}))
    videos = [
        SimpleNamespace(video_id="clips/real/0", label=0, split="test", reason="cut short"),
        SimpleNamespace(video_id="clips/real/9", label=0, split="test", reason="cut short"),
        SimpleNamespace(video_id="clips/fake/8", label=1, split="test", reason=""),
        SimpleNamespace(video_id="clips/fake/9", label=1, split="val", reason="no face"),
    ]
    lend_rooms(rows, videos, shards=rows[:10])
    (tmp_path / "run").mkdir()
    out = tmp_path / "deep" / "out"
    report = evaluate(
        tmp_path / "run", tmp_path / "clips", out, EvaluateOptions(threshold=0.4, batch_size=4)
    )

    assert sorted(path.name for path in out.iterdir()) == [
        "faces.png",
        "report.json",
        "report.md",
        "roc.png",
        "scores.csv",
    ]
    assert json.loads((out / "report.json").read_text()) == report
    scores = read_scores(out / "scores.csv")
    np.testing.assert_allclose(scores.score, faces.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)
    # The fake at 90 lies under the real at 120, in the last video of fakes: 24 of 25 pairs of
    # faces, 8 of 9 of videos (90 against 120 and 80, 70 and 60, 50).
    assert report["frame"]["auc"]["value"] == pytest.approx(24 / 25)
    assert report["video"]["num_fake"] == report["video"]["num_real"] == 3
    assert report["video"]["auc"]["value"] == pytest.approx(8 / 9)
    assert report["by_manipulation"]["FaceSwap"]["video"] == report["video"]
    assert report["excluded"] == [
        {"video_id": "clips/real/9", "is_fake": False, "reason": "cut short"},
        {"video_id": "clips/fake/8", "is_fake": True, "reason": "no face in the manifest"},
    ]
    protocol = report["protocol"]
    assert (protocol["data"], protocol["split"], protocol["threshold"]) == ("clips", "test", 0.4)
    assert protocol["face_options"]["detector"] == "mtcnn"
    assert protocol["training_face_options"]["detector"] == "dlib"
    assert protocol["versions"]["keras"] == keras.__version__
    assert "validation" in protocol["checkpoint"]
    assert protocol["split_options"]["split"] == "official"
    assert protocol["leaks"] == "not checked: what this model was trained on is not known here"
    assert "(roc.png)" in (out / "report.md").read_text()


def test_one_class_gives_a_report_without_a_picture_and_removes_the_old_one(lend_rooms, tmp_path):
    lend_rooms(make_rows(num_fake=0))
    (tmp_path / "roc.png").write_bytes(b"of an earlier evaluation")
    report = evaluate("detector.keras", tmp_path, tmp_path)
    assert report["video"]["auc"]["value"] is None
    assert report["by_manipulation"] == {}
    assert "not known" in report["protocol"]["checkpoint"]
    assert not (tmp_path / "roc.png").exists()
    assert "There is no ROC curve" in (tmp_path / "report.md").read_text()


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
    monkeypatch.setattr("jdfd_keras.data.shards.find_damage", lambda directory: ["train is short"])
    with pytest.raises(ValueError, match="every face.*at byte 7.*Damaged: train is short. Copy"):
        evaluate("run", tmp_path, tmp_path / "out")


def test_shards_in_another_order_are_refused(model, faces):
    rows = make_rows()
    scored = score_dataset(model, make_batches(faces, rows[::-1]))
    with pytest.raises(ValueError, match="frame 0 of 'clips/fake/0' is 1 in the manifest and 0"):
        join_manifest(to_columns(rows), scored)


def test_a_detector_that_gives_nan_is_refused_by_name(model, faces):
    broken = faces.copy()
    broken[2] = np.nan
    rows = make_rows()
    with pytest.raises(ValueError, match="got nan for frame 0 of 'clips/fake/1'"):
        join_manifest(to_columns(rows), score_dataset(model, make_batches(broken, rows)))


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
