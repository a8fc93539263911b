import dataclasses
import hashlib
import json
import threading
import time

import cv2
import numpy as np
import pytest

from jdfd_keras.faces import extract as extract_module
from jdfd_keras.faces.align import canonical_points
from jdfd_keras.faces.detect import Box
from jdfd_keras.faces.extract import CropStore, Track, extract_faces
from jdfd_keras.faces.landmarks import five_points
from jdfd_keras.faces.video import VideoReader
from jdfd_keras.options import FaceOptions, FilterOptions, LimitOptions


@pytest.fixture(scope="module")
def head(astronaut):
    """uint8[200, 200, 3] around the face; its box is 87 px wide, with its corner at (59, 43)."""
    return astronaut[40:240, 120:320]


def write_image(path, pixels):
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return path


def write_clip(path, frames):
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (width, height))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def test_an_image_has_one_centred_crop(tmp_path, astronaut):
    (face,) = extract_faces(write_image(tmp_path / "portrait.png", astronaut)).faces
    assert (face.frame_index, face.time_s) == (0, 0.0)
    assert face.crop.shape == (299, 299, 3)
    assert face.crop.dtype == np.uint8
    np.testing.assert_allclose(face.box[:4], (179, 83, 266, 170), atol=8)
    assert 0 < face.alignment_residual < 0.05
    distances = np.linalg.norm(five_points(face.landmarks) - canonical_points(299, 1.3), axis=1)
    assert np.sqrt((distances**2).mean()) / 299 == pytest.approx(face.alignment_residual, rel=1e-4)


def test_the_channel_order_is_kept(tmp_path, astronaut):
    red = astronaut.copy()
    red[..., 1:] //= 4
    path = write_image(tmp_path / "red.png", red)
    (face,) = extract_faces(path, FaceOptions(face_size=71)).faces
    assert face.crop[..., 0].mean() > 3 * face.crop[..., 2].mean()


def test_the_faces_of_a_clip_are_in_order_and_frames_without_a_face_are_skipped(tmp_path, head):
    empty = np.full_like(head, 90)
    path = write_clip(tmp_path / "clip.mp4", [head, empty, head, empty, empty, head])
    faces = extract_faces(path, FaceOptions(frames_per_video=6, face_size=71)).faces
    assert [face.frame_index for face in faces] == [0, 2, 5]
    assert [face.time_s for face in faces] == pytest.approx([0, 2 / 25, 5 / 25])
    assert {face.crop.shape for face in faces} == {(71, 71, 3)}


def test_options_affect_the_crop(tmp_path, astronaut):
    path = write_image(tmp_path / "portrait.png", astronaut)
    (tight,) = extract_faces(path, FaceOptions(face_size=120, margin=1.0)).faces
    (wide,) = extract_faces(path, FaceOptions(face_size=120, margin=2.0)).faces
    between_eyes = [
        np.linalg.norm(np.subtract(*five_points(face.landmarks)[:2])) for face in (tight, wide)
    ]
    assert between_eyes[0] == pytest.approx(2 * between_eyes[1], rel=1e-3)


@pytest.mark.parametrize("small_first", [True, False])
def test_the_largest_face_is_extracted(tmp_path, head, small_first):
    pixels = np.full((400, 700, 3), 90, np.uint8)
    large_at, small_at = (300, 0) if small_first else (0, 450)
    pixels[:400, large_at : large_at + 400] = cv2.resize(head, (400, 400))
    pixels[100:300, small_at : small_at + 200] = head
    found = extract_faces(write_image(tmp_path / "two.png", pixels), FaceOptions(face_size=71))
    (face,) = found.faces
    # The head is drawn twice as large, so its box is about 174 wide.
    assert face.box.right - face.box.left > 130
    assert large_at < face.box.left < large_at + 400


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (FaceOptions(detector="retina"), "'retina'"),
        (FaceOptions(face_size=0), "size=0"),
        (FaceOptions(margin=0.5), "margin=0.5"),
        (FaceOptions(frames_per_video=0), "count=0"),
        (FaceOptions(every=-1), "every=-1"),
        (FaceOptions(tracks="first"), "tracks='first'"),
        (FaceOptions(alignment="ears"), "'ears'"),
    ],
)
def test_a_bad_option_is_refused_before_the_file_is_opened(tmp_path, options, named):
    with pytest.raises(ValueError, match=named):
        extract_faces(tmp_path / "nothing.mp4", options)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(OSError, match=r"nothing\.mp4"):
        extract_faces(tmp_path / "nothing.mp4")


def test_a_bad_filter_is_refused_before_the_file_is_opened(tmp_path):
    with pytest.raises(ValueError, match="max_yaw"):
        extract_faces(tmp_path / "nothing.mp4", filters=FilterOptions(max_yaw=-1))


@pytest.fixture(scope="module")
def pair(collins, hopper, wall, tmp_path_factory):
    """A clip of 8 frames: a small face in all of them, a large one in all but the last two."""
    path = tmp_path_factory.mktemp("clips") / "a pair, zwei, \u0434\u0432\u043e\u0435.mp4"
    alone = [collins.place(wall, 90 + index, 120, 60) for index in range(8)]
    return write_clip(
        path,
        [
            np.clip(hopper.place(f, 290, 120, 90) if i < 6 else f, 0, 255).astype(np.uint8)
            for i, f in enumerate(alone)
        ],
    )


def test_the_largest_track_is_extracted_and_the_other_is_counted(pair):
    found = extract_faces(pair, FaceOptions(every=1, face_size=71))
    assert [face.frame_index for face in found.faces] == list(range(6))
    assert all(face.box.center[0] > 200 for face in found.faces)
    assert len(found.tracks) == 2
    assert found.filtered == {"not the largest face": 8}
    assert found.num_frames == 8
    assert found.warnings == []


def test_all_tracks_are_extracted_on_request(pair):
    found = extract_faces(pair, FaceOptions(every=1, face_size=71, tracks="all"))
    assert found.filtered == {}
    assert [track.track_id for track in found.tracks] == [0, 1]
    small, large = sorted(found.tracks, key=lambda track: track.width)
    assert (small.num_faces, small.start_s, small.end_s) == (8, 0.0, 0.28)
    assert (large.num_faces, large.start_s, large.end_s) == (6, 0.0, 0.2)
    assert small.width == pytest.approx(60, abs=15)
    assert large.width == pytest.approx(110, abs=25)
    assert 0.5 < small.confidence < 3
    own = [face.box.score for face in found.faces if face.track_id == large.track_id]
    assert large.confidence == pytest.approx(np.mean(own))
    order = [(face.frame_index, face.track_id) for face in found.faces]
    assert order == sorted(order)


def test_an_extraction_becomes_json_without_pixels(pair):
    found = extract_faces(pair, FaceOptions(frames_per_video=2, tracks="all"))
    values = json.loads(json.dumps(found.to_dict()))
    assert [set(values), len(values["faces"])] == [
        {
            *("faces", "tracks", "num_frames", "filtered", "warnings", "width", "height"),
            *("info", "sha256", "file_bytes", "credentials"),
        },
        len(found.faces),
    ]
    face, stored = found.faces[0], values["faces"][0]
    assert set(stored) == {
        "frame_index",
        "time_s",
        "track_id",
        "box",
        "landmarks",
        "alignment_residual",
        "quality",
    }
    assert stored["box"] == list(face.box)
    np.testing.assert_array_equal(stored["landmarks"], face.landmarks.astype(float))
    assert stored["quality"] == dataclasses.asdict(face.quality)
    assert Track.from_dict(values["tracks"][1]) == found.tracks[1]


def test_every_second_frame_is_sampled(pair):
    found = extract_faces(pair, FaceOptions(every=2, face_size=71, tracks="all"))
    assert found.num_frames == 4
    assert {face.frame_index for face in found.faces} == {0, 2, 4, 6}


def test_filtered_faces_are_counted_by_reason(pair):
    options = FaceOptions(every=1, face_size=71, tracks="all")
    found = extract_faces(pair, options, FilterOptions(min_size=80))
    assert found.filtered == {"smaller than 80 px": 8}
    assert all(face.box.center[0] > 200 for face in found.faces)
    assert len(found.faces) == 6
    found = extract_faces(pair, options, FilterOptions(min_score=50))
    assert found.faces == []
    assert sum(found.filtered.values()) == sum(track.num_faces for track in found.tracks)


def test_quality_is_measured(tmp_path, astronaut):
    sharp, blurred = (
        extract_faces(write_image(tmp_path / f"{sigma}.png", pixels)).faces[0].quality
        for sigma, pixels in ((0, astronaut), (2, cv2.GaussianBlur(astronaut, (0, 0), 2)))
    )
    assert blurred.sharpness < sharp.sharpness / 4
    assert sharp.size_px == pytest.approx(87, abs=6)
    assert sharp.outside == 0
    assert abs(sharp.yaw_deg) < 25
    cut = write_image(tmp_path / "cut.png", astronaut[90:])  # through the forehead
    assert 0.02 < extract_faces(cut).faces[0].quality.outside < 0.5


def test_an_image_without_a_face_has_none(tmp_path):
    found = extract_faces(write_image(tmp_path / "wall.png", np.full((90, 90, 3), 90, np.uint8)))
    assert (found.faces, found.tracks, found.num_frames) == ([], [], 1)


@pytest.mark.parametrize("mode", ["landmarks68", "deepfakebench", "box"])
def test_every_alignment_returns_the_landmarks_in_its_crops(tmp_path, astronaut, mode):
    path = write_image(tmp_path / "portrait.png", astronaut)
    (face,) = extract_faces(path, FaceOptions(alignment=mode)).faces
    assert face.crop.shape == (299, 299, 3)
    # The pupils are the darkest parts of the eyes: the landmarks of the crop surround them.
    eye = face.landmarks[36:42].mean(axis=0)
    assert 60 < eye[0] < 140
    assert 70 < eye[1] < 160


def cut_file(path, whole, share):
    path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    return path


def test_a_truncated_video_is_extracted_as_far_as_it_decodes_with_a_warning(
    tmp_path, collins, wall
):
    frames = [collins.place(wall, 200 + i, 120).clip(0, 255).astype(np.uint8) for i in range(20)]
    whole = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"MJPG"), 25, (400, 240))
    for frame in frames:
        writer.write(frame[..., ::-1].copy())
    writer.release()
    found = extract_faces(
        cut_file(tmp_path / "cut.avi", whole, 0.5), FaceOptions(every=1, face_size=71)
    )
    assert 5 < len(found.faces) == found.num_frames < 15
    assert len(found.warnings) == 1
    assert "cut short" in found.warnings[0]


@pytest.mark.parametrize(("content", "fault"), [(b"", "empty"), (b"\0" * 100, "neither")])
def test_a_file_without_frames_is_an_error(tmp_path, content, fault):
    (tmp_path / "video.mp4").write_bytes(content)
    with pytest.raises(OSError, match=fault):
        extract_faces(tmp_path / "video.mp4")


@pytest.mark.parametrize("kind", ["grey", "grey16", "alpha", "colour16"])
def test_faces_are_found_in_images_of_other_modes(tmp_path, astronaut, kind):
    grey = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)
    pixels = {
        "grey": grey,
        "grey16": grey.astype(np.uint16) * 257,
        "alpha": np.dstack([astronaut[..., ::-1], np.full_like(grey, 128)]),
        "colour16": astronaut[..., ::-1].astype(np.uint16) * 257,
    }[kind]
    cv2.imwrite(str(tmp_path / "image.png"), pixels)
    (face,) = extract_faces(tmp_path / "image.png").faces
    np.testing.assert_allclose(face.box[:4], (179, 83, 266, 170), atol=10)


def test_a_face_is_found_in_an_image_of_odd_size(tmp_path, astronaut):
    (face,) = extract_faces(write_image(tmp_path / "odd.png", astronaut[:333, 1:420])).faces
    np.testing.assert_allclose(face.box[:4], (178, 83, 265, 170), atol=10)


def test_a_video_rotated_by_its_header_has_upright_faces(tmp_path, collins, wall, turn_header):
    rotated = np.rot90(collins.place(wall, 200, 120).clip(0, 255).astype(np.uint8))
    path = write_clip(tmp_path / "phone.mp4", [np.ascontiguousarray(rotated)] * 3)
    assert extract_faces(path, FaceOptions(face_size=71)).faces == []
    turn_header(path)
    found = extract_faces(path, FaceOptions(face_size=71))
    assert len(found.faces) == 3
    assert found.faces[0].box.center == pytest.approx((200, 120), abs=12)


def test_a_face_in_an_8k_image_is_found(tmp_path, astronaut):
    pixels = np.full((4320, 7680, 3), 90, np.uint8)
    pixels[1000:3048, 3000:5048] = cv2.resize(astronaut, (2048, 2048))
    (face,) = extract_faces(write_image(tmp_path / "8k.jpg", pixels)).faces
    expected = 4 * np.array([179, 83, 266, 170]) + [3000, 1000, 3000, 1000]
    np.testing.assert_allclose(face.box[:4], expected, atol=40)


def test_many_crops_are_kept_in_a_file(monkeypatch):
    monkeypatch.setattr(extract_module, "MAX_BYTES_IN_MEMORY", 1000)
    crops = CropStore(11)
    images = np.random.default_rng(0).integers(0, 256, (9, 11, 11, 3), dtype=np.uint8)
    for number, image in enumerate(images):
        assert crops.append(image) == number
        np.testing.assert_array_equal(crops[number // 2], images[number // 2])
    for number in (8, 0, 4):
        np.testing.assert_array_equal(crops[number], images[number])


def test_the_bytes_and_the_facts_of_the_file_are_stated(tmp_path, head, pair):
    found = extract_faces(pair, FaceOptions(frames_per_video=2))
    assert found.sha256 == hashlib.sha256(pair.read_bytes()).hexdigest()
    assert found.file_bytes == len(pair.read_bytes())
    assert (found.info.container, found.info.codec) == ("mp4", "mpeg4")
    assert (found.info.width, found.info.height, found.info.num_frames) == (400, 240, 8)
    assert found.info.duration_s == pytest.approx(8 / 25)
    image = extract_faces(write_image(tmp_path / "head.png", head))
    assert (image.info.codec, image.info.width, image.info.num_frames) == ("png", 200, 1)
    assert image.sha256 == hashlib.sha256((tmp_path / "head.png").read_bytes()).hexdigest()


def test_a_file_that_changes_meanwhile_is_refused(tmp_path, head, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", [head] * 4)
    track = extract_module.track_faces

    def change(*arguments, **options):
        yield from track(*arguments, **options)
        with open(path, "ab") as file:
            file.write(b"more")

    monkeypatch.setattr(extract_module, "track_faces", change)
    with pytest.raises(OSError, match=r"clip\.mp4, which was written to during the analysis"):
        extract_faces(path)


def test_after_an_error_no_thread_decodes_a_closed_file(tmp_path, head, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", [head] * 3)
    read, was_closed, is_second_begun = VideoReader.read, [], threading.Event()

    def read_slowly(reader, *arguments, **options):
        for number, frame in enumerate(read(reader, *arguments, **options)):
            if number:
                is_second_begun.set()
                time.sleep(0.5)
                was_closed.append(reader.file.handle.closed)
            yield frame

    def fail(*_):
        assert is_second_begun.wait(20)
        raise ValueError("no crop")

    monkeypatch.setattr(VideoReader, "read", read_slowly)
    monkeypatch.setattr(extract_module, "align_face", fail)
    with pytest.raises(OSError, match="no crop") as caught:
        extract_faces(path, FaceOptions(every=1, face_size=71))
    assert caught.value.__traceback__  # which keeps the generators
    assert was_closed == [False]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_faces_beyond_the_limit_are_told_and_the_largest_are_kept(pair):
    options = FaceOptions(every=1, face_size=71, tracks="all")
    found = extract_faces(pair, options, limits=LimitOptions(max_faces_per_frame=1))
    assert found.num_frames == len(found.faces) == 8
    assert [face.box.center[0] > 200 for face in found.faces] == [True] * 6 + [False] * 2
    (warning,) = found.warnings
    # The first frame and the last of the six, in which the detector searches.
    assert warning.startswith("at least 2 frames show more than 1 face")


@pytest.mark.parametrize("detector", ["dlib", "mtcnn"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 2000), (3000, 1), (5, 40)])
def test_an_image_of_an_absurd_size_has_no_face(tmp_path, detector, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = extract_faces(
        write_image(tmp_path / "tiny.png", pixels), FaceOptions(detector=detector, tracks="all")
    )
    assert (found.faces, found.num_frames) == ([], 1)
    assert (found.height, found.width) == shape


@pytest.mark.parametrize("mode", ["landmarks68", "deepfakebench", "box"])
@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_a_face_at_the_edge_of_the_frame_is_cropped_with_black(
    tmp_path, astronaut, monkeypatch, mode, corner
):
    # The face ends at the corner of the frame; the detector finds it there.
    left, top, right, bottom = 179, 83, 266, 170
    pixels = astronaut[
        slice(top, 400) if corner[1] else slice(0, bottom),
        slice(left, 400) if corner[0] else slice(0, right),
    ]
    shift = np.array([left * corner[0], top * corner[1]] * 2)
    box = Box(*(np.array([left, top, right, bottom]) - shift).tolist(), 1.0)

    class Stub:
        batch_size, supports_local_search = 1, True

        def find(self, frames, *, thorough=True):
            return [[box] for _ in frames]

    monkeypatch.setattr(extract_module, "face_detector", lambda name: Stub())
    monkeypatch.setattr(extract_module, "check_face_options", lambda *_: None)
    path = write_image(tmp_path / "edge.png", pixels)
    (face,) = extract_faces(path, FaceOptions(face_size=120, margin=1.6, alignment=mode)).faces
    assert 0.1 < face.quality.outside < 0.6
    assert np.isfinite(face.landmarks).all()
    columns, rows = face.crop.any(axis=(0, 2)), face.crop.any(axis=(1, 2))
    assert not (columns[-3:] if corner[0] == 0 else columns[:3]).any()
    assert not (rows[-3:] if corner[1] == 0 else rows[:3]).any()
    assert columns[50:75].all() and rows[50:75].all()


NONE = FaceOptions(detector="none", face_size=71, every=1)


def crops_of(extraction):
    return np.stack([face.crop for face in extraction.faces])


def test_without_a_detector_an_image_is_one_face(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (71, 71, 3), dtype=np.uint8)
    found = extract_faces(write_image(tmp_path / "crop.png", pixels), NONE)
    (face,) = found.faces
    np.testing.assert_array_equal(face.crop, pixels)
    assert face.box[:4] == (0, 0, 71, 71)
    assert face.landmarks.shape == (0, 2) and face.landmarks.dtype == np.float32
    unknown = (face.box.score, face.alignment_residual, face.quality.yaw_deg)
    assert np.isnan([*unknown, face.quality.detector_score, found.tracks[0].confidence]).all()
    assert (face.quality.size_px, face.quality.outside) == (71, 0.0)
    assert (found.warnings, found.filtered, len(found.tracks)) == ([], {}, 1)


def test_what_is_unknown_is_null_in_json(tmp_path, head):
    found = extract_faces(write_image(tmp_path / "crop.png", head), NONE)
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    (face,) = values["faces"]
    assert face["box"] == [0, 0, 200, 200, None]
    assert (face["landmarks"], face["alignment_residual"]) == ([], None)
    assert (face["quality"]["yaw_deg"], face["quality"]["detector_score"]) == (None, None)
    assert values["tracks"][0]["confidence"] is None
    assert np.isnan(Track.from_dict(values["tracks"][0]).confidence)


def test_without_a_detector_every_frame_of_a_video_is_a_face_of_one_track(tmp_path, head):
    empty = np.full_like(head, 90)
    path = write_clip(tmp_path / "clip.mp4", [head, empty, empty, head])
    found = extract_faces(path, NONE)
    assert [(face.frame_index, face.track_id) for face in found.faces] == [(i, 0) for i in range(4)]
    assert [face.time_s for face in found.faces] == pytest.approx([0, 0.04, 0.08, 0.12])
    assert crops_of(found)[1].std() < 3 < crops_of(found)[0].std()


def test_an_image_that_is_not_square_is_resized_with_a_warning(tmp_path, head):
    found = extract_faces(write_image(tmp_path / "tall.png", head[:, :100]), NONE)
    assert found.faces[0].crop.shape == (71, 71, 3)
    assert found.faces[0].box[:4] == (0, 0, 100, 200)
    assert found.warnings == [
        "1 of 1 image is not square, such as 100 x 200: resized to 71 x 71, which distorts faces"
    ]


def test_filters_that_need_a_detector_are_refused_without_one(tmp_path, head):
    path = write_image(tmp_path / "crop.png", head)
    with pytest.raises(ValueError, match="no max_yaw with the detector 'none'"):
        extract_faces(path, NONE, FilterOptions(max_yaw=30))
    found = extract_faces(path, NONE, FilterOptions(min_size=201))
    assert (found.faces, found.filtered) == ([], {"smaller than 201 px": 1})


def write_sequence(folder, frames):
    folder.mkdir()
    return [write_image(folder / f"{i:03}.png", frame) for i, frame in enumerate(frames)]


def test_landmarks_of_image_files_are_scaled_to_the_crop(tmp_path, head):
    paths = write_sequence(tmp_path / "clip", [head] * 4)
    points = np.random.default_rng(0).uniform(0, 200, (81, 2))
    files = [tmp_path / "0.npy", "", tmp_path / "2.npy", tmp_path / "3.npy"]
    np.save(files[0], points)
    np.save(files[2], points[:60])
    np.save(files[3], np.array([{"a": 1}]), allow_pickle=True)
    options = dataclasses.replace(NONE, face_size=100)
    found = extract_faces(paths, options, landmarks=files)
    sizes = [len(face.landmarks) for face in found.faces]
    assert sizes == [68, 0, 0, 0]
    # Half the size: the centre of the first pixel moves from 0 to -0.25.
    expected = points[:68] / 2 - 0.25
    np.testing.assert_allclose(found.faces[0].landmarks, expected, atol=1e-4)
    assert found.warnings == ["2 files of landmarks could not be read, such as 2.npy"]


def test_a_video_of_image_files_has_the_faces_and_tracks_of_the_video(tmp_path, collins):
    """Distances between two files are unknown: people jump, and every face is searched for."""
    places = [(90, 120), (600, 300), (150, 350), (610, 130), (400, 240)]
    texture = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    wall = cv2.resize(texture, (800, 480), interpolation=cv2.INTER_CUBIC)
    frames = [collins.place(wall, x, y, 50).clip(0, 255).astype(np.uint8) for x, y in places]
    found = extract_faces(write_sequence(tmp_path / "clip", frames), FaceOptions(every=1))
    assert [face.frame_index for face in found.faces] == list(range(5))
    assert {face.track_id for face in found.faces} == {0}
    assert {face.time_s for face in found.faces} == {0.0}
    centers = [face.box.center for face in found.faces]
    np.testing.assert_allclose(centers, places, atol=12)
    assert (found.info.num_frames, found.num_frames, found.width) == (5, 5, 800)
    json.dumps(found.to_dict(), allow_nan=False)


def write_mask(path, center, num_frames=8, size=(400, 240)):
    frames = np.zeros((num_frames, size[1], size[0], 3), np.uint8)
    for frame in frames if center else ():
        cv2.ellipse(frame, center, (40, 55), 0, 0, 360, (255, 255, 255), cv2.FILLED)
    return write_clip(path, frames)


@pytest.mark.parametrize("tracks", ["largest", "all"])
def test_the_face_that_the_mask_marks_is_extracted(tmp_path, pair, tracks):
    options = FaceOptions(every=1, face_size=71, tracks=tracks)
    small = extract_faces(pair, options, mask=write_mask(tmp_path / "small.mp4", (93, 125)))
    assert [face.frame_index for face in small.faces] == list(range(8))
    assert all(face.box.center[0] < 200 for face in small.faces)
    assert (small.filtered, small.warnings) == ({"not the manipulated face": 6}, [])
    large = extract_faces(pair, options, mask=write_mask(tmp_path / "large.mp4", (290, 125)))
    assert all(face.box.center[0] > 200 for face in large.faces)
    assert (len(large.faces), large.filtered) == (6, {"not the manipulated face": 8})


@pytest.mark.parametrize("size", [(400, 240), (200, 120)])
def test_the_mask_of_a_face_is_aligned_with_its_crop(tmp_path, pair, size):
    """With the alignment `box`, a crop is the square of the box, enlarged by the margin."""
    center = (93 * size[0] // 400, 125 * size[1] // 240)
    marked = np.zeros((8, size[1], size[0], 3), np.uint8)
    radii = (40 * size[0] // 400, 55 * size[1] // 240)
    for frame in marked[:6]:  # a frame without marked pixels says nothing
        cv2.ellipse(frame, center, radii, 0, 0, 360, (255, 255, 255), cv2.FILLED)
    mask = write_clip(tmp_path / "mask.mp4", marked)
    options = FaceOptions(every=1, face_size=100, alignment="box")
    faces = extract_faces(pair, options, mask=mask).faces
    assert [face.mask == b"" for face in faces] == [False] * 6 + [True] * 2
    for face in faces[:6]:
        found = cv2.imdecode(np.frombuffer(face.mask, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert (found.shape, set(np.unique(found))) == ((100, 100), {0, 255})
        scale = 100 / (1.3 * face.box.width)
        middle = (np.array([93, 125]) + 0.5 - face.box.center) * scale + 49.5
        y, x = np.indices(found.shape)
        distance = np.hypot((x - middle[0]) / (40 * scale), (y - middle[1]) / (55 * scale))
        is_near_edge = np.abs(distance - 1) < 0.08  # of codec, threshold and resampling
        np.testing.assert_array_equal(found[~is_near_edge] > 0, distance[~is_near_edge] < 1)
    plain = extract_faces(pair, options).faces
    assert all(face.mask == b"" for face in plain)


def test_frames_of_a_mask_are_those_of_the_sampled_frames(tmp_path, pair):
    """The mask marks the small face only in the frames that are not sampled."""
    masks = [write_mask(tmp_path / f"{x}.mp4", (x, 125)) for x in (93, 290)]
    frames = [cv2.VideoCapture(str(mask)).read()[1][..., ::-1] for mask in masks]
    mixed = write_clip(tmp_path / "mixed.mp4", [frames[index % 4 == 1] for index in range(8)])
    options = FaceOptions(frames_per_video=2, face_size=71)  # the frames 2 and 6
    assert extract_faces(pair, options, mask=mixed).faces[0].box.center[0] < 200
    mixed = write_clip(tmp_path / "other.mp4", [frames[index % 4 == 2] for index in range(8)])
    assert extract_faces(pair, options, mask=mixed).faces[0].box.center[0] > 200


def test_a_mask_that_marks_no_face_filters_all(tmp_path, pair):
    found = extract_faces(pair, FaceOptions(every=1), mask=write_mask(tmp_path / "mask.mp4", None))
    assert (found.faces, len(found.tracks)) == ([], 2)
    assert found.filtered == {"the mask marks none of the faces": 14}


def test_without_a_readable_mask_the_largest_face_is_extracted_with_a_warning(tmp_path, pair):
    (tmp_path / "mask.mp4").write_bytes(b"no video" * 99)
    options = FaceOptions(every=1, face_size=71)
    found, plain = (
        extract_faces(pair, options, mask=tmp_path / "mask.mp4"),
        extract_faces(pair, options),
    )
    assert found.warnings == ["the mask mask.mp4 could not be read: the largest face was taken"]
    assert found.filtered == plain.filtered
    np.testing.assert_array_equal(crops_of(found), crops_of(plain))


def test_a_video_of_one_person_is_the_same_with_a_mask(tmp_path, collins, wall):
    frames = [
        collins.place(wall, 180 + 3 * i, 120, 80).clip(0, 255).astype(np.uint8) for i in range(6)
    ]
    path = write_clip(tmp_path / "one.mp4", frames)
    mask = write_mask(tmp_path / "mask.mp4", (188, 125), 6)
    plain, masked = extract_faces(path), extract_faces(path, mask=mask)
    np.testing.assert_array_equal(crops_of(plain), crops_of(masked))
    assert plain.to_dict() == masked.to_dict()
