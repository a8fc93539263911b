"""The overlay has the size and the timing of its source, and boxes around the faces."""

import cv2
import numpy as np
import pytest

from jdfd_keras.faces import decode
from jdfd_keras.faces.decode import read_frames
from jdfd_keras.faces.draw import fit_image
from jdfd_keras.faces.media import UnreadableFileError
from jdfd_keras.faces.overlay import ENCODINGS, check_overlay, draw_overlay, write_overlay
from jdfd_keras.io.palette import track_colour
from jdfd_keras.options import FaceOptions
from tests.faces.media_files import decode_with_ffmpeg, make_clip, times_of

COLLINS_AT, HOPPER_AT, WIDTH = (110, 120), (290, 120), 80
NUM_FRAMES = 8
EMPTY = (3, 4)


@pytest.fixture(scope="module")
def scenes(wall, collins, hopper):
    """Frames of two people; some show only the wall."""
    both = collins.place(hopper.place(wall, *HOPPER_AT, WIDTH), *COLLINS_AT, WIDTH)
    frames = [wall if index in EMPTY else both for index in range(NUM_FRAMES)]
    return [np.clip(frame, 0, 255).astype(np.uint8) for frame in frames]


@pytest.fixture
def video(tmp_path, scenes, write_video):
    return write_video(tmp_path / "video.mp4", scenes)


def read_video(path):
    """Read pixels, times and the frame rate, with OpenCV only."""
    capture = cv2.VideoCapture(str(path))
    pixels, times_s = [], []
    while True:
        is_read, image = capture.read()
        if not is_read:
            return np.array(pixels), times_s, capture.get(cv2.CAP_PROP_FPS)
        pixels.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        times_s.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)


def find_colour(image, colour):
    """Return the mask of the pixels with the hue of a colour, which codecs preserve."""
    hues, saturations, values = np.moveaxis(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), 2, 0)
    hue = int(cv2.cvtColor(np.uint8([[colour]]), cv2.COLOR_RGB2HSV)[0, 0, 0])
    return (np.abs(hues.astype(int) - hue) < 6) & (saturations > 90) & (values > 150)


def draw(source, out, **options):
    num_frames = draw_overlay(source, out, FaceOptions(**options)).num_frames
    return num_frames, *read_video(out)


def test_the_video_has_the_size_length_and_rate_of_its_source(video, tmp_path):
    before, times_s, rate = read_video(video)
    num_frames, after, drawn_times_s, drawn_rate = draw(video, tmp_path / "out.mp4")
    assert num_frames == len(after) == len(before) == NUM_FRAMES
    assert after.shape == before.shape
    assert drawn_rate == rate == 25
    assert drawn_times_s == pytest.approx(times_s)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "video.mp4"]


def test_each_face_has_a_box_of_its_own_colour_and_nothing_else_has_one(video, tmp_path):
    _, after, *_ = draw(video, tmp_path / "out.mp4")
    before, *_ = read_video(video)
    positions = []
    for index in set(range(NUM_FRAMES)) - set(EMPTY):
        found = []
        for colour in (track_colour(0), track_colour(1)):
            drawn = find_colour(after[index], colour) & ~find_colour(before[index], colour)
            # Lines as long as a third of a face, which neither skin nor uniform has.
            drawn = drawn.astype(np.uint8)
            lines = cv2.morphologyEx(drawn, cv2.MORPH_OPEN, np.ones((1, 30), np.uint8))
            lines |= cv2.morphologyEx(drawn, cv2.MORPH_OPEN, np.ones((30, 1), np.uint8))
            rows, columns = np.nonzero(lines)
            found.append(((columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2))
            assert WIDTH - 10 < columns.max() - columns.min() < 1.5 * WIDTH
        positions.append(found)
    left, right = sorted(np.mean(positions, axis=0).tolist())
    assert left == pytest.approx(COLLINS_AT, abs=15)
    assert right == pytest.approx(HOPPER_AT, abs=15)
    assert np.ptp(positions, axis=0).max() < 15  # a track keeps its colour


def test_frames_without_a_face_have_only_a_stamp(video, tmp_path):
    _, after, *_ = draw(video, tmp_path / "out.mp4")
    before, *_ = read_video(video)
    for index in EMPTY:
        changed = np.abs(after[index].astype(int) - before[index]).max(axis=2) > 60
        rows, columns = np.nonzero(changed)
        assert rows.min() > 200 and columns.max() < 200  # at the lower left


def test_every_nth_frame_keeps_the_timing_of_the_source(video, tmp_path):
    num_frames, after, times_s, _ = draw(video, tmp_path / "out.mp4", every=3)
    before, *_ = read_video(video)
    indices = (0, 3, 6)
    assert num_frames == len(after) == len(indices)
    assert times_s == pytest.approx([index / 25 for index in indices], abs=2e-3)
    for image, index in zip(after, indices, strict=True):
        # Without the faces and the stamp.
        np.testing.assert_allclose(image[:30], before[index][:30], atol=40)


@pytest.mark.parametrize("suffix", [*ENCODINGS, ".MP4"])
def test_odd_sizes_grow_by_a_pixel_in_every_format(tmp_path, suffix):
    # OpenCV writes no video of odd size: a grey YUV4MPEG2 file is simple to write by hand.
    source = tmp_path / "odd.y4m"
    coarse = np.random.default_rng(0).integers(16, 236, (3, 5, 7), dtype=np.uint8)
    planes = [cv2.resize(plane, (101, 75)).tobytes() + b"\x80" * 2 * 75 * 101 for plane in coarse]
    head = b"YUV4MPEG2 W101 H75 F10:1 Ip A1:1 C444 X\0\n"
    source.write_bytes(head + b"".join(b"FRAME\n" + plane for plane in planes))
    before = [frame.pixels for frame in read_frames(source, 1, every=1)]
    assert before[0].shape == (75, 101, 3)
    _, after, _, rate = draw(source, tmp_path / f"out{suffix}")
    assert after.shape == (3, 76, 102, 3)
    assert rate == 10
    for image, frame in zip(after, before, strict=True):
        difference = np.abs(image[:50, :100].astype(int) - frame[:50, :100])
        assert difference.mean() < 12


def test_the_overlay_of_an_image_is_an_image(tmp_path, scenes):
    source, out = tmp_path / "photo.png", tmp_path / "drawn.png"
    cv2.imwrite(str(source), scenes[0][..., ::-1])
    assert draw_overlay(source, out).num_frames == 1
    image = cv2.cvtColor(cv2.imread(str(out)), cv2.COLOR_BGR2RGB)
    assert image.shape == scenes[0].shape
    for colour in (track_colour(0), track_colour(1)):
        count = (image == colour).all(axis=2).sum()
        assert count > 2 * WIDTH  # in the right channel order, unchanged by a codec
    changed = (image != scenes[0]).any(axis=2)
    assert changed.mean() < 0.3
    draw_overlay(source, tmp_path / "drawn.jpg")
    assert (tmp_path / "drawn.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_lines_grow_with_the_frame(tmp_path, scenes):
    widths = []
    for times in (1, 3):  # 240 and 720 pixels high
        source, out = tmp_path / f"{times}.png", tmp_path / f"drawn{times}.png"
        cv2.imwrite(str(source), cv2.resize(scenes[0], None, fx=times, fy=times)[..., ::-1])
        draw_overlay(source, out)
        image = cv2.cvtColor(cv2.imread(str(out)), cv2.COLOR_BGR2RGB)
        mask = (image == track_colour(0)).all(axis=2).astype(np.uint8)
        lines = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((1, 60 * times)))
        widths.append(lines.sum(axis=0).max() / 2)  # upper and lower line
    assert widths == [2, 3]  # 1.5 pixels of 360, and at least 2


def keep_pixels(frames):
    return (frame.pixels for frame in frames)


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_each_frame_is_written_once_and_keeps_its_time(tmp_path, suffix):
    # Uneven times as of phones and screen recordings, and an hour without a frame.
    times_s = [0, 0.033, 0.067, 0.5, 0.52, 3600, 3600.04]
    steps = "+".join(f"eq(N,{index})*{time_s}/TB" for index, time_s in enumerate(times_s))
    source = make_clip(
        tmp_path / "source.mkv",
        *("-vf", f"settb=1/1000,setpts='{steps}'", "-fps_mode", "passthrough"),
        *("-enc_time_base", "1:1000", "-c:v", "libx264"),
        source=np.stack([np.full((48, 64, 3), 30 * index, np.uint8) for index in range(7)]),
    )
    assert times_of(source) == pytest.approx(times_s)
    out = tmp_path / f"out{suffix}"
    assert write_overlay(source, out, keep_pixels).num_frames == len(times_s)
    assert times_of(out) == pytest.approx(times_s, abs=1e-5)
    levels = decode_with_ffmpeg(out).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, [30 * index for index in range(7)], atol=3)


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_drawn_colours_are_those_that_players_show(tmp_path, suffix):
    others = [(0, 255, 255), (255, 255, 255), (0, 0, 0), (200, 150, 130)]
    colours = [*map(track_colour, range(7)), *others]
    patches = np.repeat(np.uint8([colours]), 32, axis=1).repeat(64, axis=0)
    source = make_clip(tmp_path / "source.mkv", "-c:v", "ffv1", source=patches[None].repeat(3, 0))
    write_overlay(source, tmp_path / f"out{suffix}", lambda frames: (patches for _ in frames))
    # ffmpeg converts by the matrix and the range that the file states.
    shown = decode_with_ffmpeg(tmp_path / f"out{suffix}")[-1]
    for index, colour in enumerate(colours):
        middle = shown[16:48, 32 * index + 10 : 32 * index + 22].reshape(-1, 3)
        np.testing.assert_allclose(middle.mean(axis=0), colour, atol=4)


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_a_frame_of_another_size_is_fitted_and_not_distorted(video, tmp_path, suffix):
    def discs(frames):
        for frame in frames:
            wide = frame.index % 2 == 0
            image = np.full((90, 160, 3) if wide else (160, 90, 3), 128, np.uint8)
            yield cv2.circle(image, (image.shape[1] // 2, image.shape[0] // 2), 40, (255,) * 3, -1)

    out = tmp_path / f"out{suffix}"
    assert write_overlay(video, out, discs).num_frames == NUM_FRAMES
    images = decode_with_ffmpeg(out).astype(int)
    assert images.shape == (NUM_FRAMES, 90, 160, 3)
    for index, image in enumerate(images):
        rows, columns = np.nonzero(image.min(axis=2) > 190)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        expected = 81 if index % 2 == 0 else 81 * 90 / 160
        assert (height, width) == pytest.approx((expected, expected), abs=3)
        bars = image[:, [*range(50), *range(110, 160)]]
        assert bars.mean() < 10 if index % 2 else bars.mean() > 100


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_an_odd_size_is_padded_and_not_scaled(video, tmp_path, suffix):
    stripes = np.zeros((75, 101, 3), np.uint8)
    stripes[:, np.arange(101) % 4 < 2] = 200
    write_overlay(video, tmp_path / f"out{suffix}", lambda frames: (stripes for _ in frames))
    shown = decode_with_ffmpeg(tmp_path / f"out{suffix}")[-1].astype(int)
    assert shown.shape == (76, 102, 3)
    assert np.abs(shown[:75, :101] - stripes).mean() < 8
    # The new pixels continue the last ones.
    assert np.abs(shown[:75, 101] - shown[:75, 100]).mean() < 8
    assert np.abs(shown[75] - shown[74]).mean() < 8


def test_an_image_is_fitted_between_black_bars():
    image = np.random.default_rng(0).integers(1, 256, (30, 40, 3), dtype=np.uint8)
    assert fit_image(image, 40, 30) is image
    fitted = fit_image(image, 40, 50)
    np.testing.assert_array_equal(fitted[10:40], image)
    assert not fitted[:10].any() and not fitted[40:].any()
    assert fit_image(image, 80, 60).shape == (60, 80, 3)
    assert fit_image(np.zeros((1, 3000, 3), np.uint8), 64, 64).shape == (64, 64, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_the_video_plays_in_browsers_before_it_is_loaded(video, tmp_path, suffix):
    draw_overlay(video, tmp_path / f"out{suffix}")
    content = (tmp_path / f"out{suffix}").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")
    assert b"avc1" in content  # H.264


def test_every_frame_is_decoded_once(video, tmp_path, monkeypatch):
    decoded = []

    class Spy(decode.VideoReader):
        def read(self, count, *, every=0):
            for frame in super().read(count, every=every):
                decoded.append(frame.index)
                yield frame

    monkeypatch.setattr(decode, "VideoReader", Spy)
    draw_overlay(video, tmp_path / "out.mp4")
    assert decoded == list(range(NUM_FRAMES))


def test_progress_counts_the_drawn_frames(video, tmp_path):
    sent = []
    options = FaceOptions(every=3)
    draw_overlay(video, tmp_path / "out.mp4", options, send=lambda part: sent.append(part()))
    assert sent == [(1, 3), (2, 3), (3, 3)]


def test_a_name_with_a_colon_is_a_file(video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video.rename("concat:call.mp4")
    for out in ("Zoom: call.mp4", "file:faces.webm"):
        assert draw_overlay("concat:call.mp4", out).num_frames == NUM_FRAMES
        assert len(decode_with_ffmpeg(tmp_path / out)) == NUM_FRAMES


def test_an_animated_image_becomes_a_video(scenes, tmp_path):
    source = tmp_path / "animated.gif"
    make_clip(source, source=np.stack(scenes))
    with pytest.raises(ValueError, match=r"of a video to end in \.mp4"):
        check_overlay(source, tmp_path / "out.png")
    assert draw_overlay(source, tmp_path / "out.mp4").num_frames == NUM_FRAMES
    assert len(decode_with_ffmpeg(tmp_path / "out.mp4")) == NUM_FRAMES


def test_an_unreadable_source_is_named(tmp_path):
    (tmp_path / "notes.mp4").write_text("no video\n" * 100)
    with pytest.raises(UnreadableFileError, match=r"notes\.mp4"):
        draw_overlay(tmp_path / "notes.mp4", tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.mp4"]


def test_other_bytes_than_expected_are_refused(video, tmp_path):
    with pytest.raises(OSError, match=r"bytes of .*video\.mp4 that were analysed \(SHA-256 abab"):
        write_overlay(video, tmp_path / "out.mp4", keep_pixels, sha256="ab" * 32)
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_a_size_that_no_encoder_takes_is_named(video, tmp_path):
    with pytest.raises(OSError, match=r"encode .*video\.mp4 as .*out\.mp4; got an error of FFmpeg"):
        write_overlay(
            video,
            tmp_path / "out.mp4",
            lambda frames: (np.zeros((2, 20_000, 3), np.uint8) for _ in frames),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


@pytest.mark.parametrize("suffix", ENCODINGS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 1)])
def test_tiny_videos_are_drawn(tmp_path, suffix, shape):
    frames = np.full((3, *shape, 3), 127, np.uint8)
    source = make_clip(tmp_path / "tiny.mkv", "-c:v", "png", source=frames)
    assert draw_overlay(source, tmp_path / f"out{suffix}").num_frames == 3
    even = [side + side % 2 for side in shape]
    assert decode_with_ffmpeg(tmp_path / f"out{suffix}").shape == (3, *even, 3)


@pytest.mark.parametrize(
    ("source", "out", "named"),
    [
        ("video.mp4", "out.gif", r"a video to end in \.mp4, \.webm, \.mov, \.mkv; got out.gif"),
        ("video.mp4", "out", r"\.mp4, \.webm, \.mov"),
        ("video.mp4", "out.avi", r"got out\.avi\. Try out\.mp4"),
        ("photo.png", "out.mp4", r"an image to end in \.png, \.jpg, \.jpeg"),
        ("video.mp4", "video.mp4", "different files"),
    ],
)
def test_an_unsuitable_name_is_refused(video, scenes, tmp_path, monkeypatch, source, out, named):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.png", scenes[0])
    before = video.read_bytes()
    with pytest.raises(ValueError, match=named):
        check_overlay(source, out)
    with pytest.raises(ValueError, match=named):
        draw_overlay(source, out)
    assert video.read_bytes() == before


def test_a_missing_folder_is_refused_and_named(video, tmp_path):
    with pytest.raises(OSError, match="out.mp4; got no folder .*nowhere"):
        draw_overlay(video, tmp_path / "nowhere" / "out.mp4")


def test_an_interrupted_overlay_keeps_the_old_file(video, tmp_path, monkeypatch):
    out = tmp_path / "out.mp4"
    out.write_bytes(b"old")

    def interrupt(frames, detector, **options):
        yield next(iter(frames)), []
        raise KeyboardInterrupt

    monkeypatch.setattr("jdfd_keras.faces.overlay.track_faces", interrupt)
    with pytest.raises(KeyboardInterrupt):
        draw_overlay(video, out)
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "video.mp4"]


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError, match="which is missing"):
        draw_overlay(tmp_path / "none.mp4", tmp_path / "out.mp4")


@pytest.mark.parametrize(("source", "out"), [("\udcff.mp4", "out.mp4"), ("a.mp4", "\udcff.mp4")])
def test_a_name_that_is_not_utf_8_is_refused(source, out):
    with pytest.raises(OSError, match=r"name in UTF-8; got \\udcff.mp4"):
        check_overlay(source, out)


def test_the_box_of_a_whole_image_is_visible(tmp_path):
    grey = np.full((300, 400, 3), 127, np.uint8)
    cv2.imwrite(str(tmp_path / "crop.png"), grey)
    source, options = tmp_path / "crop.png", FaceOptions(detector="none")
    assert draw_overlay(source, tmp_path / "out.png", options).num_frames == 1
    drawn = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_COLOR_RGB)
    colour = (drawn == track_colour(0)).all(axis=2)
    for edge in (
        colour[:6, 200:390],
        colour[-6:, 200:390],
        colour[50:250, :6].T,
        colour[50:250, -6:].T,
    ):
        assert edge.any(axis=0).all()
    assert (drawn[50:250, 20:380] == 127).all()
