import dataclasses
import json
import re
import shutil
from collections import Counter, defaultdict

import cv2
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from jdfd_keras.cli.main import main
from jdfd_keras.datasets import audit as audit_module
from jdfd_keras.datasets.audit import AuditResult, CommonSources, audit
from jdfd_keras.datasets.leakage import COLUMNS, describe_leakage, find_leakage
from jdfd_keras.datasets.manifest import (
    FaceRow,
    VideoRow,
    read_faces,
    read_videos,
    to_rows,
    to_table,
    write_table,
)
from jdfd_keras.datasets.shortcuts import Shortcut
from jdfd_keras.datasets.split_tables import read_split_table, write_split_table
from jdfd_keras.datasets.videos import FaceCount
from jdfd_keras.io.files import save_options
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import FaceOptions, FilterOptions, PrepareOptions, SplitOptions
from jdfd_keras.reporting import dataset_report
from jdfd_keras.reporting.dataset_report import NEAR_DUPLICATES, render_audit, write_audit

LISTING = {"missing": [], "unrecognized": [], "excluded": {}, "notes": []}


def video(video_id, split="train", label=0, sources=None, **fields):
    """Return the row of a video with two faces; all rows are equal but for split and class."""
    row = VideoRow(
        video_id=video_id,
        path=f"{video_id}.mp4",
        label=label,
        manipulation="FaceSwap" if label == 1 else "",
        compression="c23",
        source_ids=tuple([video_id.rsplit("/", 1)[-1]] if sources is None else sources),
        split=split,
        file_bytes=1000,
        width=640,
        height=480,
        jpeg_quality=0,
        num_frames=4,
        num_tracks=1,
        num_faces=2,
        filtered={},
        warning="",
        reason="",
    )
    return dataclasses.replace(row, **fields)


def faces_of(row, rng, **fields):
    """Return the faces of a video, with unique hashes."""
    shared = {
        field.name: getattr(row, field.name)
        for field in dataclasses.fields(row)
        if field.name in {face.name for face in dataclasses.fields(FaceRow)}
    }
    face = FaceRow(
        **shared,
        frame_index=0,
        time_s=0.0,
        track_id=0,
        box=(10, 10, 110, 120),
        detector="dlib",
        detector_score=1.0,
        landmarks=(0.0,) * 136,
        alignment_residual=0.01,
        sharpness=50.0,
        outside=0.0,
        yaw_deg=0.0,
        phash="",
        shard="00000.tfrecord",
        offset=0,
    )
    fields = {name: [value] * row.num_faces for name, value in fields.items()}
    fields["phash"] = fields.get("phash", [rng.bytes(32).hex() for _ in range(row.num_faces)])
    return [
        dataclasses.replace(
            face, frame_index=index, **{name: values[index] for name, values in fields.items()}
        )
        for index in range(row.num_faces)
    ]


def write_split(folder, videos, name="official", options=None, reasons=None):
    """Write a split table with the splits of the videos; "" for excluded ones."""
    rows = {"video_id": [], "split": [], "reason": []}
    for row in videos:
        rows["video_id"].append(row.video_id)
        rows["split"].append(row.split)
        rows["reason"].append((reasons or {}).get(row.video_id, ""))
    write_split_table(LocalStore(str(folder)), name, pd.DataFrame(rows), options or SplitOptions())


def write_set(folder, videos, rows, listing=LISTING, is_split=True, **options):
    """Write a prepared dataset without its shards, which only images of faces need."""
    folder.mkdir(exist_ok=True)
    groups = {"faces": FaceOptions(), "filters": FilterOptions(), "prepare": PrepareOptions()}
    save_options(folder / "options.json", **(groups | options))
    for name, kind, content in (("videos", VideoRow, videos), ("manifest", FaceRow, rows)):
        with open(folder / f"{name}.parquet", "wb") as file:
            write_table(file, kind, [to_table(content, kind)])
    (folder / "listing.json").write_text(json.dumps(listing))
    if is_split:
        write_split(folder, videos)
    return folder


@pytest.fixture
def make_set(tmp_path):
    """Return a function that writes a dataset of videos with two different faces each."""
    rng = np.random.default_rng(0)

    def make(name, videos, **written):
        faces = [face for row in videos for face in faces_of(row, rng)]
        return write_set(tmp_path / name, videos, faces, **written)

    return make


def clean_videos(namespace="mine", count=12):
    """Return videos, a third of them in each split, half of them fake."""
    splits = ("train", "val", "test")
    return [
        video(f"{namespace}/{number}", splits[number % 3], number // 3 % 2)
        for number in range(count)
    ]


def shortcuts_in(result, number=0):
    return {row.measure: row for row in result.datasets[number].shortcuts}


def test_counts_equal_those_of_the_rows(prepared_set):
    (found,) = audit([prepared_set]).datasets
    faces = to_rows(read_faces(prepared_set), FaceRow)
    videos = read_videos(prepared_set, split_table="official")
    names = {1: "fake", 0: "real"}
    members, all_videos = defaultdict(list), defaultdict(set)
    for row in faces:
        members[row.split, names[row.label], row.manipulation].append(row.video_id)
    for row in videos:
        all_videos[row.split, names[row.label], row.manipulation].add(row.video_id)
    assert len(found.counts) == len(members) == 6
    for group in found.counts:
        key = (group.split, group.label, group.manipulation)
        # Also the videos without a face.
        assert (group.num_videos, group.num_faces) == (len(all_videos[key]), len(members[key]))
    splits = [group.split for group in found.counts]
    assert splits == ["train", "train", "val", "val", "test", "test"]
    assert (found.num_faces, found.num_videos) == (len(faces), 16)
    assert {group.compression for group in found.counts} == {""}
    without = [row for row in videos if not row.num_faces]
    assert found.without_faces == Counter(names[row.label] for row in without)
    assert found.reasons == {row.video_id: row.reason for row in without}
    for split, share in found.fake_share.items():
        labels = [row.label for row in faces if row.split == split]
        assert share == pytest.approx(sum(labels) / len(labels))


def test_the_report_begins_with_the_faces_of_each_split(prepared_set):
    faces = Counter((row.split, row.label) for row in to_rows(read_faces(prepared_set), FaceRow))
    columns = [(split, label) for split in ("train", "val", "test") for label in (0, 1)]
    header = " | ".join(f"{split} {('real', 'fake')[label]}" for split, label in columns)
    counts = " | ".join(str(faces[column]) for column in columns)
    page = render_audit(audit([prepared_set]))
    assert page.index(f"| dataset | split table | strategy | {header} |") < page.index("## Leakage")
    assert f"| prepared | official | official | {counts} |" in page


def test_the_first_table_sums_all_manipulations(make_set):
    names = ["Deepfakes", "FaceSwap", "FaceSwap", "NeuralTextures"]
    fakes = [video(f"mine/f{n}", "val", 1, manipulation=name) for n, name in enumerate(names)]
    result = audit([make_set("a", [video("mine/real", "train"), *fakes])])
    assert "| a | official | official | 2 | 0 | 0 | 8 | 0 | 0 |" in render_audit(result)
    assert "| val | fake | FaceSwap | c23 | 2 | 4 |" in render_audit(result)


def test_unlabelled_faces_are_counted_but_not_in_the_share_of_fakes(make_set):
    videos = [*clean_videos(), *(video(f"mine/new{number}", "test", -1) for number in range(3))]
    (found,) = audit([make_set("a", videos)]).datasets
    assert FaceCount(3, 6, "test", "unlabelled", "", "c23") in found.counts
    assert found.fake_share == {"train": 0.5, "val": 0.5, "test": 0.5}
    assert all(row.num_videos <= 12 for row in found.shortcuts)


def test_missing_unrecognized_and_excluded_files_are_counted(make_set):
    listing = {
        "missing": ["real/1.mp4", "real/2.mp4"],
        "unrecognized": ["notes.mp4"],
        "excluded": {
            "mine/x": "no label: a",
            "mine/y": "no label: b",
            "mine/z": "another reason",
        },
        "notes": ["frames are grouped by the text before their last number"],
    }
    videos = clean_videos()
    videos[0] = dataclasses.replace(videos[0], num_faces=0, reason="no | face\nwas found")
    result = audit([make_set("_a_", videos, listing=listing)])
    (found,) = result.datasets
    assert (found.missing, found.unrecognized) == (2, 1)
    assert found.excluded == {"no label": 2, "another reason": 1}
    assert found.without_faces == {"real": 1}
    page = render_audit(result)
    assert "Files of the layout: 2 missing, 1 unrecognized." in page
    assert "Excluded by the layout: 2 videos, no label." in page
    assert "- Note: frames are grouped by the text before their last number\n" in page
    assert "| mine/0 | no \\| face was" in page and "\n## \\_a\\_\n" in page


def test_a_clean_set_does_not_fail(prepared_set, make_set):
    for directory in (prepared_set, make_set("a", clean_videos())):
        result = audit([directory])
        assert result.failed == []
        assert (result.num_shared_sources, result.shared_sources) == (0, [])
        assert (result.num_near_duplicates, result.near_duplicates) == (0, [])
        assert "**No leakage**" in render_audit(result)


def test_a_source_in_two_splits_is_found(make_set):
    videos = clean_videos()
    videos += [video("mine/a", "train", 0, ["anna"]), video("mine/b", "test", 1, ["anna", "bob"])]
    result = audit([make_set("a", videos)])
    assert result.num_shared_sources == 1
    assert result.to_dict()["shared_sources"] == [
        {"source": "mine/anna", "videos": {"train": ["mine/a"], "test": ["mine/b"]}}
    ]
    (failed,) = result.failed
    assert failed.startswith("1 source")
    page = render_audit(result)
    assert f"**Leakage: {failed}.**" in page
    assert "| mine/anna | train (1), test (1) | mine/a, mine/b |" in page


def test_a_near_duplicate_in_two_splits_is_found(tmp_path):
    rng = np.random.default_rng(1)
    one, other = video("mine/a", "val"), video("mine/b", "test", 1)
    phash = rng.bytes(32).hex()
    near = f"{int(phash, 16) ^ 0b10110:064x}"
    faces = [
        *(face for row in clean_videos() for face in faces_of(row, rng)),
        *faces_of(one, rng, phash=phash),
        *faces_of(other, rng, phash=near)[:1],
        *faces_of(other, rng)[1:],
    ]
    result = audit([write_set(tmp_path / "a", [*clean_videos(), one, other], faces)])
    assert result.num_near_duplicates == 1
    (pair,) = result.near_duplicates
    assert (pair.splits, pair.videos) == (("val", "test"), ("mine/a", "mine/b"))
    assert (pair.num_faces, pair.bits) == (2, 3)
    (failed,) = result.failed
    assert failed.startswith("1 pair")
    assert "| val / test | mine/a / mine/b | 2 | 3 |" in render_audit(result)


def test_a_source_in_training_of_one_set_and_testing_of_another_is_found(make_set):
    one = [*clean_videos("one"), video("ffpp/real/000", "train", 0, ["000"])]
    other = [*clean_videos("other"), video("ffpp/FaceSwap/000_1", "test", 1, ["000", "001"])]
    made = [make_set("a", one), make_set("b", other)]
    for directory in made:
        assert audit([directory]).failed == []
    result = audit(made)
    assert len(result.failed) == 1
    assert [entry.source for entry in result.shared_sources] == ["ffpp/000"]
    assert result.common_sources == [CommonSources(("a", "b"), 1, ["ffpp/000"])]


def test_common_sources_of_data_sets_are_listed_even_in_one_split(make_set):
    common = [video(f"ffpp/c23/{number}", "train", number % 2) for number in range(4)]
    made = [
        make_set("a", [*clean_videos("a"), *common]),
        make_set("b", [*clean_videos("b"), *common[:3]]),
        make_set("c", clean_videos("c")),
    ]
    result = audit(made)
    assert result.failed == []
    expected = CommonSources(("a", "b"), 3, ["ffpp/0", "ffpp/1", "ffpp/2"])
    assert result.common_sources == [expected]
    assert re.search("a and b .* 3 .*ffpp/0, ffpp/1, ffpp/2", render_audit(result))
    assert "No source is" in render_audit(audit(made[1:]))


def test_data_sets_with_different_alignments_are_mentioned(make_set):
    one, same = make_set("a", clean_videos("a")), make_set("b", clean_videos("b"))
    other = make_set("c", clean_videos("c"), faces=FaceOptions(alignment="box", margin=1.5))
    assert "aligned differently" not in render_audit(audit([one, same]))
    result = audit([one, other])
    assert result.alignments == {"a": "landmarks68, margin 1.3", "c": "box, margin 1.5"}
    assert "differently (a: landmarks68, margin 1.3; c: box, margin 1.5)" in render_audit(result)


MEASURES = {
    "file size": lambda value: {"file_bytes": value},
    "frame size": lambda value: {"width": value},
    "JPEG quality": lambda value: {"jpeg_quality": value},
    "faces found per frame": lambda value: {"num_frames": 100 - value},
    "frame rate": lambda value: {"frame_rate": value / 2},
    "duration": lambda value: {"duration_s": value / 2},
    "bit rate": lambda value: {"bit_rate": value},
}
CATEGORIES = {"codec": "codec", "pixel format": "pixel_format", "encoder": "encoder"}


def vary(measure, step):
    """Return 60 videos in which one property is noise of 0 to 8, plus `step` if fake."""
    rng = np.random.default_rng(0)
    return [
        dataclasses.replace(row, **MEASURES[measure](10 + step * row.label + int(rng.integers(9))))
        for row in clean_videos(count=60)
    ]


@pytest.mark.parametrize("measure", MEASURES)
def test_a_property_that_separates_the_classes_is_a_shortcut(make_set, measure):
    result = audit([make_set("a", vary(measure, step=10))])
    found = shortcuts_in(result)
    interval = {"low": found[measure].low, "high": 1.0}
    assert found[measure] == Shortcut(measure, 60, auc=1.0, is_shortcut=True, **interval)
    assert 0.9 < found[measure].low < 0.95  # 1 - 1.96 standard errors, with 30 videos per class
    assert [name for name, row in found.items() if row.is_shortcut] == [measure]
    row = f"| {measure} | 60 | 1.000 [{found[measure].low:.3f}, 1.000] | a shortcut |"
    assert row in render_audit(result)


@pytest.mark.parametrize("measure", MEASURES)
def test_noise_is_not_a_shortcut(make_set, measure):
    found = shortcuts_in(audit([make_set("a", vary(measure, step=0))]))[measure]
    assert found.num_videos == 60
    assert 0.3 < found.auc < 0.7
    assert found.auc != 0.5
    assert not found.is_shortcut


@pytest.mark.parametrize(
    ("name", "field"),
    [("sharpness", "sharpness"), ("width of the detected face", "box")],
)
def test_properties_of_faces_are_averaged_over_the_video(tmp_path, name, field):
    rng = np.random.default_rng(0)
    videos, faces, means = clean_videos(count=30), [], {}
    for row in videos:
        values = rng.integers(20, 60, 2).tolist()
        means[row.video_id] = np.mean(values)
        for face, value in zip(faces_of(row, rng), values, strict=True):
            entry = float(value) if field == "sharpness" else (7, 0, 7 + value, 100)
            faces.append(dataclasses.replace(face, **{field: entry}))
    found = shortcuts_in(audit([write_set(tmp_path / "a", videos, faces)]))[name]
    # The AUC by its definition: the share of pairs in which the fake video has the larger value.
    pairs = [
        (means[fake.video_id] > means[real.video_id])
        + 0.5 * (means[fake.video_id] == means[real.video_id])
        for fake in videos
        for real in videos
        if fake.label > real.label
    ]
    assert found.num_videos == 30
    assert found.auc == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(("num_more", "auc", "is_shortcut"), [(62, 0.62, False), (72, 0.72, True)])
def test_a_shortcut_has_an_auc_of_0_7_or_more(make_set, num_more, auc, is_shortcut):
    # 100 of each class; `num_more` fakes have two bytes, and as many real videos have one. An AUC
    # of 0.62 differs from 0.5 by three standard errors, and is not a shortcut.
    videos = [
        video(f"mine/{n}", "train", n % 2, file_bytes=1 + ((n // 2 < num_more) == bool(n % 2)))
        for n in range(200)
    ]
    found = shortcuts_in(audit([make_set("a", videos)]))["file size"]
    assert found.auc == pytest.approx(auc)
    assert found.is_shortcut is is_shortcut


def categories(values, count=200, label=lambda number: number % 2, **others):
    """Return videos, every second one fake, with the value of each by its number."""
    media = {"container": "mp4", "codec": "h264", "pixel_format": "yuv420p", "encoder": "Lavf60"}
    return [
        video(f"mine/{n}", "train", label(n), **media | others | values(n)) for n in range(count)
    ]


@pytest.mark.parametrize("name", CATEGORIES)
def test_a_value_that_only_fakes_have_is_a_shortcut(make_set, name):
    values = ("yuv420p", "yuv444p")
    videos = categories(lambda n: {CATEGORIES[name]: values[n % 2]})
    result = audit([make_set("a", videos)])
    found = shortcuts_in(result)
    low = found[name].low
    assert found[name] == Shortcut(name, 200, 1.0, True, "yuv444p", 1.0, low=low, high=1.0)
    assert [key for key, row in found.items() if row.is_shortcut] == [name]
    row = f"| {name} | 200 | 1.000 [{low:.3f}, 1.000] | a shortcut (yuv444p: 100% fake) |"
    assert row in render_audit(result)


def test_the_most_telling_value_is_named(make_set):
    # Of 100 fakes 98 have yuv444p, and of 100 real videos 2.
    def values(n):
        return {"pixel_format": "yuv444p" if (n >= 4) == bool(n % 2) else "yuv420p"}

    found = shortcuts_in(audit([make_set("a", categories(values))]))["pixel format"]
    assert (found.value, found.is_shortcut) == ("yuv444p", True)
    assert found.fake_share == pytest.approx(0.98)
    # The AUC by its definition, of two values: a fake is above a real video, or equal.
    assert found.auc == pytest.approx(0.98 * 0.98 + 0.98 * 0.02, abs=0.02)


@pytest.mark.parametrize("name", CATEGORIES)
@pytest.mark.parametrize("count", [12, 13, 61, 200])
@pytest.mark.parametrize(
    "value",
    [
        lambda n: "the same",
        lambda n: f"x264 {n}",  # another one in every video
        lambda n: f"pair {n // 2}",  # in one real and one fake video
        lambda n: f"{n // 2 % 3}",  # three, each as frequent in both classes
    ],
)
def test_a_category_that_says_nothing_about_the_class_is_no_shortcut(make_set, name, count, value):
    videos = categories(lambda n: {CATEGORIES[name]: value(n)}, count)
    found = shortcuts_in(audit([make_set("a", videos)]))[name]
    assert (found.num_videos, found.is_shortcut) == (count, False)
    assert found.auc is not None
    if value(0) in ("the same", "x264 0"):
        assert found.auc == 0.5


def test_random_rare_categories_are_no_shortcut(make_set):
    rng = np.random.default_rng(0)
    videos = categories(lambda n: {"encoder": f"x264 {rng.integers(40)}"})
    found = shortcuts_in(audit([make_set("a", videos)]))["encoder"]
    assert 0.3 < found.auc < 0.65 and not found.is_shortcut


def test_a_missing_encoder_is_a_value_and_a_file_that_cannot_be_decoded_has_none(make_set):
    videos = categories(lambda n: {"encoder": "" if n % 2 else "x264"})
    damaged = categories(lambda n: {}, 20, codec="", pixel_format="", encoder="", container="")
    damaged = [dataclasses.replace(row, video_id=f"mine/no{n}") for n, row in enumerate(damaged)]
    result = audit([make_set("a", [*videos, *damaged])])
    found = shortcuts_in(result)["encoder"]
    assert (found.num_videos, found.auc, found.is_shortcut) == (200, 1.0, True)
    assert (found.value, found.fake_share) == ("not stated", 1.0)
    assert [row.to_dict() for row in result.datasets[0].formats] == [
        {
            "container": "mp4",
            "codec": "h264",
            "pixel_format": "yuv420p",
            "num_videos": {"real": 100, "fake": 100},
        }
    ]


@pytest.mark.parametrize(("num_fake", "auc"), [(0, None), (1, None), (2, 1.0)])
def test_a_category_needs_two_videos_of_each_class(make_set, num_fake, auc):
    videos = categories(lambda n: {"codec": f"{n < num_fake}"}, 5, lambda n: int(n < num_fake))
    found = shortcuts_in(audit([make_set("a", videos)]))["codec"]
    assert (found.auc, found.is_shortcut) == (auc, False)


def test_formats_are_counted_by_class(make_set):
    formats = ["yuv420p", "yuv420p", "a|b\u202e", "yuv420p"]
    videos = categories(lambda n: {"pixel_format": formats[n % 4]}, 12, lambda n: n % 3 - 1)
    page = render_audit(audit([make_set("a", videos)]))
    header = "| container | codec | pixel format | real | fake | unlabelled |"
    assert header in page
    assert "| mp4 | h264 | yuv420p | 3 | 3 | 3 |\n| mp4 | h264 | a\\|b\\u202e | 1 | 1 | 1 |" in page
    assert header not in render_audit(audit([make_set("b", clean_videos())]))


def test_a_property_with_smaller_values_for_fakes_is_a_shortcut(make_set):
    videos = [
        dataclasses.replace(row, file_bytes=100 - row.label) for row in clean_videos(count=60)
    ]
    found = shortcuts_in(audit([make_set("a", videos)]))["file size"]
    assert (found.auc, found.is_shortcut) == (0.0, True)


def test_few_videos_are_not_enough_for_a_shortcut(make_set):
    # With two of each class, an AUC of 1 has a probability of one in six by chance.
    videos = [video(f"mine/{n}", "train", n % 2, file_bytes=n % 2) for n in range(4)]
    found = shortcuts_in(audit([make_set("a", videos)]))["file size"]
    assert (found.auc, found.is_shortcut) == (1.0, False)


def test_a_property_without_values_for_both_classes_is_undefined(prepared_set, make_set):
    result = audit([prepared_set])
    expected = Shortcut("JPEG quality", num_videos=0, auc=None, is_shortcut=False)
    assert shortcuts_in(result)["JPEG quality"] == expected
    assert "| JPEG quality | 0 | undefined |  |" in render_audit(result)
    videos = [
        dataclasses.replace(row, jpeg_quality=90 * row.label) for row in clean_videos(count=20)
    ]
    found = shortcuts_in(audit([make_set("a", videos)]))["JPEG quality"]
    assert (found.num_videos, found.auc, found.is_shortcut) == (9, None, False)


def test_a_data_set_of_real_videos_alone_has_undefined_shortcuts(make_set):
    videos = [video(f"mine/{n}", ("train", "val", "test")[n % 3], 0) for n in range(12)]
    result = audit([make_set("a", videos)])
    assert (result.failed, result.datasets[0].fake_share["train"]) == ([], 0.0)
    assert {row.auc for row in result.datasets[0].shortcuts} == {None}
    assert not any(row.is_shortcut for row in result.datasets[0].shortcuts)
    assert "| file size | 12 | undefined |  |" in render_audit(result)


def test_a_data_set_without_faces_is_described(make_set):
    videos = [
        dataclasses.replace(row, num_faces=0, num_frames=0, width=0, height=0, reason="damaged")
        for row in clean_videos()
    ]
    result = audit([make_set("a", videos)])
    assert result.datasets[0].fake_share == {"train": None, "val": None, "test": None}
    assert result.datasets[0].without_faces == {"real": 6, "fake": 6}
    assert "Share of fakes: undefined." in render_audit(result)


def test_findings_are_all_counted_and_the_first_are_listed(make_set, monkeypatch):
    monkeypatch.setattr(audit_module, "MAX_LISTED", 2)
    videos = clean_videos()
    for number in range(5):
        videos += [video(f"mine/{s}{number}", s, 0, [f"s{number}"]) for s in ("train", "test")]
    videos += [video(f"mine/no{n}", num_faces=0, reason="damaged") for n in range(3)]
    result = audit([make_set("a", videos)])
    assert result.num_shared_sources == 5
    assert len(result.shared_sources) == 2
    assert [text.split()[:2] for text in result.failed] == [["5", "sources"]]
    assert result.datasets[0].without_faces == {"real": 3}
    assert len(result.datasets[0].reasons) == 2


def test_a_repeated_data_set_raises_an_error(make_set, tmp_path, monkeypatch):
    made, other = make_set("a", clean_videos("a")), make_set("b", clean_videos("b"))
    (tmp_path / "link").symlink_to(made)
    monkeypatch.chdir(tmp_path)
    for again in (made, str(made), tmp_path / "link", "a", "b/../a"):
        with pytest.raises(ValueError, match="each dataset once; got .*/a,"):
            audit([made, other, again])


def test_data_sets_with_the_same_name_are_named_by_their_paths(make_set, tmp_path):
    (tmp_path / "x").mkdir()
    made = [make_set("x/a", clean_videos("a")), make_set("a", clean_videos("b"))]
    result = audit(made)
    assert [entry.name for entry in result.datasets] == [str(directory) for directory in made]
    assert [entry.directory for entry in result.datasets] == [str(directory) for directory in made]


def test_a_folder_that_is_not_a_prepared_data_set_raises_an_error(make_set, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match="jdfd-keras prepare"):
        audit([make_set("a", clean_videos()), tmp_path / "empty"])


@pytest.fixture
def duplicated_sets(prepared_set, tmp_path):
    """Return a dataset, and a copy of it with other names and splits."""
    other = tmp_path / "other"
    shutil.copytree(prepared_set, other)
    for name, kind, rows in (
        ("manifest", FaceRow, to_rows(read_faces(prepared_set), FaceRow)),
        ("videos", VideoRow, read_videos(prepared_set)),
    ):
        rows = [
            dataclasses.replace(row, video_id=row.video_id.replace("clips/", "other/"))
            for row in rows
        ]
        with open(other / f"{name}.parquet", "wb") as file:
            write_table(file, kind, [to_table(rows, kind)])
    table = read_split_table(prepared_set, "official").rows
    swapped = {"train": "test", "test": "train", "val": "val"}
    table["video_id"] = [name.replace("clips/", "other/") for name in table["video_id"]]
    table["split"] = [swapped[split] for split in table["split"]]
    write_split_table(LocalStore(str(other)), "official", table, SplitOptions())
    return [prepared_set, other]


def test_the_written_report_equals_the_result(prepared_set, tmp_path):
    out = tmp_path / "new" / "folder"
    result = audit([prepared_set])
    write_audit(result, out)
    written = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    assert written == result.to_dict()
    assert AuditResult.from_dict(written) == result
    assert (out / "audit.md").read_text(encoding="utf-8") == render_audit(result)
    assert {path.name for path in out.iterdir()} == {"audit.json", "audit.md"}


@pytest.mark.slow
def test_near_duplicates_are_drawn_and_those_of_an_earlier_audit_removed(duplicated_sets, tmp_path):
    out = tmp_path / "out"
    result = audit(duplicated_sets)
    write_audit(result, out)
    written = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    assert written == result.to_dict()
    assert AuditResult.from_dict(written) == result
    # Every training video of one dataset is a test video of the other.
    rows = to_rows(read_faces(duplicated_sets[0]), FaceRow)
    faces = Counter(row.video_id for row in rows if row.split != "val")
    same = {}
    for pair in result.near_duplicates:
        names = [name.split("/", 1)[1] for name in pair.videos]
        if names[0] == names[1]:
            same[f"clips/{names[0]}"] = pair
    assert same.keys() == faces.keys()
    assert {pair.bits for pair in same.values()} == {0}
    assert all(pair.num_faces >= faces[name] for name, pair in same.items())
    expected = f"{result.num_near_duplicates} pairs of videos with near-duplicate faces"
    assert expected in result.failed[0]
    assert f"]({NEAR_DUPLICATES})" in (out / "audit.md").read_text(encoding="utf-8")
    assert min(cv2.imread(str(out / NEAR_DUPLICATES)).shape[:2]) > 300
    with pytest.raises(FileExistsError, match="no existing result at .*audit.md"):
        write_audit(result, out)
    write_audit(audit(duplicated_sets[:1]), out, overwrite=True)
    assert {path.name for path in out.iterdir()} == {"audit.json", "audit.md"}


def test_the_images_are_those_of_the_two_faces(duplicated_sets, tmp_path, monkeypatch):
    rows = []
    monkeypatch.setattr(
        dataset_report, "draw_sheet", lambda path, shown, title, notes: rows.extend(shown)
    )
    monkeypatch.setattr(dataset_report, "MAX_SHEET_ROWS", 5)
    result = audit(duplicated_sets)
    write_audit(result, tmp_path / "out")
    pairs = result.near_duplicates
    crops = {}
    for path in (duplicated_sets[0] / "shards").iterdir():
        for record in tf.data.TFRecordDataset(str(path)):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            video_id = features["video_id"].bytes_list.value[0].decode()
            name = f"{video_id}/frame {features['frame_index'].int64_list.value[0]}"
            png = features["image/encoded"].bytes_list.value[0]
            crops[name] = tf.io.decode_png(png).numpy()
    assert len(rows) == 5 < len(pairs)
    for row, pair in zip(rows, pairs[:5], strict=True):
        assert row.title == " and ".join(pair.splits)
        for face, video_id in zip(row.faces, pair.videos, strict=True):
            name = face.caption.replace("\n", "/")
            assert name.startswith(f"{video_id}/frame ")
            np.testing.assert_array_equal(face.crop, crops[name.replace("other/", "clips/")])


def test_the_command_exits_with_0_without_leakage(prepared_set, tmp_path, capsys):
    assert main(["audit", str(prepared_set), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "**No leakage**" in printed
    assert str(tmp_path / "out" / "audit.md") in printed


def test_the_command_exits_with_1_on_leakage(make_set, capsys):
    videos = [video("mine/a", "train", 0, ["anna"]), video("mine/b", "test", 1, ["anna"])]
    assert main(["audit", str(make_set("a", videos))]) == 1
    printed = capsys.readouterr().out
    assert "**Leakage: 1 source" in printed
    assert "mine/anna" in printed


def test_the_command_prints_the_result_as_json(make_set, capsys):
    videos = [video("mine/a", "train", 0, ["anna"]), video("mine/b", "test", 1, ["anna"])]
    made = make_set("a", videos)
    assert main(["audit", str(made), "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == audit([made]).to_dict()


def test_the_command_reports_a_folder_that_is_not_a_prepared_data_set(tmp_path, capsys):
    assert main(["audit", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.match(f"jdfd-keras audit: .*dataset in {tmp_path};", captured.err)


def test_compression_that_separates_the_classes_is_a_shortcut(make_set):
    videos = [
        dataclasses.replace(video, compression="c40" if video.label else "raw")
        for video in clean_videos()
    ]
    (found,) = audit([make_set("a", videos)]).datasets
    (row,) = [row for row in found.shortcuts if row.measure.startswith("compression")]
    assert (row.auc, row.is_shortcut) == (1.0, True)


# --- split tables ---


def test_each_table_has_its_own_counts_leakage_and_reasons(make_set):
    videos = [*clean_videos(), video("mine/a", "train", 0, ["anna"])]
    videos += [video("mine/b", "test", 1, ["anna"]), video("mine/c", "train", 1, ["cleo"])]
    made = make_set("a", videos)
    strict = [
        dataclasses.replace(row, split="") if row.video_id in ("mine/a", "mine/c") else row
        for row in videos
    ]
    reasons = {"mine/a": "shares footage with test: source anna"}
    write_split(made, strict, "clean", SplitOptions(strategy="strict"), reasons)
    result = audit([made], "clean")
    (found,) = result.datasets
    assert (found.split_table, found.strategy, found.other_tables) == (
        ("clean", "strict", ["official"])
    )
    assert found.excluded_by_split == {"shares footage with test": 1, "": 1}
    assert result.leakage == "none" and result.failed == []
    assert FaceCount(1, 2, "", "real", "", "c23") in found.counts
    assert found.num_videos == 15 == sum(group.num_videos for group in found.counts)
    page = render_audit(result)
    assert "| a | clean | strict | 4 | 4 | 4 | 4 | 4 | 6 |" in page
    assert "- Split table: clean (strategy: strict)." in page
    assert "- Excluded by the split: 1 video, shares footage with test." in page
    assert "- Excluded by the split: 1 video, no reason stated." in page
    assert "| excluded | fake | FaceSwap | c23 | 1 | 2 |" in page
    # The official one has the excluded videos, of which one shares a source with another split.
    official = audit([made])
    assert (official.leakage, official.num_shared_sources) == ("found", 1)
    assert official.datasets[0].excluded_by_split == {}


def test_faces_of_excluded_videos_are_not_compared(tmp_path):
    rng = np.random.default_rng(2)
    copies = [video("mine/a", "train"), video("mine/b", "test", 1)]
    rows = [*clean_videos(), *copies]
    phash = rng.bytes(32).hex()
    faces = [
        face
        for row in rows
        for face in faces_of(row, rng, **({"phash": phash} if row in copies else {}))
    ]
    made = write_set(tmp_path / "a", rows, faces)
    assert audit([made]).num_near_duplicates == 1
    excluded = [dataclasses.replace(row, split="") if row in copies else row for row in rows]
    write_split(made, excluded, "smaller")
    assert audit([made], "smaller").num_near_duplicates == 0


def test_a_dataset_without_the_official_table_is_described_and_not_compared(make_set):
    made = make_set("a", clean_videos(), is_split=False)  # its published splits do not count
    result = audit([made])
    (found,) = result.datasets
    assert (found.split_table, found.strategy, found.other_tables) == ("", "", [])
    assert {group.split for group in found.counts} == {""}
    assert (found.num_videos, found.num_faces, found.fake_share) == (12, 24, {"": 0.5})
    assert len(found.shortcuts) > 5
    assert (result.failed, result.leakage) == ([], "not ruled out")
    page = render_audit(result)
    assert "No leakage" not in page
    assert "**Leakage is not ruled out**" in page and "but a is not split: its faces are" in page
    assert "| a | not split |  |  |  |  |  |  |  |" in page
    assert "- Not split: " in page and "- Share of fakes: 50%." in page
    assert "| not split | real |  | c23 | 6 | 12 |" in page
    write_split(made, clean_videos(), "mine")
    assert "but mine: choose one with --split-table." in render_audit(audit([made]))
    assert audit([made], "mine").leakage == "none"


def test_a_dataset_that_is_not_split_is_audited_beside_one_that_is(make_set):
    one = make_set("a", [*clean_videos("a"), video("ffpp/c23/0", "train")])
    other = make_set("b", [*clean_videos("b"), video("ffpp/c23/0", "test")], is_split=False)
    result = audit([one, other])
    assert (result.failed, result.leakage) == ([], "not ruled out")
    assert result.uncertain == ["b is not split: its faces are not compared"]
    assert result.common_sources == [CommonSources(("a", "b"), 1, ["ffpp/0"])]


@pytest.mark.parametrize("name", ["strict", "no/such.csv"])
def test_a_table_that_does_not_exist_is_an_error(make_set, capsys, name):
    made = make_set("a", clean_videos())
    with pytest.raises(OSError, match=f"'{name}' of .*/a; got official"):
        audit([made], name)
    assert main(["audit", str(made), "--split-table", name]) == 1
    assert "jdfd-keras audit: Expected the split table" in capsys.readouterr().err


def test_a_table_of_another_dataset_is_an_error(make_set):
    made, other = make_set("a", clean_videos("a")), make_set("b", clean_videos("b"))
    with pytest.raises(ValueError, match="official.csv, which has no row for a/0, a/1, a/10"):
        audit([made], str(other / "splits" / "official.csv"))
    more = make_set("c", [*clean_videos("a"), video("a/new")])
    with pytest.raises(ValueError, match="which has rows for other videos, a/new"):
        audit([made], str(more / "splits" / "official.csv"))


# --- unknown sources ---


def unknown_videos(namespace="mine", count=12):
    """Return the same videos without their sources."""
    return [dataclasses.replace(row, source_ids=()) for row in clean_videos(namespace, count)]


def test_no_leakage_is_never_claimed_over_videos_of_unknown_source(make_set, capsys):
    videos = [*clean_videos("mine", 9), *unknown_videos("mine", 12)[9:]]
    made = make_set("a", videos)
    result = audit([made])
    assert result.datasets[0].unknown_sources == 3
    assert (result.failed, result.leakage) == ([], "not ruled out")
    assert main(["audit", str(made)]) == 0
    page = capsys.readouterr().out
    assert "No leakage" not in page
    assert "no near-duplicate face was found, but the sources of 3 of 12 videos are unknown" in page
    assert "- Sources unknown: 3 of 12 videos." in page


def test_unknown_sources_of_excluded_videos_do_not_matter_but_of_a_single_split_they_do(make_set):
    excluded = [dataclasses.replace(row, split="") for row in unknown_videos("no", 2)]
    result = audit([make_set("a", [*clean_videos(), *excluded])])
    assert (result.leakage, result.datasets[0].unknown_sources) == ("none", 2)
    tested = [dataclasses.replace(row, split="test") for row in unknown_videos()]
    # With one split nothing is compared, but "no leakage" is never said of unknown sources.
    assert audit([make_set("b", tested)]).leakage == "not ruled out"


def test_near_duplicates_among_unknown_sources_are_leakage(tmp_path):
    rng = np.random.default_rng(3)
    videos = unknown_videos()
    phash = rng.bytes(32).hex()
    faces = [
        face
        for number, row in enumerate(videos)  # the first two are in train and in val
        for face in faces_of(row, rng, **({"phash": phash} if number < 2 else {}))
    ]
    result = audit([write_set(tmp_path / "a", videos, faces)])
    assert [pair.videos for pair in result.near_duplicates] == [("mine/0", "mine/1")]
    assert (result.leakage, len(result.failed)) == ("found", 1)
    page = render_audit(result)
    assert "**Leakage: 1 pair of videos" in page
    assert "There may be more: the sources of 12 of 12 videos are unknown" in page


def test_a_video_of_unknown_source_whose_faces_are_in_two_splits_is_leakage(make_set):
    made = make_set("a", unknown_videos())
    rows = read_faces(made, split_table="", columns=["video_id", "frame_index", "track_id"])
    table = rows.to_pandas().astype({"video_id": object})
    table["split"] = ["train", "test"] * (len(table) // 2)  # of two faces each
    write_split_table(
        LocalStore(str(made)), "faces", table.assign(reason=""), SplitOptions(strategy="paper")
    )
    result = audit([made], "faces")
    assert result.num_shared_sources == 12
    assert result.shared_sources[0].source == "video mine/0"
    assert result.shared_sources[0].videos == {"train": ["mine/0"], "test": ["mine/0"]}
    assert result.leakage == "found"


# --- end to end ---


@pytest.fixture
def write_frames(tmp_path):
    """A function that writes files of random images into a folder; all are different."""
    rng = np.random.default_rng(4)

    def write(*names):
        for name in names:
            path = tmp_path / "frames" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (80, 80))
            cv2.imwrite(str(path), image)
        return tmp_path / "frames"

    return write


def three_splits(name):
    """Return two files of each split and class, by a pattern with the split and the class."""
    return [
        f"{split}/{label}/{name.format(f'{split}{label}', number)}.jpg"
        for split in ("train", "val", "test")
        for label in ("real", "fake")
        for number in (1, 9)
    ]


def prepare_frames(root, out):
    from jdfd_keras.datasets.prepare import prepare

    faces = FaceOptions(detector="none", face_size=71)
    return prepare(root, out, faces)


def test_a_planted_leak_in_a_flat_folder_is_found(write_frames, tmp_path, in_this_process, capsys):
    root = write_frames(*three_splits("{}_frame_{}"))
    prepare_frames(root, tmp_path / "clean")
    assert audit([tmp_path / "clean"]).failed == []
    write_frames("train/real/FILM_frame_1.jpg", "test/real/FILM_frame_9.jpg")
    prepared = prepare_frames(root, tmp_path / "planted")
    assert len(prepared.shared_sources) == 1
    capsys.readouterr()
    assert main(["audit", str(tmp_path / "planted")]) == 1
    printed = capsys.readouterr().out
    assert "**Leakage: 1 source in two splits.**" in printed and "FILM" in printed


def test_training_and_evaluation_do_not_rule_leakage_out_over_unknown_sources(make_set):
    from jdfd_keras.evaluation.eval_data import load_eval_sets
    from jdfd_keras.options import UnlabelledOptions
    from jdfd_keras.training.training_data import load_training_data

    made = make_set("a", unknown_videos())
    data = load_training_data(made, UnlabelledOptions(), seed=0, allow_leak=False)
    assert data.facts.leakage.startswith("not ruled out between training, validation and testing")
    assert "the sources of 12 of 12 videos are unknown" in data.facts.leakage
    (tested,) = load_eval_sets([made], "test")
    leakage = find_leakage({"training": data.provenance, "evaluation": tested.rows.select(COLUMNS)})
    sentence = describe_leakage(leakage, checked="training and evaluation")
    assert sentence.startswith("not ruled out between training and evaluation")
