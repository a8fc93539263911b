"""The overlay has the size and the timing of its source, and boxes around the faces."""

import cv2
import numpy as np
import pytest

from jdfd_keras.faces import overlay
from jdfd_keras.faces.decode import read_frames
from jdfd_keras.faces.overlay import COLOURS, check_overlay, draw_overlay, track_colour
from jdfd_keras.options import FaceOptions

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
    num_frames = draw_overlay(source, out, FaceOptions(**options))
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


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".MP4"])
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
    assert draw_overlay(source, out) == 1
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


def test_neighbouring_tracks_have_different_colours():
    colours = [track_colour(track_id) for track_id in range(20)]
    assert all(a != b for a, b in zip(colours, colours[1:], strict=False))
    assert len(set(colours)) == len(COLOURS) == 7
    # The first colour of the palette of Okabe and Ito after black, from their page.
    assert colours[:2] == [(0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9)]


@pytest.mark.parametrize(
    ("times_s", "rate", "holds"),
    [
        ([0, 0.04, 0.08, 0.12], 25, [1, 1, 1, 1]),
        ([5, 5.5, 6, 6.5], 2, [1, 1, 1, 1]),  # relative to the first
        ([0, 0.033, 0.067, 0.1, 0.133, 0.167], 5 / 0.167, [1] * 6),  # rounded to milliseconds
        ([0, 0.1, 0.2, 0.5, 0.6], 10, [1, 1, 3, 1, 1]),  # a longer frame
        ([0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5], 10, [1] * 7),  # two closer ones: no frame is lost
        ([0, 0.1, 0.2, 3600.2], 10, [1, 1, 600, 1]),  # damage
        ([0, 0, 0], 25, [1, 1, 1]),  # no times
        ([0], 1, [1]),
    ],
)
def test_frames_are_repeated_to_keep_their_durations(times_s, rate, holds):
    frames_per_s, counts = overlay._schedule_frames(np.array(times_s, float))
    assert frames_per_s == pytest.approx(rate)
    assert counts.tolist() == holds


def test_a_video_keeps_uneven_times():
    rng = np.random.default_rng(0)
    times_s = np.cumsum(rng.choice([1 / 30, 1 / 15], 600, p=[0.8, 0.2]))  # as phones record
    rate, holds = overlay._schedule_frames(times_s)
    shown_s = np.cumsum([0, *holds[:-1]]) / rate
    assert rate == pytest.approx(30)
    np.testing.assert_allclose(shown_s, times_s - times_s[0], atol=0.5 / 30 + 1e-9)


@pytest.mark.parametrize(
    ("source", "out", "named"),
    [
        ("video.mp4", "out.gif", r"a video to end in \.mp4, \.webm, \.avi; got out.gif"),
        ("video.mp4", "out", r"\.mp4, \.webm, \.avi"),
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

    def interrupt(frames, detector):
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
