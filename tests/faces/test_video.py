"""Every kind of video that people have, against an independent decode by the ffmpeg command."""

import gc
import itertools
import os
import pickle
import re
import subprocess
import sys
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from jdfd_keras.faces import packets, pixels, video
from jdfd_keras.faces.decode import open_media, read_frames
from jdfd_keras.faces.media import (
    UnreadableFileError,
    error_code,
    open_file,
    sample_frame_indices,
)
from jdfd_keras.options import LimitOptions
from tests.faces.media_files import decode_with_ffmpeg, make_clip, run_ffmpeg

SHORT = "testsrc2=size=160x120:rate=25:duration=0.4"  # 10 frames
SECOND = "testsrc2=size=160x120:rate=25:duration=1"
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
COPY = ("-c", "copy")
BWDIF = ("-vf", "bwdif=mode=send_frame:deint=interlaced")


def read(path, count=100, *, every=0, **limits):
    """Return the frames, information and warnings of a file."""
    with open_media(path, LimitOptions(**limits)) as media:
        return list(media.read(count, every=every)), media.info, media.warnings


def decode(path, *arguments, **options):
    return decode_with_ffmpeg(path, *arguments, scaler="bicubic", **options)


def check_pixels(frames, expected):
    """The same, but for the rounding of decoders on other processors."""
    assert len(frames) == len(expected)
    for frame, pixels_of_ffmpeg in zip(frames, expected, strict=True):
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.flags.c_contiguous
        assert frame.pixels.shape == pixels_of_ffmpeg.shape
        np.testing.assert_allclose(frame.pixels.astype(int), pixels_of_ffmpeg, atol=2)


def check_close(frames, expected, mean=2.0):
    """Equal but for a few pixels, where versions of a filter differ."""
    for frame, pixels_of_ffmpeg in zip(frames, expected, strict=True):
        assert frame.pixels.shape == pixels_of_ffmpeg.shape
        assert np.abs(frame.pixels.astype(int) - pixels_of_ffmpeg).mean() < mean


def error_of(path, **limits):
    with pytest.raises(UnreadableFileError) as caught:
        read(path, **limits)
    return str(caught.value)


# --- interlaced


INTERLACED = {
    "h264.mp4": X264,
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-q:v", 2, "-pix_fmt", "yuv420p"),
    "dv.avi": ("-c:v", "dvvideo", "-pix_fmt", "yuv420p"),
    "prores.mov": ("-c:v", "prores_ks", "-pix_fmt", "yuv422p10le"),
    "h264.mts": (*X264, "-f", "mpegts", "-mpegts_m2ts_mode", 1),
}


@pytest.mark.parametrize("name", INTERLACED)
def test_an_interlaced_clip_after_a_progressive_one_gives_its_own_frames_deinterlaced(
    tmp_path, name
):
    size, order = ("720x576", "bff") if name == "dv.avi" else ("320x240", "tff")
    other = make_clip(tmp_path / "other.mp4", *X264, source=f"color=red:size={size}:duration=0.4")
    moving = f"testsrc2=size={size}:rate=50:duration=0.4,interlace=scan={order}"
    options = (*INTERLACED[name], "-flags", "+ilme+ildct")
    path = make_clip(tmp_path / name, *options, source=moving)
    assert read(other)[2] == []
    frames, info, warnings = read(path)
    combed, shown = decode(path), decode(path, *BWDIF)
    assert np.abs(combed.astype(int) - shown).mean() > 0.5  # otherwise the test proves nothing
    check_close(frames, shown, mean=0.1)
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(len(shown)) / 25)
    assert info.interlaced
    number = len(frames)
    assert warnings == [f"interlaced video: {number} of {number} sampled frames deinterlaced"]
    sampled, _, warnings = read(path, 3)
    assert [frame.index for frame in sampled] == sample_frame_indices(number, 3).tolist()
    for frame in sampled:
        np.testing.assert_array_equal(frame.pixels, frames[frame.index].pixels)
    assert warnings == ["interlaced video: 3 of 3 sampled frames deinterlaced"]


def test_progressive_frames_among_interlaced_ones_are_not_changed(tmp_path):
    parts = [
        make_clip(tmp_path / "a.h264", *X264, source="testsrc2=size=320x240:rate=25:duration=0.2"),
        make_clip(
            tmp_path / "b.h264",
            *(*X264, "-flags", "+ilme+ildct"),
            source="testsrc2=size=320x240:rate=50:duration=0.2,interlace=scan=tff",
        ),
        make_clip(tmp_path / "c.h264", *X264, source="testsrc2=size=320x240:rate=25:duration=0.2"),
    ]
    (tmp_path / "mixed.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, info, warnings = read(tmp_path / "mixed.h264")
    expected = [decode(part) for part in (parts[0], parts[2])]
    check_pixels(frames[:5] + frames[10:], np.concatenate(expected))
    check_close(frames, decode(tmp_path / "mixed.h264", *BWDIF), mean=0.1)
    assert info.interlaced
    assert warnings[-1] == "interlaced video: 5 of 15 sampled frames deinterlaced"


def test_an_interlaced_video_may_change_its_size(tmp_path):
    parts = [
        make_clip(
            tmp_path / f"{size}.h264",
            *(*X264, "-flags", "+ilme+ildct"),
            source=f"testsrc2=size={size}:rate=50:duration=0.2,interlace=scan=tff",
        )
        for size in ("320x240", "176x144")
    ]
    (tmp_path / "both.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, _, warnings = read(tmp_path / "both.h264")
    assert len(frames) == 10
    check_close(frames[:5], decode(parts[0], *BWDIF), mean=0.1)
    check_close(frames[5:], decode(parts[1], *BWDIF), mean=0.2)
    assert warnings[-1] == "interlaced video: 10 of 10 sampled frames deinterlaced"


# --- codecs, pixel formats and colours


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
def test_av1_is_decoded(tmp_path, suffix, pixel_format):
    options = ("-c:v", "libsvtav1", "-preset", 12, "-svtav1-params", "lp=1")
    path = make_clip(tmp_path / f"clip.{suffix}", *options, "-pix_fmt", pixel_format, source=SHORT)
    frames, info, warnings = read(path)
    check_pixels(frames, decode(path))
    assert (info.container, info.codec, info.pixel_format) == (suffix, "av1", pixel_format)
    assert warnings == []


# FFmpeg 8 and 9 differ in the position of the chroma samples by half a pixel, which shows at edges.
SMOOTH = ("-vf", "gblur=sigma=12")
FULL = ("-vf", "scale=out_range=full", "-color_range", "pc")
BT709 = (
    *("-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709"),
    *("-color_primaries", "bt709", "-color_trc", "bt709"),
)


@pytest.mark.parametrize(
    ("name", "options", "pixel_format", "colour"),
    [
        ("full.mp4", (*X264, *FULL, "-pix_fmt", "yuvj420p"), "yuvj420p", "full"),
        ("hd.mp4", (*X264, *BT709), "yuv420p", "bt709"),
        ("422.mov", ("-c:v", "prores_ks", "-pix_fmt", "yuv422p10le"), "yuv422p10le", "limited"),
        ("444.mp4", ("-c:v", "libx264", "-pix_fmt", "yuv444p"), "yuv444p", ""),
        ("10.mp4", ("-c:v", "libx264", "-pix_fmt", "yuv420p10le", *SMOOTH), "yuv420p10le", ""),
        ("alpha.mov", ("-c:v", "prores_ks", "-pix_fmt", "yuva444p10le"), "yuva444p12le", "limited"),
        ("rgb.mp4", ("-c:v", "libx264rgb", "-pix_fmt", "rgb24"), "gbrp", "gbr"),
        ("grey.mkv", ("-c:v", "ffv1", "-pix_fmt", "gray"), "gray", "full"),
        ("grey16.mkv", ("-c:v", "ffv1", "-pix_fmt", "gray16le"), "gray16le", "full"),
        ("palette.avi", ("-c:v", "msrle", "-pix_fmt", "pal8"), "pal8", ""),
        ("motion.avi", ("-c:v", "mjpeg"), "yuvj420p", "full"),
    ],
)
def test_matrix_range_and_pixel_format_are_honoured(tmp_path, name, options, pixel_format, colour):
    path = make_clip(tmp_path / name, *options, source=SHORT)
    frames, info, _ = read(path)
    check = check_close if name == "10.mp4" else check_pixels
    check(frames, decode(path))
    assert info.pixel_format == pixel_format
    assert colour in info.colour if colour else info.colour == ""


@pytest.mark.parametrize("matrix", ["bt709", "bt470bg"])
@pytest.mark.parametrize("is_full", [False, True])
def test_a_tagged_grey_and_a_tagged_red_have_their_levels(tmp_path, matrix, is_full):
    scale = f"scale=out_color_matrix={matrix}:out_range={'full' if is_full else 'limited'}"
    tags = ("-colorspace", matrix, "-color_range", "pc" if is_full else "tv")
    for name, level in [("0x808080", (128, 128, 128)), ("0xC81E1E", (200, 30, 30))]:
        path = make_clip(
            tmp_path / f"{name}.mp4",
            *(*X264, "-vf", scale, *tags, "-frames:v", 1, "-qp", 1),
            source=f"color={name}:size=64x48",
        )
        (frame,), _, _ = read(path)
        np.testing.assert_allclose(frame.pixels[24, 32], level, atol=5)


@pytest.mark.parametrize("pixel_format", ["nv12", "gray10le", "yuv411p", "yuv440p"])
def test_two_threads_convert_pictures_with_one_converter(pixel_format):
    """FFmpeg crashes if they use its tables at the same time, so this is another process."""
    program = """
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
import av, numpy as np
from jdfd_keras.faces.pixels import PixelConverter
noise = np.random.default_rng(0).integers(0, 255, (2, 360, 642, 3), dtype=np.uint8)
noise = [av.VideoFrame.from_ndarray(pixels, format="rgb24") for pixels in noise]
pictures = [frame.reformat(format=sys.argv[1]) for frame in noise]
expected = [PixelConverter().convert(picture, Fraction(1)) for picture in pictures]
converter = PixelConverter()
with ThreadPoolExecutor(2) as threads:
    for _ in range(150):
        found = threads.map(lambda picture: converter.convert(picture, Fraction(1)), pictures)
        np.testing.assert_array_equal(list(found), expected)
"""
    subprocess.run([sys.executable, "-c", program, pixel_format], check=True, timeout=120)


@pytest.mark.slow  # the tables of the conversion take a second or two for each file
@pytest.mark.parametrize(("transfer", "name"), [("arib-std-b67", "HLG"), ("smpte2084", "PQ")])
def test_hdr_is_converted_to_the_picture_that_it_was_made_of(tmp_path, astronaut, transfer, name):
    pixels_of_sdr = astronaut[::2, ::2]
    to_hdr = (
        "zscale=matrixin=bt709:primariesin=bt709:transferin=bt709:rangein=full:matrix=bt2020nc:"
        f"primaries=bt2020:transfer={transfer}:range=limited:npl=203,format=yuv420p10le"
    )
    tags = f"pools=1:crf=4:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    path = make_clip(
        tmp_path / "hdr.mp4",
        *("-vf", to_hdr, "-c:v", "libx265", "-x265-params", tags),
        source=pixels_of_sdr[None],
    )
    (frame,), info, warnings = read(path)
    assert info.colour == f"bt2020nc/bt2020/{transfer}, limited"
    assert warnings == [f"HDR video ({name}): converted to SDR"]
    # ffmpeg's zscale and tonemap=clip come to a mean of 2.8 and 2.9; the plain decode to 21 and 36.
    assert np.abs(frame.pixels.astype(int) - pixels_of_sdr).mean() < 5
    to_sdr = "scale=out_primaries=bt709:out_transfer=bt709:out_color_matrix=bt709"
    check_close([frame], decode(path, "-vf", to_sdr), mean=2.5)


def test_colours_that_ffmpeg_cannot_convert_are_named(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", *X264, source=SHORT)
    tag = ("-bsf:v", "h264_metadata=matrix_coefficients=8")
    tagged = make_clip(tmp_path / "ycgco.mp4", *COPY, *tag, source=path)
    assert "ycgco" in error_of(tagged)


# --- geometry


@pytest.mark.parametrize(
    ("aspect", "shape"), [("64/45", (120, 228, 3)), ("8/9", (135, 160, 3)), ("1", (120, 160, 3))]
)
def test_pixels_are_made_square(tmp_path, aspect, shape):
    squeezed = ("-c:v", "libx264", "-pix_fmt", "yuv444p", "-vf", f"gblur=2,setsar={aspect}")
    path = make_clip(tmp_path / "clip.mkv", *squeezed, source=SHORT)
    frames, info, warnings = read(path, 2)
    assert [frame.pixels.shape for frame in frames] == [shape] * 2
    expected = decode(path, "-vf", f"scale={shape[1]}:{shape[0]},setsar=1")
    check_close(frames, expected[[frame.index for frame in frames]], mean=1)
    assert info.sample_aspect_ratio == ("" if aspect == "1" else aspect.replace("/", ":"))
    assert (info.width, info.height) == (160, 120)
    assert warnings == []


def test_the_aspect_ratio_of_the_header_has_priority(tmp_path):
    path = make_clip(tmp_path / "a.mp4", *X264, "-vf", "setsar=4/3", source=SHORT)
    changed = make_clip(tmp_path / "b.mkv", *COPY, "-aspect", "160:60", source=path)
    assert read(path, 1)[0][0].pixels.shape == (120, 213, 3)
    assert read(changed, 1)[0][0].pixels.shape == (120, 320, 3)


def test_a_raw_dv_file_has_the_aspect_ratio_of_its_frames(tmp_path):
    source = "testsrc2=size=720x576:rate=25:duration=0.08,setdar=4/3"
    path = make_clip(tmp_path / "tape.dv", "-c:v", "dvvideo", "-pix_fmt", "yuv420p", source=source)
    frames, info, _ = read(path)
    assert {frame.pixels.shape for frame in frames} == {(576, 768, 3)}
    assert (info.container, info.sample_aspect_ratio) == ("dv", "16:15")


@pytest.mark.parametrize("aspect", ["100/1", "1/100"])
def test_an_absurd_aspect_ratio_is_ignored_with_a_warning(tmp_path, aspect):
    path = make_clip(tmp_path / "clip.mkv", *X264, "-vf", f"setsar={aspect}", source=SHORT)
    frames, _, (warning,) = read(path)
    assert frames[0].pixels.shape == (120, 160, 3)
    assert warning.startswith("implausible aspect ratio of pixels")


ORIENTATIONS = {
    (): "",
    ("-display_rotation", 90): "rotated by 270 degrees",
    ("-display_rotation", 180): "rotated by 180 degrees",
    ("-display_rotation", 270): "rotated by 90 degrees",
    ("-display_hflip",): "mirrored",
    ("-display_rotation", 90, "-display_hflip"): "rotated by 270 degrees and mirrored",
    ("-display_vflip",): "rotated by 180 degrees and mirrored",
    ("-display_rotation", 270, "-display_hflip"): "rotated by 90 degrees and mirrored",
}


@pytest.mark.parametrize("options", ORIENTATIONS, ids=lambda options: " ".join(map(str, options)))
def test_the_display_matrix_is_applied(tmp_path, options):
    path = make_clip(tmp_path / "m.mp4", *X264, source=SHORT)
    turned = make_clip(tmp_path / "turned.mov", *COPY, source=path, before=options)
    frames, info, warnings = read(turned)
    check_pixels(frames, decode(turned))
    assert warnings == []
    if len(options) == 3:  # ffmpeg mirrors before or after it rotates
        assert "mirrored" in info.orientation
    else:
        assert info.orientation == ORIENTATIONS[options]


def test_orientations_are_described_as_they_are_shown(monkeypatch):
    shown = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for is_swapped, left, up in itertools.product([False, True], repeat=3):
        monkeypatch.setattr(pixels, "_orientation", lambda _, o=(is_swapped, left, up): o)
        text = pixels.describe_orientation(av.VideoFrame(2, 2))
        degrees = int(text.split()[2]) if "rotated" in text else 0
        expected = np.rot90(shown, -degrees // 90)
        expected = expected[:, ::-1] if "mirrored" in text else expected
        np.testing.assert_array_equal(pixels._turn(shown, is_swapped, left, up), expected)


@pytest.mark.parametrize("name", ["call.ts", "call.h264"])
def test_each_frame_has_its_own_size(tmp_path, name):
    codec = X264 if name.endswith("h264") else ("-c:v", "mpeg2video", "-bf", 0)
    suffix = name.partition(".")[2]
    wide = make_clip(tmp_path / f"a.{suffix}", *codec, source=SHORT)
    tall = make_clip(
        tmp_path / f"b.{suffix}", *codec, source="testsrc2=size=96x176:rate=25:duration=0.4"
    )
    (tmp_path / name).write_bytes(wide.read_bytes() + tall.read_bytes())
    frames, info, warnings = read(tmp_path / name)
    expected = [*decode(wide), *decode(tall)]
    if suffix == "ts":  # FFmpeg 8 keeps one frame back and loses it when the size changes
        del expected[9]
        expected = expected[: len(frames)]
    check_pixels(frames, expected)
    assert {frame.pixels.shape[:2] for frame in frames} == {(120, 160), (176, 96)}
    assert np.diff([frame.time_s for frame in frames]) == pytest.approx(1 / 25)
    assert (info.width, info.height) == (160, 120)
    assert warnings == ["no usable frame times: computed from 25 frames per second"]


# --- times and damage


def test_frames_that_all_have_the_same_time_are_all_sampled(tmp_path):
    whole = make_clip(tmp_path / "whole.mkv", "-c:v", "mpeg4", source=SHORT)
    path = make_clip(tmp_path / "a.mkv", *COPY, "-bsf:v", "setts=ts=0", source=whole)
    frames, info, warnings = read(path)
    check_pixels(frames, decode(whole))
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(10) / 25)
    assert info.num_frames == 10
    assert warnings == ["no usable frame times: computed from 25 frames per second"]


@pytest.mark.parametrize("suffix", ["mkv", "nut", "wmv"])
def test_the_time_before_a_late_start_is_not_a_part_of_the_duration(tmp_path, suffix):
    late = make_clip(
        tmp_path / f"late.{suffix}", "-c:v", "mpeg4", "-output_ts_offset", 30, source=SECOND
    )
    frames, info, warnings = read(late)
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(25) / 25, abs=0.002)
    assert info.duration_s == pytest.approx(1, abs=0.05)
    assert warnings == []


def test_repeated_frames_of_an_avi_file_are_not_missing(tmp_path):
    whole = make_clip(tmp_path / "whole.mp4", *X264, "-bf", 2, source=SECOND)
    late = make_clip(tmp_path / "late.avi", *COPY, "-output_ts_offset", 10, source=whole)
    frames, _, warnings = read(late)
    assert len(frames) == 25 and warnings == []
    late.write_bytes(late.read_bytes()[: late.stat().st_size * 3 // 10])
    assert "cut short or damaged" in read(late)[2][0]


@pytest.mark.parametrize("suffix", ["mov", "mp4", "mkv", "ts"])
def test_a_losslessly_trimmed_clip_is_whole_and_starts_at_0(tmp_path, suffix):
    path = make_clip(tmp_path / "whole.mp4", *X264, "-g", 20, source=SECOND)
    trimmed = make_clip(tmp_path / f"trimmed.{suffix}", *COPY, source=path, before=("-ss", 0.5))
    frames, info, warnings = read(trimmed)
    expected = decode(trimmed)
    check_pixels(frames, expected)
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(len(expected)) / 25)
    assert warnings == []
    assert info.num_frames == len(expected)
    assert info.duration_s == pytest.approx(len(expected) / 25, abs=0.1)


def test_times_that_begin_late_are_counted_from_the_start(tmp_path):
    path = make_clip(tmp_path / "a.mp4", *X264, source=SHORT)
    late = make_clip(
        tmp_path / "late.mp4", *COPY, "-copyts", source=path, before=("-itsoffset", 30)
    )
    assert av.open(str(late)).start_time == 30e6  # otherwise the test proves nothing
    frames, info, warnings = read(late)
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(10) / 25)
    assert info.duration_s == pytest.approx(0.4)
    assert warnings == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "flv"])
@pytest.mark.parametrize("offset_s", [0, 1])
def test_a_video_beside_longer_audio_is_whole_and_keeps_its_offset(tmp_path, suffix, offset_s):
    path = make_clip(tmp_path / "a.mp4", *X264, source=SHORT)
    both = tmp_path / f"both.{suffix}"
    run_ffmpeg(
        *("-itsoffset", offset_s, "-i", path, "-f", "lavfi", "-i", "sine=duration=4"),
        *("-map", 0, "-map", 1, "-c:v", "copy", "-c:a", "aac", both),
    )
    frames, info, warnings = read(both)
    times_s = [frame.time_s for frame in frames]
    assert times_s == pytest.approx(offset_s + np.arange(10) / 25, abs=0.03)
    assert info.duration_s == pytest.approx(4, abs=0.1)
    assert warnings == []


def test_a_variable_frame_rate_is_no_damage(tmp_path):
    times_s = np.array([0, 1, 2, 3, 40, 41, 60, 61, 62]) / 25  # a still picture for 1.5 s
    shown = "+".join(f"eq(n,{round(25 * time_s)})" for time_s in times_s)
    options = (*X264, "-vf", f"select='{shown}'", "-fps_mode", "vfr")
    for suffix in ("mp4", "mkv"):
        path = make_clip(
            tmp_path / f"vfr.{suffix}",
            *options,
            source="testsrc2=size=160x120:rate=25:duration=3",
        )
        frames, _, warnings = read(path)
        assert [frame.time_s for frame in frames] == pytest.approx(times_s, abs=0.001)
        assert warnings == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "flv"])
def test_a_video_of_one_frame_is_whole(tmp_path, suffix):
    codec = ("-c:v", "flv1") if suffix == "flv" else X264
    path = make_clip(tmp_path / f"one.{suffix}", *codec, "-frames:v", 1, source=SHORT)
    frames, info, warnings = read(path)
    assert [(frame.index, frame.time_s) for frame in frames] == [(0, 0.0)]
    assert (info.num_frames, warnings) == (1, [])


def test_a_recording_that_begins_between_key_frames_says_so(tmp_path):
    path = make_clip(tmp_path / "whole.ts", *X264, "-g", 25, source=SECOND + ",loop=2:25")
    data = path.read_bytes()
    start = len(data) // 188 // 8 * 188
    (tmp_path / "tuned_in.ts").write_bytes(data[start:])
    frames, _, (warning,) = read(tmp_path / "tuned_in.ts")
    assert frames[0].index == 0
    assert 0 < frames[0].time_s < 1
    expected = f"no frame of the first {frames[0].time_s:.2f} s"
    assert warning == f"damaged or begins between key frames: {expected}"


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_file_that_was_cut_short_says_so(tmp_path, suffix):
    source = "nullsrc=size=160x120:rate=25:duration=1,geq=random(1)*255:128:128"
    path = make_clip(
        tmp_path / f"whole.{suffix}", *X264, "-bf", 0, "-movflags", "+faststart", source=source
    )
    data = path.read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) // 2])
    frames, _, (warning,) = read(tmp_path / f"cut.{suffix}")
    assert 8 < len(frames) < 15
    assert warning.startswith(f"cut short or damaged: {len(frames)} frames decode, up to")
    assert warning.endswith("of 1.00 s")
    check_pixels(frames[:-1], decode(path)[: len(frames) - 1])


@pytest.mark.parametrize("every", [0, 1, 4])
def test_corrupt_and_unreadable_frames_are_skipped_and_none_is_given_twice(
    tmp_path, monkeypatch, every
):
    path = make_clip(tmp_path / "clip.mp4", *X264, "-g", 1, source=SECOND)
    whole, _, _ = read(path)
    decode_packet = video.VideoStream.decode

    class Broken:  # stands for the stream; a C type cannot be patched
        def __init__(self, stream):
            self.stream = stream

        def __getattr__(self, name):
            return getattr(self.stream, name)

        def decode(self, packet):
            if packet and 5 <= packet.pts // packet.duration < 15:
                raise av.error.InvalidDataError(1, "patched")
            return decode_packet(self.stream, packet)

    read_packets = video.read_packets
    choose = video.VideoReader._choose_stream
    monkeypatch.setattr(video, "read_packets", lambda c, s: read_packets(c, s.stream))
    monkeypatch.setattr(
        video, "scan_packets", lambda c, s, scan=video.scan_packets: scan(c, s.stream)
    )
    monkeypatch.setattr(
        video.VideoReader, "_choose_stream", lambda self, c: Broken(choose(self, c))
    )
    frames, _, warnings = read(path, 5, every=every)
    original = [frame.index if frame.index < 5 else frame.index + 10 for frame in frames]
    # The frames 7, 12, 17 and 22 of 25 are sampled; the next ones that decode stand for two.
    expected = [2, 15, 16, 17, 22] if not every else [*range(5), *range(15, 25)][::every]
    assert original == expected
    for frame, index in zip(frames, original, strict=True):
        np.testing.assert_array_equal(frame.pixels, whole[index].pixels)
        assert frame.time_s == whole[index].time_s
    assert warnings == ["damaged: no frame decodes for 0.44 s of 1.00 s"]


# --- kinds of files


@pytest.mark.parametrize(
    ("name", "options", "container", "codec"),
    [
        ("a.h264", X264, "h264", "h264"),
        ("a.hevc", ("-c:v", "libx265", "-x265-params", "pools=1"), "hevc", "hevc"),
        ("a.m2v", ("-c:v", "mpeg2video"), "mpegvideo", "mpeg2video"),
        ("a.m4v", ("-c:v", "mpeg4", "-f", "m4v"), "m4v", "mpeg4"),
        ("a.ivf", ("-c:v", "libvpx"), "ivf", "vp8"),
        ("a.flv", ("-c:v", "flv1"), "flv", "flv1"),
        ("a.wmv", ("-c:v", "wmv2"), "asf", "wmv2"),
        ("a.ogv", ("-c:v", "libtheora"), "ogg", "theora"),
        ("a.mxf", ("-c:v", "mpeg2video"), "mxf", "mpeg2video"),
        ("a.y4m", ("-pix_fmt", "yuv420p"), "yuv4mpegpipe", "rawvideo"),
        ("a.webm", ("-c:v", "libvpx-vp9", "-cpu-used", 8), "webm", "vp9"),
        ("a.avi", ("-c:v", "libx264", "-bf", 2, "-pix_fmt", "yuv420p"), "avi", "h264"),
        ("a.vob", ("-c:v", "mpeg2video"), "mpeg", "mpeg2video"),
    ],
)
def test_containers_are_read_whatever_their_name(tmp_path, name, options, container, codec):
    path = make_clip(tmp_path / name, *options, source=SHORT)
    path = path.rename(tmp_path / "noname.bin")
    frames, info, warnings = read(path)
    check_pixels(frames, decode(path))
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(10) / 25, abs=0.001)
    assert (info.container, info.codec, info.num_frames) == (container, codec, 10)
    assert info.frame_rate == pytest.approx(25)
    raw = ["no usable frame times: computed from 25 frames per second"]
    assert warnings == (raw if container in ("h264", "hevc") else [])


def test_facts_are_those_of_the_file(tmp_path):
    path = make_clip(tmp_path / "a.mov", *X264, *BT709, source=SECOND)
    _, info, _ = read(path, 1)
    assert (info.container, info.codec, info.pixel_format) == ("mov", "h264", "yuv420p")
    assert (info.width, info.height, info.frame_rate, info.num_frames) == (160, 120, 25.0, 25)
    assert info.duration_s == pytest.approx(1)
    assert info.bit_rate == pytest.approx(8 * path.stat().st_size, abs=1)
    assert info.colour.startswith("bt709/")
    assert (info.interlaced, info.orientation, info.sample_aspect_ratio) == (False, "", "")
    assert info.encoder.startswith("x264 core ")


@pytest.mark.parametrize(
    ("name", "options", "encoder"),
    [
        ("a.mp4", ("-c:v", "libx265", "-x265-params", "pools=1"), "x265 (build "),
        ("a.mp4", ("-c:v", "mpeg4", "-metadata:s:v", "encoder=Own"), "Own"),
        ("a.avi", ("-c:v", "mjpeg", "-fflags", "+bitexact"), ""),
        ("a.flv", ("-c:v", "flv1"), "Lavf"),
    ],
)
def test_the_encoder_is_what_the_file_states(tmp_path, name, options, encoder):
    _, info, _ = read(make_clip(tmp_path / name, *options, source=SHORT), 1)
    assert info.encoder.startswith(encoder)
    assert bool(info.encoder) == bool(encoder)


def test_phone_tags_are_the_encoder(tmp_path):
    tags = {"make": "Apple", "model": "iPhone 15", "software": "17.1"}
    options = [f"com.apple.quicktime.{key}={value}" for key, value in tags.items()]
    path = make_clip(
        tmp_path / "a.mov",
        *("-c:v", "mjpeg", "-fflags", "+bitexact", "-movflags", "use_metadata_tags"),
        *itertools.chain.from_iterable(("-metadata", option) for option in options),
        source=SHORT,
    )
    assert read(path, 1)[1].encoder == "Apple iPhone 15 17.1"


@pytest.mark.parametrize("name", ["Zoom: call.mp4", "12:30.mp4", "http: a.mp4", "a%03d.mp4"])
def test_any_name_is_a_name(tmp_path, monkeypatch, name):
    path = make_clip(tmp_path / name, *X264, source=SHORT)
    monkeypatch.chdir(tmp_path)
    assert len(list(read_frames(name, 3))) == len(list(read_frames(path, 3))) == 3


def test_of_two_video_streams_the_best_is_analysed_with_a_warning(tmp_path):
    path = make_clip(
        tmp_path / "two.mkv",
        *("-map", "0:v", "-map", "0:v", "-c:v:0", "mpeg4", "-s:v:0", "80x60"),
        *("-c:v:1", "libx264", "-pix_fmt:v:1", "yuv420p", "-disposition:v:0", 0),
        source=SHORT,
    )
    frames, _, warnings = read(path)
    check_pixels(frames, decode(path, "-map", "0:v:1"))
    assert warnings == ["2 video streams: only number 2 is analysed"]


@pytest.mark.parametrize("suffix", ["mp3", "m4a", "flac", "mka", "ogg"])
@pytest.mark.parametrize("has_cover", [False, True])
def test_an_audio_file_is_not_a_video(tmp_path, suffix, has_cover):
    path = tmp_path / f"song.{suffix}"
    sound, cover = ("-f", "lavfi", "-i", "sine=duration=1"), ()
    if has_cover and suffix in ("mp3", "m4a", "flac"):
        shown = "color=size=64x64:duration=0.04"
        cover = ("-f", "lavfi", "-i", shown, "-map", 0, "-map", 1)
        cover += ("-c:v", "mjpeg", "-frames:v", 1, "-disposition:v:0", "attached_pic")
    run_ffmpeg(*sound, *cover, path)
    expected = " (its cover picture is not analysed)" if cover else ""
    assert error_of(path) == (
        f"Expected a video or image; got {path}, an audio file{expected}. Check the path."
    )


def test_a_codec_without_a_decoder_and_an_encrypted_video_are_named(tmp_path):
    path = make_clip(tmp_path / "a.mp4", *X264, source=SHORT)
    unknown = tmp_path / "unknown.mp4"
    unknown.write_bytes(path.read_bytes().replace(b"avc1\0\0", b"zzz1\0\0"))
    assert "a codec without a decoder: zzz1" in error_of(unknown)
    key, key_id = "76a6c65c5ea762046bd749a2e632ccbb", "a7e61c373e219033c21091fa607bf3b8"
    protection = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", key)
    locked = make_clip(
        tmp_path / "locked.mp4", *X264, *protection, "-encryption_kid", key_id, source=SHORT
    )
    assert "encrypted (DRM)" in error_of(locked)


def test_a_video_without_a_decodable_frame_is_refused_with_the_reason(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "a.mp4", *X264, source=SHORT)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start : start + 4000] = bytes(4000)
    path.write_bytes(data)
    assert "has no frame that decodes: Invalid data" in error_of(path)


# --- limits, isolation


@pytest.mark.parametrize("threads", [1, 2])
def test_frames_beyond_the_pixel_limit_are_refused_also_in_mid_video(
    tmp_path, monkeypatch, threads
):
    monkeypatch.setattr(video.cv2, "getNumThreads", lambda: threads)
    small = make_clip(tmp_path / "a.h264", *X264, source=SHORT)
    large = make_clip(
        tmp_path / "b.h264", *X264, source="testsrc2=size=320x240:rate=25:duration=0.4"
    )
    limit = f"Expected at most 30000 pixels per frame; got {large}, which has 320 x 240 (76800)."
    assert error_of(large, max_pixels=30000) == (
        f"{limit} Try a smaller copy, or --max-pixels 76800."
    )
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    assert "320 x 240 (76800). Try a smaller copy, or --max-pixels 76800." in error_of(
        both, max_pixels=30000
    )
    assert len(read(both, max_pixels=76800)[0]) == len(read(both, max_pixels=0)[0]) == 20


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.webm", ("-c:v", "libvpx-vp9")),
        ("a.avi", ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p")),
        ("a.mkv", ("-c:v", "mpeg4")),
        ("a.wmv", ("-c:v", "wmv2")),
        ("a.ogv", ("-c:v", "libtheora")),
        ("a.mov", ("-c:v", "qtrle")),
    ],
)
def test_decoders_that_forget_a_size_beyond_the_limit_are_refused_by_number(
    tmp_path, name, options
):
    large = "testsrc2=size=1280x1024:rate=25:duration=0.08"
    path = make_clip(tmp_path / name, *options, source=large)
    for limit in (30000, 1310719):
        assert error_of(path, max_pixels=limit).endswith(
            "which has 1280 x 1024 (1310720). Try a smaller copy, or --max-pixels 1310720."
        )
    assert len(read(path, max_pixels=1310720)[0]) == 2
    small = make_clip(tmp_path / f"small-{name}", *options, source=SHORT)
    assert len(read(small, max_pixels=19200)[0]) == 10


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("codec", ["libvpx-vp9", "mjpeg"])
def test_a_size_that_a_decoder_forgets_in_mid_video_is_refused_by_number(
    tmp_path, monkeypatch, codec, threads
):
    monkeypatch.setattr(video.cv2, "getNumThreads", lambda: threads)
    for name, size in (("small.mkv", "160x120"), ("large.mkv", "1280x1024")):
        source = f"testsrc2=size={size}:rate=25:duration=0.08"
        make_clip(tmp_path / name, "-c:v", codec, "-pix_fmt", "yuvj420p", source=source)
    (tmp_path / "list.txt").write_text("file small.mkv\nfile large.mkv\n")
    both = make_clip(
        tmp_path / "both.mkv", *COPY, source=tmp_path / "list.txt", before=("-f", "concat")
    )
    assert "which has 1280 x 1024 (1310720)." in error_of(both, max_pixels=30000)
    assert len(read(both, max_pixels=1310720)[0]) == 4


def test_the_decoder_itself_keeps_the_pixel_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(video.VideoReader, "_check_size", lambda *_: None)
    large = "testsrc2=size=1280x1024:rate=25:duration=0.08"  # decoders have some room
    both = tmp_path / "both.h264"
    small = make_clip(tmp_path / "a.h264", *X264, source=SHORT).read_bytes()
    both.write_bytes(small + make_clip(tmp_path / "b.h264", *X264, source=large).read_bytes())
    frames, _, _ = read(both, max_pixels=30000)
    assert {frame.pixels.shape for frame in frames} == {(120, 160, 3)}


def test_the_pixel_limit_holds_for_the_enlarged_picture(tmp_path):
    path = make_clip(tmp_path / "a.mp4", *X264, "-vf", "setsar=4/1", source=SHORT)
    assert len(read(path, max_pixels=4 * 160 * 120)[0]) == 10
    assert "640 x 120 (76800)" in error_of(path, max_pixels=4 * 160 * 120 - 1)


LISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile {target}\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet '
    'mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("tail", [b"", b"\0" * 5000], ids=["plain", "with zero bytes"])
def test_a_list_of_files_is_refused_by_the_demuxer_that_was_chosen(tmp_path, kind, tail):
    target = make_clip(tmp_path / "secret.mp4", *X264, source=SHORT)
    path = tmp_path / "list.mp4"
    path.write_bytes(LISTS[kind].format(target=target.name).encode() + tail)
    assert "neither" in error_of(path)


def test_subtitles_are_no_video(tmp_path):
    (tmp_path / "a.mp4").write_text("1\n00:00:00,000 --> 00:00:02,000\nHello\n\n" * 3)
    assert av.open(str(tmp_path / "a.mp4")).format.name == "srt"  # FFmpeg would read it
    assert "neither" in error_of(tmp_path / "a.mp4")


OPENED = """
import sys
import av
from jdfd_keras.faces import video
from jdfd_keras.faces.decode import read_frames

path, guard = sys.argv[1:]
open_container = av.open

def open_with(file, mode, options, io_open, **others):
    return open_container(file, mode, options={guard: options[guard]}, **others)

av.open = open_with
try:
    print("frames", len(list(read_frames(path, 3))))
except OSError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("guard", ["format_whitelist", "protocol_whitelist"])
@pytest.mark.parametrize("kind", ["concat", "video"])
def test_no_other_file_is_opened_with_one_guard_alone(tmp_path, kind, guard):
    target = tmp_path / "secret.ts"
    os.mkfifo(target)  # who opens it to read waits until it is opened to be written
    path = tmp_path / "list.mp4"
    if kind == "video":
        make_clip(path, *X264, source=SHORT)
    else:
        path.write_text(LISTS[kind].format(target=target.name))
    command = [sys.executable, "-c", OPENED, str(path), guard]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=30,
        env=environment,
        check=False,
        cwd=tmp_path,
    )
    assert child.stdout.startswith("frames 3" if kind == "video" else "refused:"), child


def test_what_a_demuxer_asks_to_open_is_refused_by_name(tmp_path):
    (tmp_path / "list.m3u8").write_text(LISTS["hls"].format(target="secret.ts"))
    with (
        open(tmp_path / "list.m3u8", "rb") as file,
        pytest.raises(PermissionError, match="another file .*secret.ts.*, which is not opened"),
    ):
        av.open(file, format="hls", io_open=video._refuse_other_files)


def test_errors_of_the_consumer_are_its_own(tmp_path):
    path = make_clip(tmp_path / "a.mp4", *X264, source=SHORT)
    with open_file(path) as file:
        frames = video.VideoReader(file, LimitOptions()).read(3)
        next(frames)
        with pytest.raises(KeyError, match="mine"):
            frames.throw(KeyError("mine"))


@pytest.mark.parametrize("error", [IndexError("odd"), RuntimeError("odd"), OSError("odd")])
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, error):
    path = make_clip(tmp_path / "a.mp4", *X264, source=SHORT)

    def fail(*_):
        raise error

    monkeypatch.setattr(pixels.PixelConverter, "convert", fail)
    assert "cannot be decoded: odd" in error_of(path)


def test_a_lack_of_memory_is_not_a_fault_of_the_file(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "a.mp4", *X264, source=SHORT)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(pixels.PixelConverter, "convert", fail)
    with pytest.raises(MemoryError):
        read(path)


@pytest.mark.slow
def test_frames_are_freed_without_the_garbage_collector(tmp_path):
    path = make_clip(tmp_path / "a.mp4", "-c:v", "mpeg4", source=SECOND)
    turned = make_clip(tmp_path / "b.mp4", *COPY, source=path, before=("-display_rotation", 90))
    gc.collect()
    gc.disable()
    try:
        most = 0
        for _ in read_frames(turned, 1, every=1):
            most = max(most, sum(type(item) is av.VideoFrame for item in gc.get_objects()))
    finally:
        gc.enable()
    assert 1 <= most < 15


def test_a_clip_is_decoded_once(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "a.mp4", *X264, source=SECOND)
    decoded = []
    deinterlace = video.deinterlace
    monkeypatch.setattr(
        video, "deinterlace", lambda frames: deinterlace(decoded.append(f) or f for f in frames)
    )
    converted = []
    convert = pixels.PixelConverter.convert
    monkeypatch.setattr(
        pixels.PixelConverter,
        "convert",
        lambda self, *arguments: converted.append(1) or convert(self, *arguments),
    )
    assert len(read(path, 4)[0]) == 4
    assert (len(decoded), len(converted)) == (25, 4)


def test_the_ratio_of_sides_is_kept_to_a_pixel():
    for aspect in (Fraction(64, 45), Fraction(8, 9), Fraction(10, 11), Fraction(1, 8)):
        width, height = pixels.square_size(720, 480, aspect)
        assert width / height == pytest.approx(720 * aspect / 480, rel=0.002)
        assert width >= 720
        assert height >= 480


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", X264),
        ("a.avi", ("-c:v", "mjpeg")),
        ("a.webm", ("-c:v", "libvpx")),
        ("b.mp4", ("-c:v", "mpeg4")),
        ("b.mkv", ("-c:v", "libx264", "-pix_fmt", "yuv444p")),
    ],
)
def test_plain_clips_have_the_pixels_of_opencv(tmp_path, name, options):
    path = make_clip(tmp_path / name, *options, source=SHORT)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    expected = [capture.read()[1][..., ::-1] for _ in range(10)]
    capture.release()
    check_pixels(read(path)[0], expected)


def test_a_few_unreadable_frames_are_counted(tmp_path):
    path = make_clip(tmp_path / "a.avi", "-c:v", "mjpeg", source=SECOND)
    with av.open(str(path)) as container:
        chunks = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for index in (4, 9, 14, 19):
        position = chunks[index].pos
        assert data[position : position + 2] == b"\xff\xd8"
        data[position : position + chunks[index].size] = bytes(chunks[index].size)
    path.write_bytes(data)
    frames, _, warnings = read(path)
    kept = [index for index in range(25) if index not in (4, 9, 14, 19)]
    assert [frame.time_s for frame in frames] == pytest.approx(np.array(kept) / 25)
    assert [frame.index for frame in frames] == list(range(21))
    assert warnings == ["damaged: 4 of 25 frames do not decode"]


def test_frames_that_the_decoder_calls_corrupt_are_not_used(tmp_path):
    noise = "nullsrc=size=64x48:rate=25:duration=1,geq=random(1)*255:128:128"
    path = make_clip(tmp_path / "a.mp4", "-c:v", "mpeg4", "-q:v", 5, source=noise)
    data = bytearray(path.read_bytes())
    start, end = int(0.4 * len(data)), int(0.6 * len(data))
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    corrupt = set()
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                corrupt |= {frame.time for frame in packet.decode() if frame.is_corrupt}
            except av.error.InvalidDataError:
                continue
    assert corrupt
    assert not corrupt & {frame.time_s for frame in read(path)[0]}


def test_reading_goes_on_after_an_unreadable_packet(tmp_path):
    path = make_clip(tmp_path / "a.mp4", *X264, source=SHORT)

    class Container:  # stands for one whose demuxer fails between packets
        def __init__(self, container):
            self.container, self.calls = container, 0

        def demux(self, *streams):
            self.calls += 1
            for number, packet in enumerate(self.container.demux(*streams)):
                yield packet
                if number == 2 and self.calls < 3:
                    raise av.error.InvalidDataError(1, "patched")

    with av.open(str(path)) as container:
        assert len(list(packets.read_packets(Container(container)))) == 10


def test_metadata_of_another_encoding_cost_nothing(tmp_path):
    path = make_clip(
        tmp_path / "a.mov", "-c:v", "mjpeg", "-metadata", "title=Zuerich", source=SHORT
    )
    path.write_bytes(path.read_bytes().replace(b"Zuerich", b"Z\xfcrich\0"))
    assert len(read(path)[0]) == 10


def test_the_name_does_not_decide_the_format(tmp_path):
    path = tmp_path / "noise.m4v"
    path.write_bytes(np.random.default_rng(0).integers(1, 256, 5000, np.uint8).tobytes())
    assert "neither" in error_of(path)


# --- duration


DURATION = "Expected a video of at most 0.5 s; got"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", X264),
        ("a.mov", X264),
        ("a.mkv", X264),
        ("a.avi", ("-c:v", "mpeg4")),
        ("a.flv", ("-c:v", "flv1")),
    ],
)
def test_a_video_whose_header_states_too_long_a_duration_is_refused_at_once(
    tmp_path, monkeypatch, name, options
):
    path = make_clip(tmp_path / name, *options, source=SECOND)
    assert len(read(path, max_duration_s=1.1)[0]) == len(read(path)[0]) == 25
    monkeypatch.setattr(video, "scan_packets", None)
    monkeypatch.setattr(video, "read_packets", None)
    with pytest.raises(UnreadableFileError, match=rf"{DURATION} .*{name}, .* 1\.\d s") as caught:
        read(path, max_duration_s=0.5)
    assert caught.value.code == "too_long"
    assert re.search(r"Try a part of it, or --max-duration-s [12]\.", str(caught.value))


@pytest.mark.parametrize("name", ["a.h264", "a.ts", "a.mpg"])
def test_a_video_without_a_header_is_refused_by_its_packets_before_it_is_decoded(
    tmp_path, monkeypatch, name
):
    codec = ("-c:v", "mpeg2video") if name == "a.mpg" else X264
    path = make_clip(tmp_path / name, *codec, source=SECOND)
    assert len(read(path, max_duration_s=1.1)[0]) == 25
    monkeypatch.setattr(video.VideoReader, "_decode", None)
    assert DURATION in error_of(path, max_duration_s=0.5)


def test_a_header_that_states_too_short_a_duration_does_not_help(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "a.mp4", *X264, source=SECOND)
    monkeypatch.setattr(video, "stated_duration_s", lambda *_: 0.1)
    assert DURATION in error_of(path, max_duration_s=0.5)
    scan = packets.scan_packets

    def shorten(*arguments):  # as if there were fewer packets than frames
        found = scan(*arguments)
        found.end_s = 0.1
        return found

    monkeypatch.setattr(video, "scan_packets", shorten)
    frames = []
    with (
        pytest.raises(UnreadableFileError, match=DURATION),
        open_media(path, LimitOptions(max_duration_s=0.5)) as media,
    ):
        for frame in media.read(100, every=1):
            frames.append(frame.time_s)
    assert frames[-1] <= 0.5 < frames[-1] + 1 / 25


def test_a_reason_has_a_code(tmp_path):
    path = make_clip(tmp_path / "a.mp4", *X264, source=SHORT)
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    codes = {}
    for name, limits in [
        ("text.mp4", {}),
        ("empty.mp4", {}),
        ("a.mp4", {"max_pixels": 99}),
        ("a.mp4", {"max_duration_s": 0.1}),
        ("none.mp4", {}),
    ]:
        with pytest.raises(OSError) as caught:
            read(tmp_path / name, **limits)
        codes[name, *limits] = error_code(caught.value)
        # It comes from another process.
        assert error_code(pickle.loads(pickle.dumps(caught.value))) == codes[name, *limits]
    assert list(codes.values()) == [
        *("undecodable", "undecodable", "too_many_pixels", "too_long", "missing"),
    ]
    with pytest.raises(UnreadableFileError) as caught, open_media(path) as media:
        next(media.read(1))
        path.write_bytes(b"other")
    assert caught.value.code == "changed"
    assert error_code(MemoryError()) == "out_of_memory"
    assert error_code(PermissionError("a.mp4")) == error_code(ValueError("NaN")) == "internal"
