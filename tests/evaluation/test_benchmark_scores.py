"""Prediction files of DeepfakeBench and deepsafe-bench, written here as these projects do."""

import csv
import gzip
import json
import pickle
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from jdfd_keras.datasets.layouts.deepfakebench import list_deepfakebench
from jdfd_keras.datasets.videos import DatasetFiles
from jdfd_keras.evaluation.delong import compare
from jdfd_keras.evaluation.evaluate import evaluate
from jdfd_keras.evaluation.scores import score_videos
from jdfd_keras.evaluation.scores_file import read_scores, read_scores_file
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import EvaluateOptions
from jdfd_keras.reporting.report_text import render_markdown

QUICK = EvaluateOptions(n_resamples=0)
FAKES = "FaceForensics++/manipulated_sequences"
REALS = "FaceForensics++/original_sequences/youtube/c23/frames"


def list_frames(*folders: str, root: str = "./datasets/rgb", count: int = 3) -> list[str]:
    """Return frames of folders in another order, as the loader of DeepfakeBench shuffles them."""
    frames = [f"{root}/{folder}/{10 * i:03d}.png" for folder in folders for i in range(count)]
    return np.random.default_rng(0).permutation(frames).tolist()


@pytest.fixture
def write_deepfakebench(tmp_path):
    """Return a function that writes both pickles of a test dataset."""

    def write(frames, label, score=None, *, metrics=None, dataset: str = "FaceForensics++"):
        folder = tmp_path / "logs" / "test" / dataset
        folder.mkdir(parents=True, exist_ok=True)
        label = np.array(label)
        if score is None:
            score = np.random.default_rng(1).random(len(label)).astype(np.float32)
        if metrics is None:
            metrics = {"acc": 0.5, "auc": np.float64(0.5), "pred": score, "label": label}
        with open(folder / "metric_dict_best.pickle", "wb") as file:
            pickle.dump(metrics, file)
        with open(folder / "data_dict_test.pickle", "wb") as file:
            pickle.dump({"image": tuple(frames), "label": tuple(label.tolist())}, file)
        return folder / "metric_dict_best.pickle"

    return write


def is_fake(frames):
    return [int("manipulated" in str(frame)) for frame in frames]


@pytest.mark.parametrize("root", ["./datasets/rgb", "/data/rgb", "D:\\rgb"])
def test_frames_of_deepfakebench_have_the_ids_of_prepare(write_deepfakebench, root):
    frames = list_frames(f"{REALS}/000", f"{FAKES}/Deepfakes/c23/frames/000_003", root=root)
    if "\\" in root:
        frames = [frame.replace("/", "\\") for frame in frames]
    path = write_deepfakebench(frames, is_fake(frames))
    scores = read_scores(path)
    assert set(scores.videos.video_id) == {"ffpp/youtube/c23/000", "ffpp/Deepfakes/c23/000_003"}
    assert set(scores.videos.data) == {"FaceForensics++"}
    assert set(scores.videos.manipulation) == {"", "Deepfakes"}
    assert set(scores.videos.compression) == {"c23"}
    names = [frame.replace("\\", "/").rsplit("/", 1)[1] for frame in frames]
    assert scores.frame_index.tolist() == [int(name[:3]) for name in names]
    assert scores.score.tolist() == pickle.loads(path.read_bytes())["pred"].tolist()


@pytest.mark.parametrize(
    ("frame", "label", "video_id"),
    [
        ("rgb/Celeb-DF-v2/Celeb-real/frames/id0_0000/7.png", 0, "celebdf/v2/Celeb-real/id0_0000"),
        ("rgb/UADFV/fake/frames/0001_fake/7.png", 1, "uadfv/fake/0001_fake"),
        ("rgb/DFDC/test/frames/aayfryxljh/7.png", 1, "dfdc/test/aayfryxljh"),
        ("./own/faces/frames/clip/7.png", 1, "own/faces/clip"),
        ("frames/7.png", 1, "frames"),
    ],
)
def test_ids_of_other_datasets(write_deepfakebench, frame, label, video_id):
    assert read_scores(write_deepfakebench([frame], [label])).video_id.tolist() == [video_id]


def test_ids_are_those_that_prepare_lists(write_deepfakebench):
    folders = [f"{REALS}/000", f"{FAKES}/FaceSwap/c40/frames/003_000"]
    folders += ["Celeb-DF-v2/Celeb-real/frames/id0_0000", "UADFV/real/frames/0003"]
    frames = sorted(list_frames(*folders, root="rgb"))
    listed = list_deepfakebench(DatasetFiles(LocalStore("/"), "", tuple(frames)))
    scores = read_scores(write_deepfakebench(frames, is_fake(frames)))
    assert set(scores.videos.video_id) == {video.video_id for video in listed.videos}
    for name, kind in (("manipulation", str), ("compression", str), ("label", bool)):
        expected = {video.video_id: kind(getattr(video, name)) for video in listed.videos}
        found = zip(scores.videos.video_id, getattr(scores.videos, name), strict=True)
        assert {video_id: kind(value) for video_id, value in found} == expected


def test_video_auc_is_that_of_deepfakebench_if_folders_have_different_names(write_deepfakebench):
    folders = [f"{REALS}/{name}" for name in ("000", "003", "010", "011")]
    fakes = {"Deepfakes": "000_003", "FaceSwap": "003_000", "Face2Face": "010_005"}
    folders += [f"{FAKES}/{kind}/c23/frames/{pair}" for kind, pair in fakes.items()]
    frames = list_frames(*folders)
    score = np.random.default_rng(2).random(len(frames)).astype(np.float32)
    scores = read_scores(write_deepfakebench(frames, is_fake(frames), score))
    by_folder = defaultdict(list)  # as `get_video_metrics` of DeepfakeBench groups frames
    for frame, one in zip(frames, score.tolist(), strict=True):
        by_folder[frame.split("/")[-2]].append(one)
    expected = roc_auc_score(
        ["_" in name for name in by_folder], [np.mean(ones) for ones in by_folder.values()]
    )
    assert roc_auc_score(scores.videos.label, score_videos(scores)) == pytest.approx(expected)


def test_fakes_of_one_name_by_different_manipulations_are_different_videos(write_deepfakebench):
    kinds = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")
    frames = list_frames(*(f"{FAKES}/{kind}/c23/frames/000_003" for kind in kinds))
    assert len(read_scores(write_deepfakebench(frames, is_fake(frames))).videos) == 4


def test_a_clip_is_named_by_its_first_frame(write_deepfakebench):
    folder = f"rgb/{REALS}/000"
    clips = [[f"{folder}/{i:03d}.png" for i in range(start, start + 4)] for start in (8, 0)]
    scores = read_scores(write_deepfakebench(clips, [0, 0]))
    assert scores.video_id.tolist() == ["ffpp/youtube/c23/000"] * 2
    assert scores.frame_index.tolist() == [8, 0]


def test_numbered_manipulations_are_fake(write_deepfakebench):
    frames = list_frames("own/frames/a", "own/frames/b", count=1)
    metrics = {"pred": np.array([[0.25], [0.5]]), "label": np.array([1, 1])}
    scores = read_scores(write_deepfakebench(frames, [2, 4], metrics=metrics))
    assert scores.label.tolist() == [True, True]


def test_the_report_says_that_the_weights_were_chosen_on_the_test_data(write_deepfakebench):
    frames = list_frames(f"{REALS}/000", f"{FAKES}/Deepfakes/c23/frames/000_003")
    report = evaluate(scores=write_deepfakebench(frames, is_fake(frames)), options=QUICK)
    assert report.protocol.is_chosen_on_test and report.protocol.repeated_rows == 0
    text = render_markdown(report)
    assert "The weights are those with the best result on these data" in text
    assert "of DeepfakeBench: the weights with the best result on these test data" in text


@pytest.mark.parametrize(
    ("frames", "label", "metrics", "message"),
    [
        (["a/frames/b/0.png"], [0], {"acc": 0.5}, "arrays pred and label .* got the keys acc"),
        (["a/frames/b/0.png"], [0], {"pred": [0.5], "label": [0]}, "got the keys pred, label"),
        (
            ["a/frames/b/0.png"],
            [0],
            {"pred": np.zeros(2), "label": np.zeros(2, int)},
            "got 2 scores and 2 labels, 1 path and 1 label.* batch",
        ),
        (
            ["a/frames/b/0.png", "a/frames/c/0.png"],
            [0, 1],
            {"pred": np.zeros(2), "label": np.array([1, 0])},
            "in the same order; got others for 2 frames, such as a/frames/b/0.png",
        ),
        ([7], [0], None, "path of a frame.* got '7'"),
        (["0.png"], [0], None, "path of a frame.* got '0.png'"),
        ([[]], [0], None, r"path of a frame.* got '\[\]'"),
        ([f"rgb/{REALS}/000/0.png"], [1], None, "got fake for rgb/.*/000, which is real"),
        (["a/frames/b/0.png"], [0], {"pred": np.full(1, 1.5), "label": np.zeros(1, int)}, "0..1"),
    ],
)
def test_wrong_files_of_deepfakebench_are_named(
    write_deepfakebench, frames, label, metrics, message
):
    path = write_deepfakebench(frames, label, metrics=metrics)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        read_scores(path)


def test_the_frames_must_lie_beside_the_scores(write_deepfakebench):
    path = write_deepfakebench(["a/frames/b/0.png"], [0])
    with pytest.raises(ValueError, match="Expected no column"):
        read_scores(path, "pred")
    path.with_name("data_dict_test.pickle").unlink()
    with pytest.raises(FileNotFoundError, match="Expected data_dict_test.pickle beside .*missing"):
        read_scores(path)


ROWS = [
    # id, modality, label, generator, ensemble_score, prob_sbi, prob_npr
    ("001", "video", "real", "msrvtt", "0.2", "0.5", ""),
    ("002", "video", "real", "msrvtt", "0.4", "0.1", ""),
    ("003", "video", "fake", "sora", "0.3", "0.6", ""),
    ("004", "video", "fake", "sora", "0.9", "0.7", ""),
    ("005", "images", "real", "coco", "0.05", "", "0.0625"),
    ("006", "images", "fake", "glide", "0.95", "", "1e-05"),
]
NAMES = ["id", "modality", "label", "generator", "ensemble_score", "prob_sbi", "prob_npr"]


@pytest.fixture
def write_deepsafe(tmp_path):
    """Return a function that writes predictions of deepsafe-bench in one of its formats."""

    def write(suffix: str, rows=ROWS):
        path = tmp_path / f"predictions{suffix}"
        if suffix == ".json":
            numbers = [
                [*row[:4], *(float(one) if one else None for one in row[4:])] for row in rows
            ]
            path.write_text(json.dumps([dict(zip(NAMES, row, strict=True)) for row in numbers]))
            return path
        with (gzip.open if suffix == ".csv.gz" else open)(path, "wt", newline="") as file:
            csv.writer(file).writerows([NAMES, *rows])
        return path

    return write


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".json"])
def test_predictions_of_deepsafe_bench_are_read(write_deepsafe, suffix):
    file = read_scores_file(write_deepsafe(suffix))
    scores = file.scores
    assert scores.video_id.tolist() == [row[0] for row in ROWS]
    assert scores.label.tolist() == [row[2] == "fake" for row in ROWS]
    assert scores.score.tolist() == [float(row[4]) for row in ROWS]
    assert scores.videos.data.tolist() == [row[1] for row in ROWS]
    few = "generators with fewer than 30 files"
    assert scores.videos.manipulation.tolist() == ["", "", few, few, "", few]

    file = read_scores_file(write_deepsafe(suffix), "prob_npr")
    assert file.scores.video_id.tolist() == ["005", "006"]
    assert file.scores.score.tolist() == [0.0625, 1e-05]
    assert file.benchmark is not None and file.benchmark.coverage.endswith("in prob_npr: 2 of 6")


def test_generators_with_enough_files_are_measured_by_themselves(write_deepsafe):
    rows = [(f"v{i}", "video", "fake", "sora", "0.5", "0.5", "") for i in range(30)]
    assert set(read_scores(write_deepsafe(".csv", rows)).videos.manipulation) == {"sora"}


def test_an_ensemble_is_compared_with_its_member_on_common_files(write_deepsafe):
    path = write_deepsafe(".csv.gz")
    report = evaluate(scores=path, compare=path, compare_column="prob_sbi", options=QUICK)
    label = np.array([False, False, True, True])
    expected = compare(label, np.array([0.2, 0.4, 0.3, 0.9]), np.array([0.5, 0.1, 0.6, 0.7]))
    comparison = report.comparison
    assert comparison is not None and expected is not None
    assert comparison.compared_with == "predictions.csv.gz, column prob_sbi"
    assert (comparison.num_videos, comparison.only_first) == (4, ("005", "006"))
    assert comparison.video is not None and comparison.video.p == pytest.approx(expected.p)
    assert report.protocol.checkpoint.startswith("of deepsafe-bench, column ensemble_score")
    assert not report.protocol.is_chosen_on_test


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        (None, "prob_effort", "ensemble_score, prob_sbi, prob_npr; got 'prob_effort'"),
        (
            "a,video,real,x,high\n",
            "",
            "numbers in the column ensemble_score .*'high' in data row 1",
        ),
        ("a,video,maybe,x,0.5\n", "", "got the label 'maybe'"),
        ("a,video,real,x,\n", "", "got no score at all"),
        ("a,video,real,x,1.5\n", "", "predictions.csv: .* 0..1; got 1.5"),
        ("a,video,real,x,0.5\na,video,real,x,0.5\n", "", "each face once"),
    ],
)
def test_wrong_predictions_of_deepsafe_bench_are_named(write_deepsafe, content, column, message):
    path = write_deepsafe(".csv")
    if content:
        path.write_text(",".join(NAMES[:5]) + "\n" + content)
    with pytest.raises(ValueError, match=message):
        read_scores(path, column)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "[", '[{"id": 1}]'])
def test_other_json_is_an_error(tmp_path, content):
    (tmp_path / "predictions.json").write_text(content)
    with pytest.raises(ValueError, match="a list of objects with id, modality, label, generator"):
        read_scores(tmp_path / "predictions.json")


@pytest.mark.parametrize("end", [0, 5, -4])
def test_a_damaged_gzip_file_is_an_error(write_deepsafe, end):
    path = write_deepsafe(".csv.gz")
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ValueError, match=r"predictions\.csv\.gz"):
        read_scores(path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_of_an_own_table_is_chosen(tmp_path, suffix):
    path = tmp_path / f"all{suffix}"
    table = pa.table(
        {"video_id": ["a", "b"], "label": [0, 1], "score": [0.5, 0.5], "sbi": [0.1, 0.9]}
    )
    if suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    assert read_scores(path).score.tolist() == [0.5, 0.5]
    assert read_scores(path, "sbi").score.tolist() == [0.1, 0.9]
    with pytest.raises(ValueError, match="Expected the columns video_id, label, npr in "):
        read_scores(path, "npr")
    report = evaluate(scores=path, column="sbi", options=QUICK)
    assert report.protocol.model == f"all{suffix}, column sbi"
    with pytest.raises(ValueError, match="Expected compare with the column 'sbi' of it; got no"):
        evaluate(scores=path, compare_column="sbi", options=QUICK)
