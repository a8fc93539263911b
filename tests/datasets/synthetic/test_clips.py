import dataclasses

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from jdfd_keras.datasets.layouts import list_videos
from jdfd_keras.datasets.synthetic.clips import (
    CLIP_SIZE,
    EYE_DISTANCE,
    VIDEOS,
    Portrait,
    find_portrait,
    make_clips,
    make_videos,
    read_portraits,
    render_clip,
    vary_portrait,
)
from jdfd_keras.faces.decode import open_media, read_frames
from jdfd_keras.faces.detect import face_detector
from jdfd_keras.faces.landmarks import find_landmarks
from jdfd_keras.io.storage import LocalStore
from jdfd_keras.options import PrepareOptions
from tests.faces.media_files import make_clip


def list_all(root):
    return list_videos(LocalStore(str(root)), PrepareOptions()).videos


@pytest.fixture(scope="module")
def subjects(astronaut):
    return vary_portrait(astronaut, 3, seed=0)


def frames_of(folder):
    return {
        path.relative_to(folder).as_posix(): np.stack(
            [frame.pixels for frame in read_frames(path, 99)]
        )
        for path in sorted(folder.rglob("*.mp4"))
    }


def test_clips_have_the_requested_number_of_frames(clips_folder):
    clips = frames_of(clips_folder)
    assert len(clips) == 16
    assert {frames.shape for frames in clips.values()} == {(6, CLIP_SIZE, CLIP_SIZE, 3)}


def test_every_other_pair_is_swapped_and_named_accordingly(clips_folder):
    names = {
        kind: {path.stem for path in clips_folder.glob(f"{kind}/*")} for kind in ("real", "fake")
    }
    assert names["real"] == {f"person{index:02d}" for index in range(8)}
    swaps = [(0, 1), (1, 0), (4, 5), (5, 4)]
    assert names["fake"] == {f"person{a:02d}_person{b:02d}" for a, b in swaps} | {
        f"person{index:02d}" for index in (2, 3, 6, 7)
    }


def test_the_layout_knows_the_sources_of_every_fake(clips_folder):
    sources = {video.path: video.source_ids for video in list_all(clips_folder)}
    assert sources["fake/person04_person05.mp4"] == ("person04", "person05")
    assert sources["fake/person06.mp4"] == ("person06",)
    assert sources["real/person05.mp4"] == ("person05",)


def test_a_fake_moves_and_differs_from_the_real_clip_in_the_middle(clips_folder):
    clips = frames_of(clips_folder)
    assert all(np.abs(np.diff(frames.astype(int), axis=0)).mean() > 2 for frames in clips.values())
    # The re-rendered face lacks the fine detail of its surroundings and of the real clip.
    inner = slice(CLIP_SIZE // 2 - EYE_DISTANCE // 3, CLIP_SIZE // 2 + EYE_DISTANCE // 3)
    middle = (slice(None), inner, inner)
    detail = {
        kind: np.mean(
            [
                cv2.Laplacian(frame, cv2.CV_64F).var()
                for name, frames in clips.items()
                if name.startswith(kind)
                for frame in frames[middle]
            ]
        )
        for kind in ("real", "fake")
    }
    assert detail["fake"] < detail["real"] / 2


def test_clips_depend_on_the_seed_and_not_on_existing_clips(subjects, tmp_path):
    for folder, seed in (("once", 1), ("again", 1), ("other", 2)):
        list(make_clips(subjects[:2], tmp_path / folder, num_frames=2, seed=seed))
    (tmp_path / "again" / "fake" / "person00_person01.mp4").unlink()
    (tmp_path / "again" / "real" / "person01.mp4").unlink()
    list(make_clips(subjects[:2], tmp_path / "again", num_frames=2, seed=1))
    once, again, other = (frames_of(tmp_path / name) for name in ("once", "again", "other"))
    assert len(once) == 4
    for name, frames in once.items():
        np.testing.assert_array_equal(frames, again[name])
        assert (frames != other[name]).any()


def test_an_interrupted_clip_leaves_no_file_that_a_layout_lists(subjects, tmp_path, monkeypatch):
    def interrupt(*_):
        yield np.zeros((CLIP_SIZE, CLIP_SIZE, 3), np.uint8)
        raise KeyboardInterrupt

    clips = make_clips(subjects[:2], tmp_path, num_frames=2, seed=0)
    next(clips), next(clips), next(clips)
    monkeypatch.setattr("jdfd_keras.datasets.synthetic.clips.render_clip", interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(clips)
    listed = {video.path for video in list_all(tmp_path)}
    assert listed == {"real/person00.mp4", "real/person01.mp4", "fake/person00_person01.mp4"}


def test_the_last_of_an_odd_number_is_re_rendered(subjects, tmp_path):
    paths = list(make_clips(subjects, tmp_path, num_frames=1, seed=0))
    assert [path.relative_to(tmp_path).as_posix() for path in paths[-2:]] == [
        "real/person02.mp4",
        "fake/person02.mp4",
    ]
    (alone,) = set(make_clips(subjects[:1], tmp_path / "alone", num_frames=1, seed=0)) - {
        tmp_path / "alone" / "real" / "person00.mp4"
    }
    assert alone == tmp_path / "alone" / "fake" / "person00.mp4"


def test_a_clip_keeps_the_face_in_the_frame_at_its_size(subjects):
    for subject in subjects:
        frames = list(render_clip(subject, 3, np.random.default_rng(0)))
        for frame in frames:
            (box,) = face_detector("dlib").find([frame])[0][:1]
            eyes = find_landmarks(frame, box)[[36, 45]]
            assert np.linalg.norm(eyes[1] - eyes[0]) == pytest.approx(EYE_DISTANCE, rel=0.2)
            assert np.abs(eyes.mean(axis=0) - CLIP_SIZE / 2).max() < CLIP_SIZE / 4


def test_a_pair_of_videos_is_ordinary_footage_and_differs_in_the_face(
    subjects, astronaut, tmp_path, monkeypatch
):
    monkeypatch.setattr("jdfd_keras.datasets.synthetic.clips.VIDEO_FRAMES", 3)
    real, fake = make_videos(find_portrait("a", astronaut), subjects[0], tmp_path, seed=0)
    assert [path.relative_to(tmp_path).as_posix() for path in (real, fake)] == [
        "real/a.mp4",
        "fake/a_person00.mp4",
    ]
    for path in (real, fake):
        with open_media(path) as media:
            frames = [frame.pixels for frame in media.read(9)]
            assert (media.info.codec, media.info.frame_rate) == ("h264", 25)
        assert np.shape(frames) == (3, 480, 640, 3)
        assert np.abs(np.diff(np.asarray(frames, int), axis=0)).mean() > 1
        (box,) = face_detector("dlib").find(frames[:1])[0]
        assert 140 < box.right - box.left < 250
    written = real.read_bytes()
    make_videos(find_portrait("a", astronaut[:, ::-1]), subjects[0], tmp_path, seed=1)
    assert real.read_bytes() == written, "existing videos are kept"


def test_only_the_inner_face_of_a_fake_frame_is_swapped(subjects, astronaut):
    portrait = find_portrait("a", astronaut)
    (real,), (fake,) = (
        render_clip(portrait, 1, np.random.default_rng(0), source, style=VIDEOS)
        for source in (None, subjects[0])
    )
    y, x = np.nonzero((real != fake).any(axis=-1))
    (box,) = face_detector("dlib").find([real])[0]
    assert len(y) > 5000
    margin = (box.right - box.left) / 10
    assert box.left - margin < x.min() and x.max() < box.right + margin
    assert box.top - margin < y.min() and y.max() < box.bottom + 2 * margin  # the chin


@pytest.mark.parametrize("height, width", [(512, 512), (700, 400), (300, 900)])
def test_frames_of_a_video_end_inside_the_portrait(height, width):
    landmarks = np.zeros((68, 2), np.float32)
    landmarks[:, 0] = np.linspace(0, 100, 68)  # a face at an edge
    light = np.full((height, width, 3), 200, np.uint8)
    light[[0, -1]] = light[:, [0, -1]] = 0  # an edge
    for seed in range(5):
        rng = np.random.default_rng(seed)
        style = dataclasses.replace(VIDEOS, sensor_noise=0.0, exposure_drift=0.0)
        for frame in render_clip(Portrait("a", light, landmarks), 2, rng, style=style):
            assert frame.min() == 200


def test_faces_are_found_in_nearly_all_frames(clips_folder):
    found = [
        bool(face_detector("dlib").find([frame])[0])
        for frames in frames_of(clips_folder).values()
        for frame in frames[::2]
    ]
    assert np.mean(found) >= 0.8


def test_subjects_differ_and_their_landmarks_agree_with_dlib(subjects, astronaut):
    for subject in subjects:
        assert subject.pixels.shape == astronaut.shape
        (box,) = face_detector("dlib").find([subject.pixels])[0][:1]
        distances = np.linalg.norm(find_landmarks(subject.pixels, box) - subject.landmarks, axis=1)
        assert np.median(distances) < 4  # of 63 pixels between the outer eye corners
    for first, second in [(0, 1), (0, 2), (1, 2)]:
        difference = subjects[first].pixels.astype(int) - subjects[second].pixels
        assert np.abs(difference).mean() > 5
    assert len({subject.name for subject in subjects}) == len(subjects)


def test_subjects_depend_on_the_seed_alone(subjects, astronaut):
    (again,) = vary_portrait(astronaut, 1, seed=0)
    (other,) = vary_portrait(astronaut, 1, seed=1)
    np.testing.assert_array_equal(again.pixels, subjects[0].pixels)
    assert (other.pixels != subjects[0].pixels).any()


def test_an_image_without_a_face_is_an_error():
    with pytest.raises(ValueError, match="120 x 90 pixels"):
        vary_portrait(np.full((90, 120, 3), 90, np.uint8), 2, seed=0)


@pytest.fixture(scope="module")
def photographs(astronaut, tmp_path_factory):
    """Three photographs, two of them with a face, one of these in two formats, and other files."""
    folder = tmp_path_factory.mktemp("photographs")
    pixels = cv2.cvtColor(astronaut, cv2.COLOR_RGB2BGR)[:300, 60:360]
    cv2.imwrite(str(folder / "b.png"), pixels)
    cv2.imwrite(str(folder / "b.webp"), pixels)
    cv2.imwrite(str(folder / "a wall.png"), np.full((90, 90, 3), 90, np.uint8))
    cv2.imwrite(str(folder / "c.jpg"), np.ascontiguousarray(pixels[:, ::-1]))
    (folder / "notes.txt").write_text("b and c")
    make_clip(folder / "a clip.gif")
    make_clip(folder / "a clip.mp4")
    return folder


def test_portraits_are_the_photographs_with_a_face(photographs, capsys):
    portraits = read_portraits(photographs, 2)
    assert [portrait.name for portrait in portraits] == ["b", "c"]
    assert all(isinstance(portrait, Portrait) for portrait in portraits)
    assert [portrait.landmarks.shape for portrait in portraits] == [(68, 2)] * 2
    assert "a wall.png shows no face" in capsys.readouterr().err


def test_heic_photographs_and_names_with_a_colon_are_read(astronaut, tmp_path):
    pillow_heif.from_pillow(Image.fromarray(astronaut)).save(tmp_path / "IMG: 1.heic")
    (portrait,) = read_portraits(tmp_path, 9)
    assert portrait.name == "IMG: 1"
    assert portrait.pixels.shape == astronaut.shape


def test_videos_and_other_files_are_not_portraits(photographs, capsys):
    assert len(read_portraits(photographs, 9)) == 2
    assert "clip" not in capsys.readouterr().err


def test_unusable_images_are_skipped_with_a_note(photographs, capsys):
    whole = (photographs / "b.jpg").read_bytes() if (photographs / "b.jpg").is_file() else None
    first = whole or next(p for p in sorted(photographs.iterdir()) if p.stem == "b").read_bytes()
    (photographs / "z-cut.jpg").write_bytes(first[: len(first) // 2])
    assert [portrait.name for portrait in read_portraits(photographs, 9)] == ["b", "c"]
    assert "z-cut.jpg" in capsys.readouterr().err


def test_a_missing_folder_of_portraits_is_an_error(tmp_path):
    with pytest.raises(OSError, match="not a folder"):
        read_portraits(tmp_path / "nothing", 2)
