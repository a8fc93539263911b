"""A copy of a video has the sound of its source, at the same times."""

import re

import numpy as np
import pytest

from jdfd_keras.faces.overlay import ENCODINGS, write_overlay
from jdfd_keras.faces.sound import COPIED, ENCODERS, RATES
from tests.faces.media_files import FRAMES_PER_S, run_ffmpeg, times_of

RATE = 48_000  # samples per second
DURATION_S = 2.6
# A quiet tone, and a click at the start of each second from the first one on.
TONE = "0.1*sin(2*PI*220*t)"
CLICKS = f"if(gte(t\\,1)*lt(mod(t\\,1)\\,0.02)\\,sin(2*PI*1000*t)\\,{TONE})"
# Frames that are black, but white for 40 ms at each click.
IS_FLASH = "gte(t,1)*lt(mod(t,1),0.039)"
FLASHES = (
    f"color=black:size=64x48:rate={FRAMES_PER_S},"
    f"drawbox=color=white:thickness=fill:enable='{IS_FLASH}'"
)
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")


def keep_pixels(frames):
    return (frame.pixels for frame in frames)


def make_film(path, *sound, video=H264, before=(), extra=()):
    """Write flashes and clicks at the same times; `before` are options of the input of sound."""
    run_ffmpeg(
        *("-f", "lavfi", "-t", DURATION_S, "-i", FLASHES),
        *(*before, "-f", "lavfi", "-t", DURATION_S, "-i", f"aevalsrc={CLICKS}:s=44100"),
        *(*video, *sound, "-threads", 1, *extra, f"file:{path}"),
    )
    return path


def decode_sound(path):
    """Decode the sound with ffmpeg: float[n] at RATE from time 0, on the clock of the frames."""
    arguments = ("-vn", "-af", "aresample=async=1:first_pts=0", "-ac", 1, "-ar", RATE)
    return (
        np.frombuffer(run_ffmpeg("-i", f"file:{path}", *arguments, "-f", "s16le", "-"), "<i2")
        / 2**15
    )


def sound_codec(path):
    """Return the codec that ffmpeg states."""
    listed = run_ffmpeg("-i", f"file:{path}", "-vn", "-c", "copy", "-f", "framecrc", "-").decode()
    (codec,) = (line.split()[2] for line in listed.splitlines() if line.startswith("#codec_id"))
    return codec


def find_lag(sound, other):
    """Return the delay of a sound after another in seconds, and their correlation there."""
    size = 1 << int(len(sound) + len(other)).bit_length()
    product = np.fft.rfft(sound, size) * np.conj(np.fft.rfft(other, size))
    correlation = np.fft.irfft(product, size)
    delay = int(np.argmax(correlation))
    delay = delay if delay < size / 2 else delay - size
    norm = np.sqrt((sound**2).sum() * (other**2).sum())
    return delay / RATE, correlation.max() / norm


def times_of_clicks(path):
    """Return the times at which the sound becomes loud."""
    level = np.abs(decode_sound(path))
    at = np.flatnonzero(level > level.max() / 2) / RATE
    return at[np.flatnonzero(np.diff(at, prepend=-1) > 0.5)]


def times_of_flashes(path):
    """Return the times of the frames that are white after a black one."""
    arguments = ("-i", f"file:{path}", "-an", "-vf", "scale=1:1,format=gray", "-copyts")
    arguments = (*arguments, "-fps_mode", "passthrough", "-enc_time_base", "1:90000")
    is_white = np.frombuffer(run_ffmpeg(*arguments, "-f", "rawvideo", "-"), np.uint8) > 128
    lines = run_ffmpeg(*arguments, "-f", "framecrc", "-").decode().splitlines()
    times_s = [int(line.split(",")[2]) / 90_000 for line in lines if not line.startswith("#")]
    return np.array(times_s)[np.flatnonzero(np.diff(is_white.astype(int), prepend=0) == 1)]


SOURCES = {
    "aac.mp4": ("aac", ("-c:a", "aac")),
    "mp3.mp4": ("mp3", ("-c:a", "libmp3lame")),
    "opus.webm": ("opus", ("-c:a", "libopus")),
    "vorbis.mkv": ("vorbis", ("-c:a", "libvorbis")),
    "aac.ts": ("aac", ("-c:a", "aac")),
    "pcm.mov": ("pcm_s16le", ("-c:a", "pcm_s16le")),
    "flac.mkv": ("flac", ("-c:a", "flac")),
    "ac3.mkv": ("ac3", ("-c:a", "ac3")),
    "surround.mkv": (
        "ac3",
        ("-af", "pan=5.1|FL=.2*c0|FR=.2*c0|FC=.2*c0|BL=.2*c0|BR=.2*c0", "-c:a", "ac3"),
    ),
    "mp2.mpg": ("mp2", ("-c:a", "mp2")),
    "alaw.avi": ("pcm_alaw", ("-ar", "8000", "-c:a", "pcm_alaw")),
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_sound_is_that_of_the_source_in_every_format(tmp_path, name):
    codec, options = SOURCES[name]
    encoder = {"opus.webm": "libvpx", "mp2.mpg": "mpeg1video"}.get(name)
    video = ("-c:v", encoder) if encoder else H264
    source = make_film(tmp_path / name, *options, video=video)
    before = decode_sound(source)
    for suffix, (container, _, _) in ENCODINGS.items():
        out = tmp_path / f"out{suffix}"
        result = write_overlay(source, out, keep_pixels)
        is_copied = codec in COPIED[container]
        assert result.sound == f"{codec}, {'copied' if is_copied else 'encoded again'}"
        assert result.warnings == ()
        assert sound_codec(out) == (codec if is_copied else ENCODERS[container].removeprefix("lib"))
        after = decode_sound(out)
        assert len(after) == pytest.approx(len(before), abs=0.05 * RATE)
        lag_s, correlation = find_lag(after, before)
        assert lag_s == pytest.approx(0, abs=1.1e-3), suffix  # Matroska states milliseconds
        assert correlation > 0.98
        np.testing.assert_allclose(times_of_clicks(out), times_of_flashes(out), atol=0.045)


@pytest.mark.parametrize("suffix", ENCODINGS)
@pytest.mark.parametrize("delay_s", [-0.5, 0.7])
@pytest.mark.parametrize("codec", ["aac", "ac3"])
def test_sound_that_starts_at_another_time_stays_in_sync(tmp_path, suffix, delay_s, codec):
    source = make_film(tmp_path / "a.mkv", "-c:a", codec, before=("-itsoffset", delay_s))
    expected = times_of_flashes(source)[0]
    clicks = times_of_clicks(source)
    assert clicks[-1] - expected == pytest.approx(1 + delay_s, abs=0.5)  # ffmpeg moved it
    out = tmp_path / f"out{suffix}"
    write_overlay(source, out, keep_pixels)
    offset = times_of_flashes(out)[0] - expected
    np.testing.assert_allclose(times_of_clicks(out) - offset, clicks, atol=3e-3)


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_a_clip_that_was_cut_without_encoding_stays_in_sync(tmp_path, suffix):
    whole = make_film(tmp_path / "whole.mp4", "-c:a", "aac", extra=("-g", "25"))
    source = tmp_path / "cut.mp4"  # with an edit list that hides its start
    run_ffmpeg("-ss", "0.6", "-i", f"file:{whole}", "-c", "copy", f"file:{source}")
    assert b"elst" in source.read_bytes()
    clicks, flashes = times_of_clicks(source), times_of_flashes(source)
    np.testing.assert_allclose(clicks, [0.4, 1.4], atol=0.045)
    out = tmp_path / f"out{suffix}"
    write_overlay(source, out, keep_pixels)
    np.testing.assert_allclose(times_of_flashes(out), flashes, atol=2e-3)
    np.testing.assert_allclose(times_of_clicks(out), clicks, atol=3e-3)


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_every_nth_frame_has_the_whole_sound(tmp_path, suffix):
    source = make_film(tmp_path / "a.mp4", "-c:a", "aac")
    out = tmp_path / f"out{suffix}"
    assert write_overlay(source, out, keep_pixels, every=5).num_frames == 13
    assert find_lag(decode_sound(out), decode_sound(source))[0] == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(times_of(out), np.arange(0, 2.6, 0.2), atol=1e-3)
    np.testing.assert_allclose(times_of_clicks(out), times_of_flashes(out), atol=0.045)


def test_a_source_without_sound_gives_a_silent_video(tmp_path):
    source = make_film(tmp_path / "a.mp4", "-an")
    result = write_overlay(source, tmp_path / "out.mp4", keep_pixels)
    assert (result.sound, result.warnings) == ("", ())
    with pytest.raises(RuntimeError, match="does not contain any stream"):
        sound_codec(tmp_path / "out.mp4")


def damage(source, amount):
    """Damage packets of the sound; `amount` is an expression of ffmpeg, negative for none."""
    out = source.with_stem("damaged")
    filters = ("-bsf:a", f"noise=amount={amount}")
    run_ffmpeg("-i", f"file:{source}", "-c", "copy", *filters, f"file:{out}")
    return out


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "ac3")])
def test_sound_that_does_not_decode_is_omitted_with_a_warning(tmp_path, name, codec):
    whole = make_film(tmp_path / name, "-c:a", codec)
    source = damage(whole, 1)
    result = write_overlay(source, tmp_path / "out.mp4", keep_pixels)
    assert result.num_frames == len(times_of(tmp_path / "out.mp4")) == 65
    (warning,) = result.warnings
    assert (
        "no sound: the aac of the source does not decode" in warning or "do not decode" in warning
    )
    np.testing.assert_allclose(times_of_flashes(tmp_path / "out.mp4"), [1, 2], atol=1e-3)


def test_a_damaged_part_of_the_sound_keeps_the_rest_in_sync(tmp_path):
    source = damage(make_film(tmp_path / "a.mkv", "-c:a", "ac3"), "'if(between(n,5,9),1,-1)'")
    for suffix in (".mp4", ".mkv"):  # encoded again, and copied
        result = write_overlay(source, tmp_path / f"out{suffix}", keep_pixels)
        (warning,) = result.warnings
        assert re.fullmatch(r"damaged sound: \d packets do not decode, and are silent", warning)
        clicks = times_of_clicks(tmp_path / f"out{suffix}")
        np.testing.assert_allclose(clicks, [1, 2], atol=3e-3)


def test_an_encoder_s_name_and_rate_are_known_for_every_format():
    assert set(COPIED) == set(ENCODERS) == {container for container, _, _ in ENCODINGS.values()}
    assert set(RATES) == set(ENCODERS.values())
