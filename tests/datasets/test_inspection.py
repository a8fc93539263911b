"""`inspect` and its contact sheet show the faces, tracks and classes that exist."""

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.datasets.inspection import inspect
from jdfd_keras.datasets.manifest import FaceRow, VideoRow, read_faces, to_rows
from jdfd_keras.faces.extract import extract_faces
from jdfd_keras.io.palette import track_colour
from jdfd_keras.options import FaceOptions, FilterOptions, LimitOptions
from jdfd_keras.reporting import dataset_report
from jdfd_keras.reporting.dataset_report import (
    check_inspection_files,
    describe_inspection,
    write_inspection,
)

# Collins is in all frames but these; Hopper, who is larger, in the last four.
NUM_FRAMES, EMPTY, HOPPER = 10, (2, 3), (6, 7, 8, 9)
ALL = FaceOptions(every=1, tracks="all", face_size=160)


@pytest.fixture(scope="module")
def clip(tmp_path_factory, astronaut):
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with get_sample_data("grace_hopper.jpg") as file:
        hopper = np.asarray(Image.open(file).convert("RGB"))[60:400, 80:420]
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
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
    """The rows of every contact sheet that is drawn, and its title and notes."""
    sheets = []
    monkeypatch.setattr(
        dataset_report, "draw_sheet", lambda path, rows, **texts: sheets.append((rows, texts))
    )
    return sheets


def write_clip_without_a_face(path, num_frames=3):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (160, 120))
    for _ in range(num_frames):
        writer.write(np.full((120, 160, 3), 90, np.uint8))
    writer.release()
    return path


def contains(sheet, image):
    height, width = image.shape[:2]
    corners = np.argwhere((sheet[:-height, :-width] == image[0, 0]).all(axis=2))
    return any(
        np.array_equal(sheet[top : top + height, left : left + width], image)
        for top, left in corners
    )


@pytest.mark.slow
def test_a_clip_has_a_sheet_of_its_tracks_and_an_overlay_of_all_its_frames(clip, tmp_path):
    out, overlay = tmp_path / "new" / "sheet.png", tmp_path / "clips" / "overlay.mp4"
    options = FaceOptions(tracks="all", face_size=160, frames_per_video=2)
    result = inspect(clip, faces=options, all_frames=True)
    files = write_inspection(result, out, overlay=overlay)
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()
    assert not {"faces", "options"} & set(result.to_dict())
    # All frames are sampled, not the two of the options: the overlay needs them.
    assert (result.num_frames, result.num_faces) == (10, 12)
    assert [track.num_faces for track in result.tracks] == [8, 4]
    assert [track.num_kept for track in result.tracks] == [8, 4]
    times = [(track.start_s, track.end_s) for track in result.tracks]
    assert times == [(0, 0.36), (0.24, 0.36)]
    assert (result.filtered, result.warnings, result.reason) == ({}, [], "")
    assert (files.sheet, files.overlay) == (str(out), str(overlay))
    sheet = cv2.cvtColor(cv2.imread(str(out)), cv2.COLOR_BGR2RGB)
    assert all(contains(sheet, face.crop) for face in extract_faces(clip, ALL).faces)
    assert cv2.VideoCapture(str(overlay)).get(cv2.CAP_PROP_FRAME_COUNT) == 10
    lines = describe_inspection(result, files).splitlines()
    stated = "mp4, mpeg4 yuv420p, 600 x 340, 25 frames/s, 10 frames, 0.4 s, "
    assert lines[1].startswith(f"file: {stated}") and lines[1].endswith(f"SHA-256 {result.sha256}")
    assert result.sha256 == hashlib.sha256(clip.read_bytes()).hexdigest()
    assert result.to_dict()["media"]["codec"] == "mpeg4"
    assert lines[2].startswith("track 0: 8 faces, 0.0-0.4 s, confidence")
    assert lines[-2:] == [f"sheet: {out}", f"overlay: {overlay}"]


def test_the_rows_of_a_sheet_are_tracks_and_its_notes_count_filtered_faces(clip, tmp_path, drawn):
    result = inspect(clip, faces=FaceOptions(every=1, face_size=80))
    write_inspection(result, tmp_path / "s.png")
    ((rows, texts),) = drawn
    assert [row.title for row in rows] == ["track 0", "track 1"]
    assert ["none kept" in row.notes for row in rows] == [True, False]
    assert [len(row.faces) for row in rows] == [0, 4]
    assert [face.caption.split(",")[0] for face in rows[1].faces] == [
        f"frame {index}" for index in HOPPER
    ]
    assert rows[0].colour != rows[1].colour
    assert texts["title"] == "clip.mp4"
    assert texts["notes"][0] == "10 frames sampled, 4 faces kept"
    assert sum(result.filtered.values()) == 8
    assert texts["notes"][-1] == f"filtered: 8 ({next(iter(result.filtered))})"
    assert texts["notes"][-1] in describe_inspection(result)


def test_of_many_faces_some_evenly_spread_ones_are_shown(clip, tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(dataset_report, "allocate_slots", lambda num_faces: [4, 4])
    write_inspection(inspect(clip, faces=ALL), tmp_path / "sheet.png", landmarks=True)
    ((rows, _),) = drawn
    assert "4 of 8 shown" in rows[0].notes
    # Of the frames 0, 1, 4, 5, 6, 7, 8, 9 the middle ones of four pairs.
    captions = [face.caption.splitlines()[0] for face in rows[0].faces]
    assert captions == ["frame 1, 0.04 s", "frame 5, 0.20 s", "frame 7, 0.28 s", "frame 9, 0.36 s"]
    assert not any("shown" in note for note in rows[1].notes)
    assert all(face.landmarks.shape == (68, 2) for row in rows for face in row.faces)


def test_an_image_can_be_inspected(tmp_path, astronaut):
    source = tmp_path / "portrait.png"
    cv2.imwrite(str(source), cv2.cvtColor(astronaut, cv2.COLOR_RGB2BGR))
    result = inspect(source)
    write_inspection(result, tmp_path / "s.png", overlay=tmp_path / "o.jpg")
    assert (result.num_frames, result.num_faces) == (1, 1)
    assert (tmp_path / "s.png").is_file() and (tmp_path / "o.jpg").is_file()
    assert "1 frame sampled, 1 face kept" in describe_inspection(result)


@pytest.mark.slow
def test_an_overlay_has_the_limits_of_its_inspection(tmp_path, astronaut):
    image, overlay = tmp_path / "two.png", tmp_path / "o.png"
    cv2.imwrite(str(image), cv2.cvtColor(np.hstack([astronaut] * 2), cv2.COLOR_RGB2BGR))
    second = {}
    for max_faces in (2, 1):
        result = inspect(image, faces=ALL, limits=LimitOptions(max_faces_per_frame=max_faces))
        write_inspection(result, tmp_path / "s.png", overlay=overlay, overwrite=True)
        drawn = cv2.cvtColor(cv2.imread(str(overlay)), cv2.COLOR_BGR2RGB)
        second[len(result.tracks)] = (drawn == track_colour(1)).all(axis=2).any()
    assert second == {2: True, 1: False}
    cv2.imwrite(str(image), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(OSError, match="Expected the bytes of .*two.png that were analysed"):
        write_inspection(result, tmp_path / "s.png", overlay=overlay, overwrite=True)


def test_a_link_to_itself_is_missing(tmp_path):
    link = tmp_path / "link.mp4"
    link.symlink_to(link)
    check_inspection_files(link, tmp_path / "s.png")
    with pytest.raises(FileNotFoundError, match="link.mp4, which is missing"):
        check_inspection_files(link, tmp_path / "s.png", tmp_path / "o.mp4")


def test_an_overlay_is_checked_with_the_limits_of_its_inspection(tmp_path):
    from PIL import Image

    image, out, overlay = (tmp_path / name for name in ("large.png", "s.png", "o.png"))
    Image.new("1", (15_000, 14_000)).save(image)
    with pytest.raises(OSError, match="--max-pixels 210000000"):
        check_inspection_files(image, out, overlay)
    check_inspection_files(image, out, overlay, LimitOptions(max_pixels=0))


def test_a_clip_without_a_face_has_a_reason_and_an_overlay_but_no_sheet(tmp_path):
    clip = write_clip_without_a_face(tmp_path / "wall.mp4")
    result = inspect(clip, all_frames=True)
    files = write_inspection(result, tmp_path / "s.png", overlay=tmp_path / "o.mp4")
    assert (result.num_faces, result.tracks, files.sheet) == (0, [], None)
    assert re.fullmatch("no face .* 3 .*", result.reason)
    assert not (tmp_path / "s.png").exists()
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert f"{clip}: {result.reason}; no contact sheet" in describe_inspection(result)


def test_a_clip_whose_faces_are_all_filtered_out_has_the_reason(clip, tmp_path):
    result = inspect(clip, faces=ALL, filters=FilterOptions(min_size=500))
    assert re.fullmatch("all faces .*filtered .* 10 .*", result.reason)
    assert sum(result.filtered.values()) == 12
    assert write_inspection(result, tmp_path / "s.png").sheet is None
    assert not (tmp_path / "s.png").exists()


def test_the_command_fails_without_a_face_and_prints_result_and_files(tmp_path, capsys):
    clip = write_clip_without_a_face(tmp_path / "wall.mp4")
    words = ["inspect", str(clip), "--out", str(tmp_path / "s.png"), "--format", "json"]
    assert main(words) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["failed"] == [{"path": str(clip), "reason": printed["reason"]}]
    assert (printed["kind"], printed["num_frames"], printed["sheet"]) == ("file", 3, None)


def test_the_command_checks_the_names_of_its_files_before_the_long_work(
    clip, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("jdfd_keras.datasets.inspection.extract_faces", None)
    assert main(["inspect", str(clip), "--out", str(tmp_path / "sheet.gif")]) == 1
    assert ".png file for" in capsys.readouterr().err


def test_a_prepared_set_has_a_row_for_each_class_with_faces_of_every_video(
    prepared_set, tmp_path, drawn
):
    from jdfd_keras.datasets.pipeline import load_faces

    result = inspect(prepared_set)
    assert result.sample({}) == {}
    write_inspection(result, tmp_path / "sheet.png")
    ((rows, texts),) = drawn
    manifest = to_rows(read_faces(prepared_set), FaceRow)
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
        # Three lines of eight for each class; the detector misses some of the coarse fakes.
        shown = min(len(own), 24)
        assert len(row.faces) == shown
        assert (f"24 of {len(own)} shown" in row.notes) == (len(own) > 24)
        names = set()
        for face in row.faces:
            name, position = face.caption.splitlines()
            names.add(name)
            split, frame_index = position.split(", frame ")
            video_id = f"clips/{('real', 'fake')[label]}/{name}"
            np.testing.assert_array_equal(face.crop, crops[video_id, int(frame_index)])
            assert split == next(r.split for r in manifest if r.video_id == video_id)
        assert len(names) == len({face.video_id for face in own})
        assert len({face.caption for face in row.faces}) == shown
    assert texts["title"] == "prepared"
    assert (result.num_videos, result.num_faces) == (16, len(manifest))
    counts = {(group.split, group.label): group.num_faces for group in result.groups}
    assert counts == {
        (split, name): sum((row.split, row.label) == (split, label) for row in manifest)
        for split in ("train", "val", "test")
        for label, name in enumerate(("real", "fake"))
    }
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()


def test_manipulations_have_their_own_rows(prepared_set, change_table, tmp_path, drawn):
    root = shutil.copytree(prepared_set, tmp_path / "set")

    def rename_some(rows):
        return [
            dataclasses.replace(row, manipulation="Deepfakes")
            if row.label and ("/person00" in row.path or "/person01" in row.path)
            else row
            for row in rows
        ]

    for kind in (FaceRow, VideoRow):
        change_table(root, kind, rename_some)
    result = inspect(root)
    write_inspection(result, tmp_path / "sheet.png")
    ((rows, _),) = drawn
    assert sorted(row.title for row in rows) == ["fake", "fake Deepfakes", "real"]
    (deepfakes,) = [row for row in rows if row.title == "fake Deepfakes"]
    own = [row for row in to_rows(read_faces(root), FaceRow) if row.manipulation == "Deepfakes"]
    num_videos = len({row.video_id for row in own})
    assert 0 < len(own) == len(deepfakes.faces) <= 8
    notes = [f"{len(own)} faces", f"of {num_videos} video{'s' * (num_videos > 1)}"]
    assert deepfakes.notes == notes
    assert "fake Deepfakes: " in describe_inspection(result)


@pytest.mark.slow
def test_a_prepared_set_has_a_sheet(prepared_set, tmp_path):
    files = write_inspection(inspect(prepared_set), tmp_path / "sheet.png", landmarks=True)
    assert (files.sheet, files.overlay) == (str(tmp_path / "sheet.png"), None)
    height, width, _ = cv2.imread(str(tmp_path / "sheet.png")).shape
    assert 1000 < width < 4000 and 1000 < height < 4000


def test_a_set_without_a_split_and_its_excluded_videos_are_named(prepared_set, tmp_path, drawn):
    root = shutil.copytree(prepared_set, tmp_path / "set")
    table = root / "splits" / "official.csv"
    lines = table.read_text().splitlines()
    excluded = next(n for n, line in enumerate(lines) if "/real/" in line)
    lines[excluded] = lines[excluded].split(",")[0] + ",,by hand"
    table.write_text("\n".join(lines))
    assert "\nexcluded   real: 4 faces of 1 video\n" in describe_inspection(inspect(root))
    table.unlink()
    result = inspect(root)
    assert (result.split_table, {group.split for group in result.groups}) == ("", {""})
    assert "\nnot split  real: 32 faces of 8 videos\n" in describe_inspection(result)
    write_inspection(result, tmp_path / "sheet.png")
    ((rows, _),) = drawn
    captions = [face.caption.splitlines()[1] for row in rows for face in row.faces]
    assert all(re.fullmatch(r"frame \d+", caption) for caption in captions)


@pytest.mark.slow
def test_faces_without_landmarks_are_drawn_without_dots(prepared_set, change_table, tmp_path):
    root = shutil.copytree(prepared_set, tmp_path / "set")
    change_table(
        root,
        FaceRow,
        lambda rows: [dataclasses.replace(row, landmarks=(), detector="none") for row in rows],
    )
    result = inspect(root)
    (faces,) = result.sample({("real", ""): 3}).values()
    assert [face.landmarks.shape for face in faces] == [(0, 2)] * 3
    for name, landmarks in (("with", True), ("without", False)):
        write_inspection(result, tmp_path / f"{name}.png", landmarks=landmarks)
    sheets = [(tmp_path / f"{name}.png").read_bytes() for name in ("with", "without")]
    assert sheets[0] == sheets[1]


def test_videos_without_a_face_are_listed_with_the_reason(prepared_set, change_table, tmp_path):
    root = shutil.copytree(prepared_set, tmp_path / "set")

    def empty_the_first(rows):
        return [dataclasses.replace(rows[0], num_faces=0, reason="too dark"), *rows[1:]]

    change_table(root, VideoRow, empty_the_first)
    result = inspect(root)
    assert result.excluded["clips/fake/person00_person01"] == "too dark"
    assert "no face: clips/fake/person00_person01: too dark" in describe_inspection(result)


def truncate(shard):
    shard.write_bytes(shard.read_bytes()[:-3000])


def overwrite(shard):
    size = shard.stat().st_size
    with open(shard, "r+b") as file:
        for position in range(20, size, 500):
            file.seek(position)
            file.write(b"\x8a" * 100)


@pytest.mark.parametrize(
    ("damage", "message"),
    [(truncate, "checksum|its end"), (overwrite, "checksum"), (Path.unlink, "No such file")],
)
def test_damaged_shards_are_an_error_that_names_them(prepared_set, tmp_path, damage, message):
    root = shutil.copytree(prepared_set, tmp_path / "set")
    damage(root / "shards" / "00000.tfrecord")
    result = inspect(root)
    expected = rf"Expected a face at byte \d+ of .*/00000.tfrecord; got .*({message})"
    with pytest.raises(ValueError, match=expected):
        write_inspection(result, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A clip, an image, a text file and an empty folder, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    write_clip_without_a_face(tmp_path / "wall.mp4")
    cv2.imwrite("wall.png", np.full((120, 160, 3), 90, np.uint8))
    (tmp_path / "notes.txt").write_text("Dear diary")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "options", "error", "message"),
    [
        ("none.mp4", {}, FileNotFoundError, "none.mp4, which is missing"),
        ("https://example.org/a.mp4", {}, FileNotFoundError, "got https://example.org/a.mp4, wh"),
        ("folder", {}, FileNotFoundError, "Expected a prepared dataset in folder"),
        ("wall.mp4", {"faces": FaceOptions(margin=0.5)}, ValueError, "margin"),
        ("wall.mp4", {"filters": FilterOptions(max_yaw=91)}, ValueError, "max_yaw"),
        ("notes.txt", {}, OSError, "Expected a video"),
        ("wall.png", {"limits": LimitOptions(max_seconds=-1)}, ValueError, "--max-seconds"),
        ("wall.png", {"limits": LimitOptions(max_pixels=10)}, OSError, "--max-pixels"),
    ],
)
def test_what_cannot_be_inspected_is_an_error(files, path, options, error, message):
    with pytest.raises(error, match=message):
        inspect(path, **options)


@pytest.mark.parametrize("name", ["killed", "raises"])
@pytest.mark.slow
def test_a_file_that_harms_its_process_is_an_error(harm, tmp_path, capsys, name):
    clip = write_clip_without_a_face(tmp_path / f"{name}.mp4")
    with pytest.raises(OSError, match=re.escape(harm[name])):
        inspect(clip)
    assert main(["inspect", str(clip), "--out", str(tmp_path / "s.png")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jdfd-keras inspect: Expected ") and harm[name] in line


@pytest.mark.parametrize(
    ("path", "out", "overlay", "message"),
    [
        ("folder", "s.png", "o.mp4", "got the folder folder"),
        ("wall.mp4", "s.jpg", None, "a .png file for the contact sheet"),
        ("wall.png", "wall.png", None, "other than the inspected file"),
        ("wall.png", "o.png", "./o.png", "other than the inspected file"),
        ("wall.mp4", "s.png", "o.gif", ".mp4, .webm, .mov, .mkv"),
    ],
)
def test_unusable_names_of_files_are_an_error_before_anything_is_written(
    files, path, out, overlay, message
):
    before = {file: file.read_bytes() for file in files.iterdir() if file.is_file()}
    with pytest.raises(ValueError, match=message):
        check_inspection_files(path, out, overlay)
    if Path(path).is_file():
        with pytest.raises(ValueError, match=message):
            write_inspection(inspect(path), out, overlay=overlay)
    assert {file: file.read_bytes() for file in files.iterdir() if file.is_file()} == before


@pytest.mark.slow
def test_an_image_that_is_taken_as_it_is_has_a_sheet_and_an_overlay(clip, tmp_path, capsys):
    crop = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "crop.png"), crop)
    files = [tmp_path / name for name in ("sheet.png", "overlay.png")]
    command = ["inspect", tmp_path / "crop.png", "--detector", "none", "--out", files[0]]
    command += ["--overlay", files[1], "--landmarks"]
    assert main([*map(str, command), "--format", "json"]) == 0
    values = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [track["confidence"] for track in values["tracks"]] == [None]
    assert all(file.stat().st_size > 1000 for file in files)
    assert main([*map(str, command), "--overwrite"]) == 0
    text = capsys.readouterr().out
    assert "track 0: 1 face, at 0.0 s, not detected, taken as it is, all kept" in text
    assert "nan" not in text
