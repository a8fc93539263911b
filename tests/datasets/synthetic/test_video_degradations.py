import re

import numpy as np
import pytest
from PIL import Image

from jdfd_keras.datasets.synthetic.degradations import DEGRADATIONS, degrade_image
from jdfd_keras.datasets.synthetic.video_degradations import degrade_video
from jdfd_keras.faces.decode import open_media, read_frames
from jdfd_keras.faces.media import UnreadableFileError, sample_frame_indices
from jdfd_keras.options import FaceOptions, LimitOptions
from tests.faces.media_files import decode_with_ffmpeg, make_clip, times_of

NUM_FRAMES = 20
LOSSLESS = ("-c:v", "libx264", "-qp", 0, "-pix_fmt", "yuv420p")
DECODERS = {"h264": "h264", "h265": "hevc"}


@pytest.fixture(scope="module")
def moving_face(astronaut):
    """Frames of a moving camera: uint8[20, 121, 161, 3]."""
    frames = []
    for number in range(NUM_FRAMES):
        x, y = round(20 + 6 * np.sin(number / 3)), round(8 + 4 * np.cos(number / 2))
        frames.append(astronaut[30 + y : 151 + y, 120 + x : 281 + x])
    return np.stack(frames)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip of 20 frames that are all different."""
    source = "testsrc2=size=160x120:rate=25:duration=0.8"
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", *LOSSLESS, source=source)


@pytest.fixture
def degrade(tmp_path):
    """Return a function that degrades a video into a new folder."""
    count = iter(range(99))

    def degrade(path, name, strength, limits=None, seed=0, **faces):
        folder = tmp_path / f"degraded{next(count)}"
        folder.mkdir()
        options = {"faces": FaceOptions(**faces), "limits": limits or LimitOptions()}
        return degrade_video(path, name, strength, folder, **options, seed=seed)

    return degrade


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


def frames_of(path, **sampling):
    count = sampling.pop("count", 999)
    return {frame.index: frame.pixels for frame in read_frames(path, count, **sampling)}


@pytest.mark.parametrize("name, crf", [("h264", 23), ("h264", 45), ("h265", 28), ("h265", 45)])
def test_a_video_is_encoded_as_ffmpeg_does_at_that_crf(moving_face, degrade, tmp_path, name, crf):
    source = make_clip(tmp_path / "source.mkv", "-c:v", "ffv1", source=moving_face)
    path = degrade(source, name, crf)
    even = np.pad(moving_face, ((0, 0), (0, 1), (0, 1), (0, 0)), "edge")
    encoder = DEGRADATIONS[name].encoder
    by_ffmpeg = make_clip(
        tmp_path / "ffmpeg.mp4",
        *("-c:v", encoder, "-crf", crf, "-preset", "medium", "-pix_fmt", "yuv420p"),
        source=even,
    )
    written = path.read_bytes()
    assert set(re.findall(rb"crf=([\d.]+)", written)) == {f"{crf}.0".encode()}
    with open_media(path) as media:
        frames = [frame.pixels for frame in media.read(999)]
    assert media.info.codec == DECODERS[name]
    assert (media.info.pixel_format, media.info.colour.split("/")[0]) == ("yuv420p", "smpte170m")
    assert np.shape(frames) == (NUM_FRAMES, 122, 162, 3)
    found, expected = (
        [psnr(one[:121, :161], own) for one, own in zip(decoded, moving_face, strict=True)]
        for decoded in (frames, decode_with_ffmpeg(by_ffmpeg, scaler="bicubic"))
    )
    assert np.mean(found) == pytest.approx(np.mean(expected), abs=0.3)
    assert len(written) == pytest.approx(by_ffmpeg.stat().st_size, rel=0.15)


def test_a_higher_crf_loses_more_of_a_video(moving_face, degrade, tmp_path):
    few = moving_face[:6]
    source = make_clip(tmp_path / "source.mkv", "-c:v", "ffv1", source=few)
    for name in ("h264", "h265"):
        losses = []
        for strength in DEGRADATIONS[name].strengths:
            frames = np.stack([*frames_of(degrade(source, name, strength)).values()])
            losses.append(psnr(frames[:, :121, :161], few))
        assert losses == sorted(losses, reverse=True)
        assert losses[0] > losses[-1] + 5


def test_an_encoded_video_keeps_number_times_and_rate_of_the_frames(degrade, tmp_path):
    # Frames 0, 1, 2, 6, 7, 8, 12, ... of 30000/1001 a second: the rate is variable.
    select = ("-vf", "select='lt(mod(n,6),3)'", "-fps_mode", "vfr")
    source = "testsrc2=size=160x120:rate=30000/1001:duration=0.8"
    path = make_clip(tmp_path / "variable.mp4", *select, *LOSSLESS, source=source)
    for name in ("h264", "h265"):
        encoded = degrade(path, name, 35)
        assert len(times_of(path)) == 12
        expected = np.asarray(times_of(path)) - times_of(path)[0]
        found = np.asarray(times_of(encoded))
        np.testing.assert_allclose(found - found[0], expected, atol=1e-3)
    constant = make_clip(tmp_path / "constant.mp4", *LOSSLESS, source=source)
    with open_media(degrade(constant, "h264", 35)) as media:
        frames = list(media.read(999))
    assert media.info.frame_rate == pytest.approx(30000 / 1001, rel=1e-3)
    assert [frame.index for frame in frames] == list(range(24))


def test_a_rotated_video_with_wide_pixels_is_encoded_as_players_show_it(degrade, tmp_path):
    path = make_clip(tmp_path / "stored.mp4", *LOSSLESS, "-vf", "setsar=2")
    turned = make_clip(
        tmp_path / "turned.mp4", "-c", "copy", source=path, before=("-display_rotation", 90)
    )
    shown = frames_of(turned)
    found = frames_of(degrade(turned, "h264", 10))
    assert shown[0].shape == found[0].shape == (320, 120, 3)
    assert min(psnr(shown[index], found[index]) for index in shown) > 30  # 4:2:0 blurs the colours


@pytest.mark.parametrize("name, quality", [("jpeg", 30), ("jpeg", 90), ("screenshot", 70)])
def test_sampled_frames_are_jpeg_files_of_that_quality(clip, degrade, tmp_path, name, quality):
    files = degrade(clip, name, 2 if name == "screenshot" else quality, frames_per_video=5)
    sampled = sample_frame_indices(NUM_FRAMES, 5).tolist()
    assert sorted({int(file.stem) for file in files}) == sampled
    assert len(list(files[0].parent.iterdir())) == 5
    Image.new("RGB", (16, 16)).save(tmp_path / "reference.jpg", quality=quality)
    with Image.open(tmp_path / "reference.jpg") as reference:
        tables = reference.quantization
    for file in set(files):
        with Image.open(file) as saved:
            assert saved.quantization == tables
            assert saved.size == ((80, 60) if name == "screenshot" else (160, 120))


@pytest.mark.parametrize("sampling", [{"frames_per_video": 4}, {"every": 7}, {"every": 1}])
def test_extraction_samples_each_degraded_frame_once_at_its_index(clip, degrade, sampling):
    expected = frames_of(
        clip, count=sampling.get("frames_per_video", 1), every=sampling.get("every", 0)
    )
    files = degrade(clip, "gamma", 2, **sampling)
    found = frames_of(
        files, count=sampling.get("frames_per_video", 1), every=sampling.get("every", 0)
    )
    assert found.keys() == expected.keys()
    for index, pixels in expected.items():
        np.testing.assert_array_equal(found[index], degrade_image(pixels, "gamma", 2))


def test_noise_differs_between_frames_and_videos_and_depends_on_the_seed(degrade, tmp_path):
    path, other = tmp_path / "grey.mp4", tmp_path / "other.mp4"
    make_clip(path, *LOSSLESS, source="color=gray:size=160x120:rate=25:duration=0.2")
    other.write_bytes(path.read_bytes())

    def noise_of(path, seed):
        files = degrade(path, "noise", 25, frames_per_video=2, seed=seed)
        return [frame.ravel() - 128.0 for frame in frames_of(files, count=2).values()]

    once = noise_of(path, 0)
    np.testing.assert_array_equal(noise_of(path, 0), once)
    for different in (once[1], noise_of(path, 1)[0], noise_of(other, 0)[0]):
        assert abs(np.corrcoef(once[0], different)[0, 1]) < 0.03


@pytest.mark.parametrize(
    "share, sampling, count",
    [
        (0.5, {"frames_per_video": 4}, 4),
        (0.9, {"frames_per_video": 4}, 2),
        (1.0, {"frames_per_video": 4}, 1),
        (0.5, {"every": 3}, 4),
        (0.0, {"every": 1}, 20),
    ],
)
def test_frames_are_sampled_from_those_that_are_not_dropped(clip, degrade, share, sampling, count):
    every = sampling.get("every", 0)
    files = degrade(clip, "frame-drop", share, seed=1, **sampling)
    frames = [*frames_of(files, count=sampling.get("frames_per_video", 1), every=every).values()]
    clean = frames_of(clip, every=1)
    assert len(frames) == count == len(set(files))
    for file, pixels in zip(dict.fromkeys(files), frames, strict=True):
        np.testing.assert_array_equal(pixels, clean[int(file.stem)])
    assert [int(file.stem) for file in files] == sorted(int(file.stem) for file in files)
    others = degrade(clip, "frame-drop", share, seed=2, **sampling)
    is_random = share > 0
    assert ([file.name for file in files] != [file.name for file in others]) == is_random


def test_image_files_and_single_images_are_degraded_as_videos_are(moving_face, degrade, tmp_path):
    files = []
    for number, frame in enumerate(moving_face[:6]):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(frame).save(files[-1])
    found = frames_of(degrade(files, "brightness", 25, frames_per_video=3), count=3)
    assert list(found) == [1, 3, 5]
    for index, pixels in found.items():
        np.testing.assert_array_equal(pixels, np.minimum(moving_face[index], 230) + 25)
    encoded = degrade(files, "h264", 23)
    assert [frame.time_s for frame in read_frames(encoded, 99)] == pytest.approx(
        [number / 25 for number in range(6)], abs=1e-3
    )
    assert len(degrade(files[0], "jpeg", 30)) == 1
    for name in ("h264", "h265"):
        for count in (1, 2, 3):
            times = [frame.time_s for frame in read_frames(degrade(files[:count], name, 28), 99)]
            assert times == pytest.approx([number / 25 for number in range(count)], abs=1e-3)


def test_a_truncated_video_is_degraded_as_far_as_it_is_decodable(degrade, tmp_path):
    path = make_clip(tmp_path / "whole.ts", *LOSSLESS)
    cut = tmp_path / "cut.ts"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    expected = frames_of(cut)
    assert 2 <= len(expected) < 10
    assert len(frames_of(degrade(cut, "blur", 1.5))) == len(expected)
    assert len(frames_of(degrade(cut, "h264", 35))) == len(expected)


def test_a_frame_is_kept_of_a_video_with_fewer_frames_than_it_states(clip, degrade, monkeypatch):
    name = "jdfd_keras.datasets.synthetic.video_degradations.choose_kept_frames"
    monkeypatch.setattr(name, lambda *_, **__: np.array([NUM_FRAMES + 5]))
    assert [file.name for file in degrade(clip, "frame-drop", 0.9)] == ["000019.png"]


@pytest.mark.parametrize("name, strength", [("h264", 23), ("blur", 1.5), ("frame-drop", 0.5)])
def test_broken_files_and_limits_are_errors_that_name_the_file(
    clip, degrade, tmp_path, name, strength
):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video " * 99)
    with pytest.raises(UnreadableFileError, match=r"broken\.mp4"):
        degrade(broken, name, strength)
    with pytest.raises(UnreadableFileError, match=r"at most 1000 pixels per frame; got .*clip"):
        degrade(clip, name, strength, limits=LimitOptions(max_pixels=1000))
    with pytest.raises(FileNotFoundError, match="missing.mp4"):
        degrade(tmp_path / "missing.mp4", name, strength)
    with pytest.raises(ValueError, match=f"for {name}.*got 99"):
        degrade(clip, name, 99)
