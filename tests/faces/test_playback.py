"""Overlays play in a browser, with sound."""

import numpy as np
import pytest

from jdfd_keras.faces.overlay import write_overlay
from tests.chromium import needs_chromium, run_script
from tests.faces.media_files import make_clip, run_ffmpeg

RED, GREEN = (200, 30, 30), (20, 150, 60)
NUM_FRAMES = 50  # 2 s: the first half is red, the second green
# Plays for a while, then seeks to a time in each half and reads the pixel in the middle.
SCRIPT = """
const video = document.querySelector("video");
const once = name => new Promise((resolve, reject) => {
  video.addEventListener(name, resolve, {once: true});
  video.addEventListener("error", () => reject(video.error.message), {once: true});
});
if (video.error) throw video.error.message;
if (video.readyState < HTMLMediaElement.HAVE_METADATA) await once("loadedmetadata");
const result = {duration: video.duration, width: video.videoWidth, height: video.videoHeight};
await video.play();
for (let step = 0; step < 200 && video.currentTime < 0.2; step += 1)
  await new Promise(resolve => setTimeout(resolve, 50));
video.pause();
result.advanced = video.currentTime;
result.audioBytes = video.webkitAudioDecodedByteCount;
result.pixels = [];
const canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
const context = canvas.getContext("2d");
for (const time of [1.5, 0.5]) {
  const isThere = once("seeked");
  video.currentTime = time;
  await isThere;
  context.drawImage(video, 0, 0);
  const pixel = context.getImageData(video.videoWidth / 2, video.videoHeight / 2, 1, 1);
  result.pixels.push(Array.from(pixel.data.slice(0, 3)));
}
return result;
"""


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    """A clip of an odd size, whose frames `halves` replaces."""
    grey = np.full((NUM_FRAMES, 75, 101, 3), 128, np.uint8)
    return make_clip(tmp_path_factory.mktemp("clips") / "a.mkv", "-c:v", "ffv1", source=grey)


def halves(frames):
    for frame in frames:
        yield np.full((75, 101, 3), RED if frame.index < NUM_FRAMES // 2 else GREEN, np.uint8)


@needs_chromium
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        *(("aac", ".mp4"), ("libmp3lame", ".mp4"), ("libopus", ".mp4"), ("flac", ".mp4")),
        *(("ac3", ".mp4"), ("", ".mp4"), ("libvorbis", ".webm"), ("aac", ".webm")),
    ],
)
def test_the_video_plays_and_seeks_with_its_sound(silent, tmp_path, codec, suffix):
    source = silent
    if codec:
        source = tmp_path / "source.mkv"
        sound = ("-f", "lavfi", "-t", 2, "-i", "sine=440:r=44100", "-c:v", "copy", "-c:a", codec)
        run_ffmpeg("-i", f"file:{silent}", *sound, f"file:{source}")
    result = write_overlay(source, tmp_path / f"out{suffix}", halves)
    assert (result.num_frames, bool(result.sound), result.warnings) == (NUM_FRAMES, bool(codec), ())
    page = tmp_path / "page.html"
    page.write_text(f'<!doctype html><body><video src="out{suffix}"></video></body>')
    played = run_script(page, SCRIPT)
    assert played.get("error") is None
    assert played["duration"] == pytest.approx(2, abs=0.06)
    assert (played["width"], played["height"]) == (102, 76)
    assert played["advanced"] > 0.1
    assert (played["audioBytes"] > 0) == bool(codec)
    np.testing.assert_allclose(played["pixels"], [GREEN, RED], atol=12)


@needs_chromium
def test_a_browser_states_why_a_damaged_video_does_not_play(tmp_path):
    (tmp_path / "out.mp4").write_bytes(bytes(1000))
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><body><video src="out.mp4"></video></body>')
    assert "DEMUXER" in run_script(page, SCRIPT)["error"]
