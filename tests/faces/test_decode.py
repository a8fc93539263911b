import hashlib
import re
import struct
import tracemalloc

import cv2
import numpy as np
import pytest
from PIL import Image

from jdfd_keras.faces.decode import open_media, read_frames, sample_frame_indices
from jdfd_keras.faces.media import UnreadableFileError, choose_frames
from jdfd_keras.options import LimitOptions

WIDTH, HEIGHT, FRAMES_PER_S = 64, 48, 25
NUM_FRAMES = 40


def brightness(index):
    return 20 + 5 * index


def write_clip(path, num_frames=NUM_FRAMES, codec="mp4v"):
    """Write a clip whose frames have a brightness that identifies their index."""
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*codec), FRAMES_PER_S, (WIDTH, HEIGHT)
    )
    for index in range(num_frames):
        writer.write(np.full((HEIGHT, WIDTH, 3), brightness(index), np.uint8))
    writer.release()
    return path


def write_noise(path, codec):
    """Write a clip of incompressible frames, so that a share of its bytes is one of its frames."""
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*codec), FRAMES_PER_S, (WIDTH, HEIGHT)
    )
    shape = (NUM_FRAMES, HEIGHT, WIDTH, 3)
    for pixels in np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8):
        writer.write(pixels)
    writer.release()
    return path


def write_matroska(path, times_ms, width=WIDTH, height=HEIGHT):
    """Write a Matroska file of JPEG frames by hand, since OpenCV writes even times only."""

    def element(code, data):
        return bytes.fromhex(code) + (1 << 56 | len(data)).to_bytes(8, "big") + data

    def number(value):
        return value.to_bytes(4, "big")

    track = element("D7", number(1)) + element("73C5", number(1)) + element("83", number(1))
    size = element("B0", number(width)) + element("BA", number(height))
    clusters = b""
    for index, time_ms in enumerate(times_ms):
        image = np.full((height, width, 3), brightness(index), np.uint8)
        block = b"\x81\0\0\x80" + cv2.imencode(".jpg", image)[1].tobytes()
        clusters += element("1F43B675", element("E7", number(time_ms)) + element("A3", block))
    path.write_bytes(
        element("1A45DFA3", element("4282", b"matroska") + element("4287", number(4)))
        + element(
            "18538067",
            element("1549A966", element("4489", struct.pack(">d", times_ms[-1] + 40)))
            + element(
                "1654AE6B", element("AE", track + element("86", b"V_MJPEG") + element("E0", size))
            )
            + clusters,
        )
    )
    return path


def write_truncated(path, whole, share):
    path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    return path


def read_and_warnings(path, count=4, **options):
    warnings = []
    return list(read_frames(path, count, warn=warnings.append, **options)), warnings


def check_frames(frames, indices):
    assert [frame.index for frame in frames] == indices
    for frame in frames:
        assert frame.pixels.shape == (HEIGHT, WIDTH, 3)
        assert frame.pixels.dtype == np.uint8
        # Half the distance between two frames; the luma of MPEG-4 starts at 16.
        assert frame.pixels.mean() == pytest.approx(brightness(frame.index), abs=2.5 + 2)


def first_error(path):
    with pytest.raises(OSError) as caught:
        next(read_frames(path, 4))
    return str(caught.value)


def test_sampled_frames_are_the_middles_of_equal_spans():
    assert sample_frame_indices(10, 5).tolist() == [1, 3, 5, 7, 9]
    assert sample_frame_indices(300, 3).tolist() == [50, 150, 250]
    assert sample_frame_indices(7, 1).tolist() == [3]
    assert sample_frame_indices(10, 4).tolist() == [1, 3, 6, 8]  # 1.25, 3.75, 6.25, 8.75


def test_sampled_frames_cover_every_video_without_repeats():
    rng = np.random.default_rng(0)
    for num_frames, count in rng.integers(1, 400, (200, 2)).tolist():
        indices = sample_frame_indices(num_frames, count)
        assert indices.dtype == np.int64
        assert len(indices) == min(num_frames, count)
        assert indices[0] >= 0
        assert indices[-1] < num_frames
        # Even to within a frame, including the ends: all gaps are about one span, none is empty.
        gaps = np.diff(np.r_[-indices[0] - 1, indices, 2 * num_frames - indices[-1] - 1])
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 2


def test_all_frames_of_a_shorter_video_are_sampled():
    assert sample_frame_indices(4, 100).tolist() == [0, 1, 2, 3]


def test_large_frame_numbers_do_not_overflow():
    assert sample_frame_indices(2**31, 2).tolist() == [2**29, 3 * 2**29]


@pytest.mark.parametrize(("num_frames", "count"), [(0, 1), (1, 0), (-5, 3)])
def test_numbers_below_1_are_refused(num_frames, count):
    with pytest.raises(ValueError, match=f"num_frames={num_frames}, count={count}"):
        sample_frame_indices(num_frames, count)


@pytest.mark.parametrize(
    ("name", "codec"), [("clip.mp4", "mp4v"), ("clip.avi", "MJPG"), ("clip.webm", "VP80")]
)
def test_the_sampled_frames_are_read(tmp_path, name, codec):
    frames = list(read_frames(write_clip(tmp_path / name, codec=codec), 5))
    check_frames(frames, [4, 12, 20, 28, 36])
    assert [frame.time_s for frame in frames] == pytest.approx([0.16, 0.48, 0.8, 1.12, 1.44])


@pytest.mark.parametrize(
    ("name", "codec"), [("clip.mp4", "mp4v"), ("clip.avi", "MJPG"), ("clip.webm", "VP80")]
)
@pytest.mark.parametrize("every", [1, 7, 39, 40, 10**9])
def test_every_nth_frame_is_read(tmp_path, name, codec, every):
    path = write_clip(tmp_path / name, codec=codec)
    frames, warnings = read_and_warnings(path, every=every)
    check_frames(frames, list(range(0, NUM_FRAMES, every)))
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(0, 40, every) / 25)
    assert warnings == []


def test_frames_of_a_video_are_rgb(tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "red.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (WIDTH, HEIGHT)
    )
    writer.write(np.full((HEIGHT, WIDTH, 3), (0, 0, 255), np.uint8))  # OpenCV writes BGR
    writer.release()
    pixels = next(read_frames(tmp_path / "red.mp4", 1)).pixels
    np.testing.assert_allclose(pixels.mean(axis=(0, 1)), [255, 0, 0], atol=8)


def test_every_frame_of_a_short_clip_is_read_once(tmp_path):
    frames = list(read_frames(write_clip(tmp_path / "clip.mp4", num_frames=7), 300))
    check_frames(frames, list(range(7)))


def test_a_clip_of_one_frame_is_a_video(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", num_frames=1)
    for every in (0, 1, 5):
        frames, warnings = read_and_warnings(path, every=every)
        check_frames(frames, [0])
        assert warnings == []


def test_paths_may_have_spaces_and_letters_of_any_script(tmp_path):
    folder = tmp_path / "Мои видео"
    folder.mkdir()
    check_frames(list(read_frames(write_clip(folder / "Ærø 面 %03d.mp4"), 2)), [10, 30])
    Image.new("RGB", (8, 8), (255, 0, 0)).save(folder / "Ærø 面.png")
    assert next(read_frames(folder / "Ærø 面.png", 1)).pixels[0, 0].tolist() == [255, 0, 0]


def test_uneven_frame_times_are_kept_and_are_no_damage(tmp_path):
    # OpenCV takes such a file for one of 1000 frames a second and claims 4000 of them.
    times_ms = np.cumsum(np.random.default_rng(0).integers(10, 200, 40)).tolist()
    path = write_matroska(tmp_path / "screen.mkv", times_ms)
    for every, indices in [(0, [4, 12, 20, 28, 36]), (9, [0, 9, 18, 27, 36])]:
        frames, warnings = read_and_warnings(path, 5, every=every)
        check_frames(frames, indices)
        expected = [(times_ms[frame.index] - times_ms[0]) / 1000 for frame in frames]
        assert [frame.time_s for frame in frames] == pytest.approx(expected, abs=0.0011)
        assert warnings == []


@pytest.mark.parametrize("size", [(65, 49), (33, 47), (1, 1)])
def test_videos_of_odd_sizes_are_decoded_whole(tmp_path, size):
    path = write_matroska(tmp_path / "odd.mkv", [0, 40, 80], *size)
    for every in (0, 1):
        frames, warnings = read_and_warnings(path, every=every)
        assert [frame.pixels.shape for frame in frames] == [(size[1], size[0], 3)] * 3
        for frame in frames:
            np.testing.assert_allclose(frame.pixels, brightness(frame.index), atol=2)
        assert warnings == []


@pytest.mark.parametrize("claimed", [10, 41, 400])
def test_a_wrong_frame_count_in_the_header_has_no_effect(tmp_path, claimed):
    path = write_clip(tmp_path / "clip.avi", codec="MJPG")
    data = bytearray(path.read_bytes())
    for header, offset in [(b"avih", 16), (b"strh", 32)]:
        position = data.index(header) + 8 + offset
        assert struct.unpack_from("<I", data, position) == (NUM_FRAMES,)
        struct.pack_into("<I", data, position, claimed)
    path.write_bytes(data)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == claimed  # otherwise the test proves nothing
    capture.release()
    cut = "cut short or damaged: 40 frames decode, up to 1.56 s of 16.00 s"
    for every, indices in [(0, [4, 12, 20, 28, 36]), (1, list(range(40)))]:
        frames, warnings = read_and_warnings(path, 5, every=every)
        check_frames(frames, indices)
        assert warnings == ([cut] if claimed == 400 else [])


@pytest.mark.parametrize("every", [0, 1])
def test_one_frame_is_in_memory_at_a_time(tmp_path, every):
    path = tmp_path / "clip.mp4"
    size = (640, 480)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, size)
    for _ in range(20):
        writer.write(np.zeros((size[1], size[0], 3), np.uint8))
    writer.release()
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_frames(path, 20, every=every)) == 20
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The yielded frame, the next one and its copy as RGB, and some overhead.
    assert peak < 4 * size[0] * size[1] * 3


def test_a_video_rotated_by_its_header_is_upright(tmp_path, turn_header):
    path = write_clip(tmp_path / "phone.mp4", num_frames=3)
    turn_header(path)
    for every in (0, 1):
        assert next(read_frames(path, 1, every=every)).pixels.shape == (WIDTH, HEIGHT, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff", ".gif"])
def test_an_image_is_one_frame(tmp_path, suffix):
    pixels = np.zeros((30, 50, 3), np.uint8)
    pixels[:, 25:] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / f"image{suffix}")
    frames, warnings = read_and_warnings(tmp_path / f"image{suffix}", 32, every=5)
    assert warnings == []
    assert [(frame.index, frame.time_s) for frame in frames] == [(0, 0.0)]
    assert frames[0].pixels.shape == (30, 50, 3)
    np.testing.assert_allclose(frames[0].pixels[15, 45], [255, 0, 0], atol=3)
    np.testing.assert_allclose(frames[0].pixels[15, 5], [0, 0, 0], atol=3)


def test_a_missing_file_and_a_folder_have_different_errors(tmp_path):
    assert "missing" in first_error(tmp_path / "nothing.mp4")
    assert "a folder" in first_error(tmp_path)


@pytest.mark.parametrize("name", ["notes.mp4", "notes.jpg", "notes.txt", "notes.h264"])
@pytest.mark.parametrize("content", [b"", b"Dear diary,\n" * 500], ids=["empty", "text"])
def test_a_file_that_is_not_a_video_is_refused_in_one_line(tmp_path, capfd, name, content):
    (tmp_path / name).write_bytes(content)
    message = first_error(tmp_path / name)
    assert ("neither" if content else "empty") in message
    assert f"({len(content)} bytes)" in message
    assert capfd.readouterr() == ("", "")


def test_a_playlist_is_not_a_video(tmp_path):
    write_clip(tmp_path / "secret.mp4")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    assert "neither" in first_error(tmp_path / "list.mp4")


@pytest.mark.parametrize(
    ("codec", "name", "share"), [("mp4v", "no_index.mp4", 0.5), ("MJPG", "header_alone.avi", 0.02)]
)
@pytest.mark.parametrize("every", [0, 1])
def test_a_truncated_video_without_decodable_frames_is_refused_in_one_line(
    tmp_path, capfd, codec, name, share, every
):
    path = write_truncated(tmp_path / name, write_noise(tmp_path / f"whole_{name}", codec), share)
    capfd.readouterr()
    with pytest.raises(OSError, match=f"{name}.* cut short"):
        next(read_frames(path, 4, every=every))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("codec", "name", "share", "fewest", "most"),
    [
        ("MJPG", "one_frame.avi", 0.06, 1, 1),
        ("MJPG", "half.avi", 0.5, 18, 20),
        ("MJPG", "most.avi", 0.8, 30, 32),
        ("VP80", "half.webm", 0.5, 15, 20),
        ("VP80", "one_frame.webm", 0.13, 1, 1),
    ],
)
def test_a_truncated_video_is_read_as_far_as_it_decodes_with_a_warning(
    tmp_path, capfd, codec, name, share, fewest, most
):
    whole_path = write_noise(tmp_path / f"whole_{name}", codec)
    path = write_truncated(tmp_path / name, whole_path, share)
    capfd.readouterr()
    whole, warnings = read_and_warnings(whole_path, every=1)
    assert (len(whole), warnings) == (NUM_FRAMES, [])

    frames, warnings = read_and_warnings(path, every=1)
    assert fewest <= len(frames) <= most
    for frame, expected in zip(frames, whole, strict=False):
        assert (frame.index, frame.time_s) == (expected.index, expected.time_s)
        if frame is not frames[-1]:  # the last frame may be incomplete
            np.testing.assert_array_equal(frame.pixels, expected.pixels)
    frames_decode = "1 frame decodes" if len(frames) == 1 else f"{len(frames)} frames decode"
    sentence = (
        f"cut short or damaged: {frames_decode}, up to {(len(frames) - 1) / 25:.2f} s of 1.60 s"
    )
    assert warnings == [sentence]

    spread, warnings = read_and_warnings(path, 3)
    expected = sample_frame_indices(len(frames), 3)
    # The packet of the last frame, which is incomplete, counts as one.
    np.testing.assert_allclose([frame.index for frame in spread], expected, atol=1)
    for frame in spread:
        np.testing.assert_array_equal(frame.pixels, frames[frame.index].pixels)
    assert warnings == [sentence]
    assert len(list(read_frames(path, 3))) == len(spread)  # without a callback for warnings
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("codec", "name"), [("mp4v", "hole.mp4"), ("VP80", "hole.webm")])
@pytest.mark.parametrize("every", [0, 1])
def test_frames_after_damage_are_read_and_the_gap_is_reported(tmp_path, capfd, codec, name, every):
    path = write_noise(tmp_path / name, codec)
    data = bytearray(path.read_bytes())
    start, end = int(0.4 * len(data)), int(0.6 * len(data))
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    capfd.readouterr()
    frames, warnings = read_and_warnings(path, NUM_FRAMES, every=every)
    times_s = [frame.time_s for frame in frames]
    gap_s = np.diff(times_s).max()
    assert NUM_FRAMES / 2 <= len(frames) < NUM_FRAMES
    assert times_s[-1] == pytest.approx(1.56)
    (warning,) = warnings
    assert re.fullmatch(rf"damaged: no frame .* {gap_s:.2f} s of 1\.60 s", warning)
    assert capfd.readouterr() == ("", "")


def test_a_count_of_0_is_refused_for_videos_and_images(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    for path in (tmp_path / "image.png", write_clip(tmp_path / "clip.mp4", num_frames=2)):
        with pytest.raises(ValueError, match="count=0"):
            next(read_frames(path, 0))


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    # OpenCV 5.0 crashes on it.
    path = tmp_path / "\udcff.png"
    expected = f"Expected a file name in UTF-8; got {tmp_path}/\\udcff.png. Rename the file"
    assert first_error(path).startswith(expected)


def write_images(folder, num_frames=10):
    """Write images whose brightness identifies their index."""
    folder.mkdir()
    paths = [folder / f"{index:03}.png" for index in range(num_frames)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), brightness(index), np.uint8))
    return paths


@pytest.mark.parametrize(
    ("count", "every", "indices"), [(4, 0, [1, 3, 6, 8]), (99, 0, range(10)), (4, 3, [0, 3, 6, 9])]
)
def test_only_sampled_image_files_are_read(tmp_path, count, every, indices):
    paths = write_images(tmp_path / "clip")
    assert choose_frames(10, count, every) == list(indices)
    for index in set(range(10)) - set(indices):
        paths[index].unlink()
    with open_media(paths) as media:
        frames = list(media.read(count, every=every))
    assert [frame.index for frame in frames] == list(indices)
    assert [frame.pixels[0, 0, 0] for frame in frames] == [brightness(index) for index in indices]
    assert all(np.isnan(frame.time_s) for frame in frames)
    assert media.warnings == []


def test_frames_of_image_files_have_the_times_that_are_given(tmp_path):
    paths = write_images(tmp_path / "clip")
    with open_media(paths, times_s=[index / 4 for index in range(10)]) as media:
        assert [frame.time_s for frame in media.read(4)] == [0.25, 0.75, 1.5, 2.0]


def test_the_hash_of_image_files_is_that_of_their_digests(tmp_path):
    paths = write_images(tmp_path / "clip")
    with open_media(paths) as media:
        list(media.read(4))
    decoded = [paths[index].read_bytes() for index in (1, 3, 6, 8)]
    digests = b"".join(hashlib.sha256(content).digest() for content in decoded)
    assert media.file.sha256 == hashlib.sha256(digests).hexdigest()
    assert media.file.size == sum(map(len, decoded))
    assert (media.info.codec, media.info.width, media.info.num_frames) == ("png", WIDTH, 10)
    assert (media.is_video, media.info.duration_s) == (False, 0.0)


def test_a_damaged_image_file_is_skipped_and_named(tmp_path):
    paths = write_images(tmp_path / "clip")
    paths[0].write_bytes(paths[0].read_bytes()[:60])
    paths[3].write_bytes(b"")
    paths[5].write_text("no image")
    write_clip(paths[7])
    warnings = []
    frames = list(read_frames(paths, 99, warn=warnings.append))
    assert [frame.index for frame in frames] == [1, 2, 4, 6, 8, 9]
    assert warnings == [
        "damaged: 4 of 10 sampled image files cannot be decoded (000.png, 003.png, 005.png, ...)"
    ]


def test_an_image_file_of_another_size_is_read_and_named(tmp_path):
    paths = write_images(tmp_path / "clip")
    cv2.imwrite(str(paths[4]), np.zeros((20, 30, 3), np.uint8))
    warnings = []
    frames = list(read_frames(paths, 99, warn=warnings.append))
    assert [frame.pixels.shape[:2] for frame in frames].count((20, 30)) == 1
    assert len(frames) == 10
    [warning] = warnings
    assert "1 of 10 sampled image files" in warning and "64 x 48 (004.png)" in warning


def test_image_files_of_which_none_decodes_are_an_error_that_names_their_folder(tmp_path):
    paths = write_images(tmp_path / "clip")
    for path in paths:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UnreadableFileError, match=r"clip; got 4 sampled files.*001\.png"):
        list(read_frames(paths, 4))
    with pytest.raises(UnreadableFileError, match=r"at most 9 pixels"):
        list(read_frames(write_images(tmp_path / "b"), 4, limits=LimitOptions(max_pixels=9)))


def test_a_missing_image_file_is_an_error(tmp_path):
    paths = write_images(tmp_path / "clip")
    paths[4].unlink()
    with pytest.raises(FileNotFoundError, match=r"004\.png"):
        list(read_frames(paths, 99))
    with pytest.raises(ValueError, match="image files of a video; got none"):
        list(read_frames([], 4))


def test_of_an_animated_image_file_the_first_frame_is_read(tmp_path):
    paths = write_images(tmp_path / "clip", 2)
    frames = [Image.new("RGB", (WIDTH, HEIGHT), (level,) * 3) for level in (50, 100, 150)]
    frames[0].save(paths[1], save_all=True, append_images=frames[1:])
    assert [frame.pixels[0, 0, 0] for frame in read_frames(paths, 2)] == [brightness(0), 50]
