"""What `inspect` shows is what is there: faces, tracks, classes and their numbers."""

import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from jdfd_keras.datasets import inspection as inspect_module
from jdfd_keras.datasets.inspection import inspect, summarize
from jdfd_keras.datasets.manifest import FaceRow, VideoRow, read_manifest
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.options import FaceOptions, FilterOptions

# Collins is in all frames but these; Hopper, who is larger, in the last four.
NUM_FRAMES, EMPTY, HOPPER = 10, (2, 3), (6, 7, 8, 9)
ALL = FaceOptions(every=1, tracks="all", face_size=160)


@pytest.fixture(scope="module")
def film(tmp_path_factory, astronaut):
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with get_sample_data("grace_hopper.jpg") as file:
        hopper = np.asarray(Image.open(file).convert("RGB"))[60:400, 80:420]
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (600, 340))
    for index in range(NUM_FRAMES):
        frame = np.full((340, 600, 3), 90, np.uint8)
        if index not in EMPTY:
            frame[100:300, 20:220] = astronaut[40:240, 120:320]
        if index in HOPPER:
            frame[:, 260:] = hopper
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.fixture
def drawn(monkeypatch):
    """What is handed over to be drawn: the rows, and the words above them."""
    sheets = []
    monkeypatch.setattr(
        inspect_module, "draw_sheet", lambda path, rows, **words: sheets.append((rows, words))
    )
    return sheets


def write_wall(path, num_frames=3):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (160, 120))
    for _ in range(num_frames):
        writer.write(np.full((120, 160, 3), 90, np.uint8))
    writer.release()
    return path


def is_on(sheet, picture):
    height, width = picture.shape[:2]
    corners = np.argwhere((sheet[:-height, :-width] == picture[0, 0]).all(axis=2))
    return any(
        np.array_equal(sheet[top : top + height, left : left + width], picture)
        for top, left in corners
    )


def test_a_film_gives_a_sheet_of_its_tracks_and_an_overlay_of_all_its_frames(film, tmp_path):
    out, overlay = tmp_path / "new" / "sheet.png", tmp_path / "films" / "overlay.avi"
    options = FaceOptions(tracks="all", face_size=160, frames_per_video=2)
    summary = inspect(film, out, faces=options, overlay=overlay)
    assert json.loads(json.dumps(summary)) == summary
    # All frames are looked at, though two were asked for: the film needs them.
    assert (summary["num_frames"], summary["num_faces"]) == (10, 12)
    assert [track["num_faces"] for track in summary["tracks"]] == [8, 4]
    assert [track["num_taken"] for track in summary["tracks"]] == [8, 4]
    starts_and_ends = [(track["start_s"], track["end_s"]) for track in summary["tracks"]]
    assert starts_and_ends == [(0, 0.36), (0.24, 0.36)]
    assert (summary["dropped"], summary["warnings"]) == ({}, [])
    assert (summary["sheet"], summary["overlay"]) == (str(out), str(overlay))
    assert "failed" not in summary
    sheet = cv2.cvtColor(cv2.imread(str(out)), cv2.COLOR_BGR2RGB)
    assert all(is_on(sheet, face.crop) for face in extract_faces(film, ALL).faces)
    assert cv2.VideoCapture(str(overlay)).get(cv2.CAP_PROP_FRAME_COUNT) == 10
    assert summarize(summary).splitlines()[1].startswith("track 0: 8 faces, 0.0-0.4 s, confidence")


def test_rows_say_what_was_taken_and_the_sheet_what_was_left_out(film, tmp_path, drawn):
    summary = inspect(film, tmp_path / "s.png", faces=FaceOptions(every=1, face_size=80))
    ((rows, words),) = drawn
    assert [row.title for row in rows] == ["track 0", "track 1"]
    assert ["none taken" in row.notes for row in rows] == [True, False]
    assert [len(row.faces) for row in rows] == [0, 4]
    assert [face.caption.split(",")[0] for face in rows[1].faces] == [
        f"frame {index}" for index in HOPPER
    ]
    assert rows[0].colour != rows[1].colour
    assert words["title"] == "film.mp4"
    assert words["notes"][0] == "10 frames looked at, 4 faces taken"
    assert sum(summary["dropped"].values()) == 8
    assert f"left out: 8 ({next(iter(summary['dropped']))})" in words["notes"]
    assert words["notes"][-1] in summarize(summary)


def test_of_many_faces_some_are_shown_evenly_and_counted(film, tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(inspect_module, "share_places", lambda num_faces: [4, 4])
    inspect(film, tmp_path / "sheet.png", faces=ALL, landmarks=True)
    ((rows, _),) = drawn
    assert "4 of 8 shown" in rows[0].notes
    # Of the frames 0, 1, 4, 5, 6, 7, 8, 9 the middle ones of four pairs.
    captions = [face.caption.splitlines()[0] for face in rows[0].faces]
    assert captions == ["frame 1, 0.04 s", "frame 5, 0.20 s", "frame 7, 0.28 s", "frame 9, 0.36 s"]
    assert not any("shown" in note for note in rows[1].notes)
    assert all(face.landmarks.shape == (68, 2) for row in rows for face in row.faces)


def test_an_image_is_inspected_too(tmp_path, astronaut):
    source = tmp_path / "portrait.png"
    cv2.imwrite(str(source), cv2.cvtColor(astronaut, cv2.COLOR_RGB2BGR))
    summary = inspect(source, tmp_path / "s.png", overlay=tmp_path / "o.jpg")
    assert (summary["num_frames"], summary["num_faces"]) == (1, 1)
    assert (tmp_path / "s.png").is_file() and (tmp_path / "o.jpg").is_file()
    assert "1 frame looked at, 1 face taken" in summarize(summary)


def test_a_film_without_a_face_fails_without_a_sheet_but_with_its_overlay(tmp_path):
    wall = write_wall(tmp_path / "wall.mp4")
    summary = inspect(wall, tmp_path / "s.png", overlay=tmp_path / "o.mp4")
    assert (summary["num_faces"], summary["tracks"], summary["sheet"]) == (0, [], None)
    assert summary["failed"] == [
        {"path": str(wall), "error": "no face was found in 3 frames looked at; no sheet is written"}
    ]
    assert not (tmp_path / "s.png").exists()
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert "no face was found" in summarize(summary)


def test_faces_that_are_all_left_out_fail_with_the_reason(film, tmp_path):
    filters = FilterOptions(min_size=500)
    summary = inspect(film, tmp_path / "s.png", faces=ALL, filters=filters)
    assert "no face that may be taken" in summary["failed"][0]["error"]
    assert sum(summary["dropped"].values()) == 12
    assert not (tmp_path / "s.png").exists()


def test_a_prepared_set_gives_a_row_for_each_class_with_faces_of_every_video(
    prepared_set, tmp_path, drawn
):
    from jdfd_keras.datasets.pipeline import load_faces

    summary = inspect(prepared_set, tmp_path / "sheet.png")
    ((rows, words),) = drawn
    manifest = read_manifest(prepared_set)
    crops = {}
    for split in ("train", "val", "test"):
        batches = load_faces(prepared_set, split, batch_size=64)
        images = np.concatenate([image.numpy() for image, _ in batches])
        for row, image in zip([r for r in manifest if r.split == split], images, strict=True):
            crops[row.video_id, row.frame_index] = image
    assert [row.title for row in rows] == ["real", "fake"]
    for label, row in enumerate(rows):
        own = [face for face in manifest if face.label == label]
        assert row.notes[0] == f"{len(own)} faces"
        # Three lines of eight for each class; coarse fakes are not all seen by the detector.
        shown = min(len(own), 24)
        assert len(row.faces) == shown
        assert (f"24 of {len(own)} shown" in row.notes) == (len(own) > 24)
        names = set()
        for face in row.faces:
            name, place = face.caption.splitlines()
            names.add(name)
            split, frame_index = place.split(", frame ")
            video_id = f"clips/{('real', 'fake')[label]}/{name}"
            np.testing.assert_array_equal(face.crop, crops[video_id, int(frame_index)])
            assert split == next(r.split for r in manifest if r.video_id == video_id)
        assert len(names) == len({face.video_id for face in own})
        assert len({face.caption for face in row.faces}) == shown
    assert words["title"] == "prepared"
    assert (summary["num_videos"], summary["num_faces"]) == (16, len(manifest))
    counts = {(g["split"], g["label"]): g["num_faces"] for g in summary["groups"]}
    assert counts == {
        (split, name): sum((row.split, row.label) == (split, label) for row in manifest)
        for split in ("train", "val", "test")
        for label, name in enumerate(("real", "fake"))
    }
    assert json.loads(json.dumps(summary)) == summary


def test_manipulations_have_rows_of_their_own(prepared_set, change_table, tmp_path, drawn):
    root = shutil.copytree(prepared_set, tmp_path / "set")

    def name_some(rows):
        return [
            dataclasses.replace(row, manipulation="Deepfakes")
            if row.label and ("/person00" in row.path or "/person01" in row.path)
            else row
            for row in rows
        ]

    for kind in (FaceRow, VideoRow):
        change_table(root, kind, name_some)
    summary = inspect(root, tmp_path / "sheet.png")
    ((rows, _),) = drawn
    assert [row.title for row in rows] == ["real", "fake Deepfakes", "fake"]
    own = [row for row in read_manifest(root) if row.manipulation == "Deepfakes"]
    num_videos = len({row.video_id for row in own})
    assert 0 < len(own) == len(rows[1].faces) <= 8
    assert rows[1].notes == [f"{len(own)} faces", f"of {num_videos} video{'s' * (num_videos > 1)}"]
    assert "fake Deepfakes: " in summarize(summary)


def test_a_prepared_set_gives_a_picture(prepared_set, tmp_path):
    summary = inspect(prepared_set, tmp_path / "sheet.png", landmarks=True)
    assert summary["sheet"] == str(tmp_path / "sheet.png")
    height, width, _ = cv2.imread(str(tmp_path / "sheet.png")).shape
    assert 1000 < width < 4000 and 1000 < height < 4000


def cut(shard):
    shard.write_bytes(shard.read_bytes()[:-3000])


def overwrite(shard):
    size = shard.stat().st_size
    with open(shard, "r+b") as file:
        for place in range(20, size, 500):
            file.seek(place)
            file.write(b"\x8a" * 100)


@pytest.mark.parametrize(
    ("damage", "state"),
    [(cut, "checksum|its end"), (overwrite, "checksum"), (Path.unlink, "No such file")],
)
def test_damaged_shards_are_named(prepared_set, tmp_path, damage, state):
    root = shutil.copytree(prepared_set, tmp_path / "set")
    damage(root / "shards" / "train-00000.tfrecord")
    with pytest.raises(
        ValueError, match=rf"Expected a face at byte \d+ of .*train-00000.tfrecord; got .*({state})"
    ):
        inspect(root, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("path", "out", "words", "error", "named"),
    [
        ("none.mp4", "s.png", {}, FileNotFoundError, "none.mp4, which is not there"),
        ("folder", "s.png", {}, FileNotFoundError, "Expected a prepared data set in folder"),
        ("folder", "s.png", {"overlay": "o.mp4"}, ValueError, "got the folder folder"),
        ("wall.mp4", "s.jpg", {}, ValueError, "a .png file for the sheet"),
        ("wall.png", "wall.png", {}, ValueError, "another one than the file"),
        ("wall.png", "o.png", {"overlay": "./o.png"}, ValueError, "another one than"),
        ("wall.mp4", "s.png", {"overlay": "o.gif"}, ValueError, ".mp4, .webm, .avi"),
        ("wall.mp4", "s.png", {"faces": FaceOptions(margin=0.5)}, ValueError, "margin"),
        ("wall.mp4", "s.png", {"filters": FilterOptions(max_yaw=91)}, ValueError, "max_yaw"),
        ("notes.txt", "s.png", {}, OSError, "Expected a video"),
    ],
)
def test_what_cannot_be_inspected_is_refused_and_left_alone(
    tmp_path, monkeypatch, path, out, words, error, named
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    write_wall(tmp_path / "wall.mp4")
    cv2.imwrite("wall.png", np.full((120, 160, 3), 90, np.uint8))
    (tmp_path / "notes.txt").write_text("Dear diary")
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    with pytest.raises(error, match=named):
        inspect(path, out, **words)
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before
