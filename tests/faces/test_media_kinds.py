"""Files that people have: the faces are found where they are shown, or the file is refused."""

import hashlib
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image, ImageCms

import jdfd_keras as jk
from jdfd_keras.prediction.file_list import list_files
from tests.faces.media_files import FRAMES_PER_S, make_clip, run_ffmpeg

OPTIONS = jk.FaceOptions(face_size=71, frames_per_video=2, tracks="all")
WIDTH, HEIGHT, NUM_FRAMES = 320, 240, 10
STEP = 6  # pixels that the face moves to the right in each frame
FACE = np.array([69, 93, 156, 180])  # left, top, right and bottom in the first frame
SAMPLED = [2, 7]  # of 10 frames
FIELDS = [2, 6]  # the same, if two at a time were interlaced: the first fields of frames 1 and 3
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
X265 = ("-c:v", "libx265", "-x265-params", "log-level=none")
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "2")
INTERLACED = ("-vf", "interlace=scan=tff", "-flags", "+ilme+ildct")
ANAMORPHIC = ("-vf", "scale=160:240,setsar=2/1")
TONES = (  # 203 cd/m2 is white in HDR video; ITU-R BT.2408 (2023)
    "setparams=color_primaries=bt709:color_trc=bt709:colorspace=gbr:range=full,"
    "zscale=t=linear:npl=203,format=gbrpf32le,"
    "zscale=p=bt2020:t={0}:m=bt2020nc:r=tv:npl=203,format=yuv420p10le"
)
SINE = ("-f", "lavfi", "-i", "sine=440:duration={0}")


@pytest.fixture(scope="module")
def frames(astronaut):
    """uint8[10, 240, 320, 3], a face that moves to the right before smooth light and dark."""
    coarse = np.random.default_rng(3).uniform(60, 160, (4, 6, 3))
    wall = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    moving = np.repeat(np.clip(wall, 0, 255).astype(np.uint8)[None], NUM_FRAMES, axis=0)
    for index, frame in enumerate(moving):
        left = 10 + STEP * index
        frame[10:218, left : left + 208] = astronaut[:208, 120:328]
    return moving


@dataclass(frozen=True)
class Kind:
    """A kind of file, and what is expected of it beside the faces."""

    make: Callable[[Path, np.ndarray], Path]  # of a folder and the frames
    indices: list[int] | None = None  # of the sampled frames; of all 10 if None
    start_s: float | None = 0.0  # time of the first frame; None: unchecked
    warning: str = ""  # words of the only warning; "" for none


def clip(suffix: str, *arguments: object, **expected) -> Kind:
    """A clip of all frames that ffmpeg makes with some options."""
    return Kind(lambda folder, frames: clip_of(frames, folder, suffix, *arguments), **expected)


def clip_of(frames: np.ndarray, folder: Path, suffix: str, *arguments: object) -> Path:
    return make_clip(folder / f"clip.{suffix}", *arguments, source=frames)


def copy(suffix: str, *before: object, after: tuple = (), source: str = "mp4", **expected) -> Kind:
    """A lossless copy of an MP4 file, with options of ffmpeg."""

    def make(folder, frames):
        path = clip_of(frames, folder, source, *X264)
        copied = folder / f"copy.{suffix}"
        run_ffmpeg(*before, "-i", path, *after, "-c", "copy", copied)
        return copied

    return Kind(make, **expected)


def turned(suffix: str, filters: str, *options: object, encoder=X264, source="mp4") -> Kind:
    """A clip that is stored turned, and shown upright by the display matrix of its header."""

    def make(folder, frames):
        path = clip_of(frames, folder, source, "-vf", filters, *encoder)
        shown = folder / f"shown.{suffix}"
        run_ffmpeg(*options, "-i", path, "-c", "copy", shown)
        return shown

    return Kind(make)


def bytes_of(make: Callable[[Path, np.ndarray], Path], change: Callable[[bytes], bytes], **more):
    """A file of another kind with its bytes changed."""

    def change_file(folder, frames):
        path = make(folder, frames)
        path.write_bytes(change(path.read_bytes()))
        return path

    return Kind(change_file, **more)


def image(name: str, mode: str = "RGB", stored: Callable = lambda image: image, **options) -> Kind:
    """An image of the third frame, which Pillow writes."""
    warning = options.pop("warning", "")

    def make(folder, frames):
        photo = stored(Image.fromarray(frames[2]).convert(mode))
        if name.endswith(".heic"):
            photo = pillow_heif.from_pillow(photo)
        more = {"append_images": [photo, photo]} if options.get("save_all") else {}
        photo.save(folder / name, **options, **more)
        return folder / name

    return Kind(make, indices=[2], start_s=None, warning=warning)


def animation(suffix: str, **options) -> Kind:
    def make(folder, frames):
        images = [Image.fromarray(frame) for frame in frames]
        path = folder / f"animation.{suffix}"
        images[0].save(path, save_all=True, append_images=images[1:], duration=40, **options)
        return path

    return Kind(make)


def make_16_bit(folder: Path, frames: np.ndarray) -> Path:
    cv2.imwrite(str(folder / "deep.png"), frames[2][..., ::-1].astype(np.uint16) * 257)
    return folder / "deep.png"


def make_size_change(folder: Path, frames: np.ndarray) -> Path:
    """The second half is twice as large; squeezed into the first size it would show no face."""
    first = make_clip(folder / "first.ts", *X264, source=frames[:5])
    tall = ("-vf", "scale=640:480,pad=640:2400:0:0")
    second = make_clip(folder / "second.ts", *tall, *X264, source=frames[5:])
    (folder / "both.ts").write_bytes(first.read_bytes() + second.read_bytes())
    return folder / "both.ts"


def make_two_streams(folder: Path, frames: np.ndarray) -> Path:
    path = clip_of(frames, folder, "mp4", *X264)
    run_ffmpeg(
        *("-i", path, "-f", "lavfi", "-i", "color=size=64x48:rate=25:duration=0.4"),
        *("-map", "0", "-map", "1", *X264, folder / "two.mp4"),
    )
    return folder / "two.mp4"


def make_other_tracks(folder: Path, frames: np.ndarray) -> Path:
    """Cover art, sound, subtitles and a timecode beside the video."""
    path = clip_of(frames, folder, "mp4", *X264)
    Image.new("RGB", (64, 64)).save(folder / "cover.jpg")
    (folder / "words.srt").write_text("1\n00:00:00,000 --> 00:00:00,200\nHello\n")
    run_ffmpeg(
        *("-i", folder / "cover.jpg", "-i", path, "-i", folder / "words.srt"),
        *(argument.format(0.4) for argument in SINE),
        *("-map", "0", "-map", "1", "-map", "2", "-map", "3", "-timecode", "01:00:00:00"),
        *("-c:v", "copy", "-c:a", "aac", "-c:s", "mov_text", "-disposition:v:0", "attached_pic"),
        folder / "tracks.mp4",
    )
    return folder / "tracks.mp4"


def with_sound(suffix: str, video: tuple, sound_s: float, **expected) -> Kind:
    def make(folder, frames):
        path = clip_of(frames, folder, "mp4", *X264)
        sound = (argument.format(sound_s) for argument in SINE)
        run_ffmpeg(*video, "-i", path, *sound, "-c:v", "copy", folder / f"sound.{suffix}")
        return folder / f"sound.{suffix}"

    return Kind(make, **expected)


def make_trimmed(folder: Path, frames: np.ndarray) -> Path:
    """A copy from the third frame on; the edit list hides the two that are needed to decode it."""
    path = clip_of(frames, folder, "mp4", *X264, "-bf", "0")
    run_ffmpeg("-ss", "0.08", "-i", path, "-c", "copy", folder / "trimmed.mov")
    return folder / "trimmed.mov"


def make_motion_photo(folder: Path, frames: np.ndarray) -> Path:
    movie = clip_of(frames[::-1], folder, "mp4", *X264)
    path = folder / "motion.jpg"
    Image.fromarray(frames[2]).save(path)
    path.write_bytes(path.read_bytes() + movie.read_bytes())
    return path


def make_mpo(folder: Path, frames: np.ndarray) -> Path:
    photos = [Image.fromarray(frames[2]), Image.new("RGB", (64, 48))]
    photos[0].save(folder / "a.mpo", save_all=True, append_images=photos[1:])
    return (folder / "a.mpo").rename(folder / "photograph.jpg")


def make_wide_gamut(folder: Path, frames: np.ndarray) -> Path:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(frames[2]).save(folder / "profile.png", icc_profile=profile)
    return folder / "profile.png"


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def named(name: str, kind: Kind) -> Kind:
    def make(folder, frames):
        return kind.make(folder, frames).rename(folder / name)

    return Kind(make, kind.indices, kind.start_s)


QUICK = {
    "h264 mp4": clip("mp4", *X264),
    "h264 mp4, 10 bits": clip("mp4", "-c:v", "libx264", "-pix_fmt", "yuv420p10le"),
    "h264 mp4, full range": clip("mp4", "-c:v", "libx264", "-pix_fmt", "yuvj420p"),
    "h264 mp4, fragmented": clip("mp4", *X264, "-movflags", "frag_keyframe+empty_moov"),
    "h264 mts, interlaced": clip(
        *("mts", *INTERLACED, *X264), indices=FIELDS, warning="interlaced"
    ),
    "h264 flv": clip("flv", *X264),
    "h264 without a container": clip("h264", *X264, warning="no usable frame times"),
    "hevc mp4": clip("mp4", *X265, "-pix_fmt", "yuv420p", "-tag:v", "hvc1"),
    "av1 mp4": clip("mp4", "-c:v", "libsvtav1", "-pix_fmt", "yuv420p"),
    "av1 webm, 10 bits": clip("webm", "-c:v", "libsvtav1", "-pix_fmt", "yuv420p10le"),
    "vp8 webm": clip("webm", "-c:v", "libvpx", "-b:v", "1M", "-pix_fmt", "yuv420p"),
    "vp9 webm": clip("webm", "-c:v", "libvpx-vp9", "-b:v", "1M", "-pix_fmt", "yuv420p"),
    "mpeg4 avi": clip("avi", "-c:v", "mpeg4", "-q:v", "2"),
    "mpeg4 3gp": clip("3gp", "-c:v", "mpeg4", "-q:v", "2"),
    "mpeg2 mpg": clip("mpg", *MPEG2),
    "mpeg2 vob, not square": clip("vob", *ANAMORPHIC, *MPEG2),
    "wmv": clip("wmv", "-c:v", "wmv2", "-q:v", "2"),
    "theora ogv": clip("ogv", "-c:v", "libtheora", "-q:v", "9", "-pix_fmt", "yuv420p"),
    "prores mov": clip("mov", "-c:v", "prores_ks", "-pix_fmt", "yuv422p10le"),
    "mjpeg avi": clip("avi", "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj422p"),
    "not square mp4": clip("mp4", *ANAMORPHIC, *X264),
    "rotated by a phone": turned("mov", "transpose=clock", "-display_rotation", "90"),
    "upside down": turned("mp4", "hflip,vflip", "-display_rotation", "180"),
    "mirrored": turned("mov", "hflip", "-display_hflip"),
    "mirrored and rotated": turned(
        "mov", "hflip,transpose=clock", "-display_rotation", "90", "-display_hflip"
    ),
    "size changes": Kind(make_size_change, start_s=None, warning="no usable frame times"),
    "two video streams": Kind(make_two_streams, warning="2 video streams"),
    "other tracks": Kind(make_other_tracks),
    "sound that is longer": with_sound("mp4", (), 2),
    "video that begins late": with_sound("mp4", ("-itsoffset", "1.5"), 2, start_s=1.5),
    "video that begins late, mkv": with_sound("mkv", ("-itsoffset", "1.5"), 2, start_s=1.5),
    "times that begin late": copy("mkv", "-itsoffset", "5"),
    "trimmed without encoding": Kind(make_trimmed, indices=[4, 8], start_s=-0.08),
    "one frame": clip("mp4", *X264, "-frames:v", "1", indices=[0]),
    "cut short": bytes_of(
        lambda folder, frames: clip_of(frames, folder, "avi", "-c:v", "mjpeg", "-q:v", "2"),
        lambda data: data[: 57 * len(data) // 100],
        indices=[1, 4],
        warning="cut short",
    ),
    "bytes after the end": bytes_of(clip("mp4", *X264).make, lambda data: data + bytes(5000)),
    "gif": clip("gif"),
    "apng": animation("png"),
    "animated webp": animation("webp", lossless=True),
    "animated avif": animation("avif", quality=95),
    "jpeg": image("a.jpg"),
    "jpeg, cmyk": image("a.jpg", "CMYK"),
    "jpeg, rotated by exif": image(
        "a.jpg", stored=lambda image: image.transpose(Image.Transpose.ROTATE_90), exif=oriented(6)
    ),
    "jpeg with a movie": Kind(make_motion_photo, indices=[2], start_s=None),
    "jpeg with a second picture": Kind(make_mpo, indices=[2], start_s=None),
    "png": image("a.png"),
    "png, 16 bits": Kind(make_16_bit, indices=[2], start_s=None),
    "png with a profile": Kind(make_wide_gamut, indices=[2], start_s=None),
    "png, grey": image("a.png", "L"),
    "png, palette": image("a.png", "P"),
    "png, transparent": image("a.png", "RGBA"),
    "gif, one frame": image("a.gif", "P"),
    "webp": image("a.webp"),
    "bmp": image("a.bmp"),
    "tiff, lzw": image("a.tif", compression="tiff_lzw"),
    "tiff, pages": image("a.tif", save_all=True, warning="first page of 3"),
    "heic": image("a.heic", quality=90),
    "heic of tiles": image("a.heic", quality=90, tile_size=64),
    "avif": image("a.avif", quality=90),
    "jpeg 2000": image("a.jp2"),
    "png named jpg": named("a.jpg", image("a.png")),
    "jpeg named mp4": named("a.mp4", image("a.jpg")),
    "mp4 named jpg": named("a.jpg", clip("mp4", *X264)),
    "a colon in the name": named("Zoom: call.mp4", clip("mp4", *X264)),
    "a percent sign in the name": named("100%d %03d.mp4", clip("mp4", *X264)),
    "a protocol's name": named("file:a.mp4", clip("mp4", *X264)),
    "a name of other letters": named("видео 影片.mp4", clip("mp4", *X264)),
    "no suffix": named("clip", clip("mp4", *X264)),
}
SLOW = {
    "hevc mkv, 10 bits": clip("mkv", *X265, "-pix_fmt", "yuv420p10le"),
    "mpeg1 mpg": clip("mpg", "-c:v", "mpeg1video", "-q:v", "2"),
    "mpeg2 ts": clip("ts", *MPEG2),
    "h264 mp4, 4:4:4": clip("mp4", "-c:v", "libx264", "-pix_fmt", "yuv444p"),
    "h264 mov, 4:2:2": clip("mov", "-c:v", "libx264", "-pix_fmt", "yuv422p10le"),
    "h264 avi": clip("avi", *X264, "-bf", "0", start_s=None),
    "h264 ts": clip("ts", *X264),
    "h264 mkv": clip("mkv", *X264),
    "h264 f4v": clip("f4v", *X264),
    "h264 mp4, one pass": clip("mp4", *X264, "-movflags", "faststart"),
    "hevc ts": clip("ts", *X265, "-pix_fmt", "yuv420p"),
    "hevc mkv, 12 bits": clip("mkv", *X265, "-pix_fmt", "yuv422p12le"),
    "av1 mkv": clip("mkv", "-c:v", "libsvtav1", "-pix_fmt", "yuv420p"),
    "av1 ivf": clip("ivf", "-c:v", "libsvtav1", "-pix_fmt", "yuv420p"),
    "vp9 mp4": clip("mp4", "-c:v", "libvpx-vp9", "-b:v", "1M", "-pix_fmt", "yuv420p"),
    "vp9 webm, 10 bits": clip("webm", "-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p10le"),
    "vp9 webm, transparent": clip(
        *("webm", "-c:v", "libvpx-vp9", "-b:v", "1M", "-pix_fmt", "yuva420p")
    ),
    "vvc mp4": clip("mp4", "-c:v", "libvvenc", "-preset", "faster", "-pix_fmt", "yuv420p10le"),
    "h263 3gp": clip("3gp", "-vf", "scale=704:576", "-c:v", "h263", "-aspect", "4:3"),
    "flv1 flv": clip("flv", "-c:v", "flv1", "-q:v", "2"),
    "mpeg2 mpg, interlaced": clip(
        *("mpg", *INTERLACED, *MPEG2), indices=FIELDS, warning="interlaced"
    ),
    "mpeg2 mxf": clip("mxf", *MPEG2, "-pix_fmt", "yuv422p"),
    "dv": clip("dv", "-vf", "scale=720:576", "-c:v", "dvvideo", warning="interlaced"),
    "dv avi": clip("avi", "-vf", "scale=720:576", "-c:v", "dvvideo", warning="interlaced"),
    "prores mov, interlaced": clip(
        *("mov", *INTERLACED, "-c:v", "prores_ks"), indices=FIELDS, warning="interlaced"
    ),
    "prores mov, transparent": clip("mov", "-c:v", "prores_ks", "-pix_fmt", "yuva444p10le"),
    "dnxhr mov": clip("mov", "-c:v", "dnxhd", "-profile:v", "dnxhr_hqx", "-pix_fmt", "yuv422p10le"),
    "cineform mov": clip("mov", "-c:v", "cfhd", "-pix_fmt", "yuv422p10le"),
    "mjpeg mov": clip("mov", "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p"),
    # More than a MiB, which is how much FFmpeg reads at once.
    "ffv1 mkv": clip("mkv", "-vf", "scale=1280:960", "-c:v", "ffv1", "-pix_fmt", "yuv420p"),
    "huffyuv avi": clip("avi", "-c:v", "huffyuv"),
    "uncompressed avi": clip("avi", "-c:v", "rawvideo", "-pix_fmt", "bgr24"),
    "uncompressed y4m": clip("y4m", "-pix_fmt", "yuv420p"),
    "cinepak avi": clip("avi", "-c:v", "cinepak"),
    "animation mov": clip("mov", "-c:v", "qtrle"),
    "png mov": clip("mov", "-c:v", "png"),
    "realvideo rm": clip("rm", "-c:v", "rv20", "-s", "640x480", "-b:v", "2M"),
    "wtv": clip("wtv", *MPEG2),
    "hlg": clip(
        *("mp4", "-vf", TONES.format("arib-std-b67"), *X265, "-color_trc", "arib-std-b67"),
        *("-color_primaries", "bt2020", "-colorspace", "bt2020nc"),
        warning="HDR video (HLG)",
    ),
    "pq": clip(
        *("mp4", "-vf", TONES.format("smpte2084"), *X265, "-color_trc", "smpte2084"),
        *("-color_primaries", "bt2020", "-colorspace", "bt2020nc"),
        warning="HDR video (PQ)",
    ),
    "rotated mkv": turned("mkv", "transpose=cclock", "-display_rotation", "270"),
    "not square and rotated": turned(
        "mp4", "scale=160:240,setsar=2/1,transpose=clock", "-display_rotation", "90"
    ),
    "mirrored top to bottom": turned("mov", "vflip", "-display_vflip"),
    "not square avi": clip("avi", *ANAMORPHIC, "-c:v", "mpeg4", "-q:v", "2"),
    "not square webm": clip("webm", *ANAMORPHIC, "-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p"),
    "tall pixels": clip("mkv", "-vf", "scale=640:240,setsar=1/2", *X264),
    "stated by the container": copy("mkv", after=("-aspect", "4:3")),
    "piped webm": clip("webm", "-c:v", "libvpx", "-live", "1", "-pix_fmt", "yuv420p"),
    "times before the start": copy("ts", "-itsoffset", "-3"),
    "times that wrap around": copy("ts", after=("-output_ts_offset", "95443.5", "-muxdelay", "0")),
    "one frame, flv": clip("flv", "-c:v", "flv1", "-frames:v", "1", indices=[0]),
    "one frame, wmv": clip("wmv", "-c:v", "wmv2", "-frames:v", "1", indices=[0]),
    "tiff rotated by its tag": image(
        *("a.tif", "RGB", lambda image: image.transpose(Image.Transpose.ROTATE_90)),
        tiffinfo={ExifTags.Base.Orientation: 6},
    ),
    "avif mirrored": image(
        *("a.avif", "RGB", lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        exif=oriented(2),
    ),
    "pnm": image("a.ppm"),
}


@pytest.mark.parametrize(
    "kind",
    [
        *(pytest.param(kind, id=name) for name, kind in QUICK.items()),
        *(pytest.param(kind, id=name, marks=pytest.mark.slow) for name, kind in SLOW.items()),
    ],
)
def test_the_faces_of_a_file_are_found_where_they_are_shown(tmp_path, frames, kind):
    path = kind.make(tmp_path, frames)
    extraction = jk.extract_faces(path, OPTIONS)
    indices = SAMPLED if kind.indices is None else kind.indices
    assert extraction.num_frames == len(indices)
    assert len(extraction.faces) == len(indices)
    for index, face in zip(indices, extraction.faces, strict=True):
        # The size of a frame with the face may be a multiple, and what is below is padding.
        scale = extraction.width / WIDTH
        if face is extraction.faces[-1] and "both" in path.name:
            scale = 2.0
        expected = scale * (FACE + [STEP * index, 0, STEP * index, 0])
        box = np.array([face.box.left, face.box.top, face.box.right, face.box.bottom])
        np.testing.assert_allclose(box, expected, atol=18 * scale)
        if kind.start_s is not None:
            expected_s = kind.start_s + index / FRAMES_PER_S
            assert face.time_s == pytest.approx(expected_s, abs=0.03)
    assert extraction.height == pytest.approx(extraction.width * HEIGHT / WIDTH, abs=1)
    assert len(extraction.warnings) == bool(kind.warning), extraction.warnings
    assert all(kind.warning in warning for warning in extraction.warnings)
    assert extraction.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert extraction.info.container
    assert extraction.info.codec


def write(name: str, data: bytes | str) -> Callable[[Path, np.ndarray], Path]:
    def make(folder, frames):
        data_ = data.encode() if isinstance(data, str) else data
        (folder / name).write_bytes(data_)
        return folder / name

    return make


def sound(suffix: str, *arguments: object) -> Callable[[Path, np.ndarray], Path]:
    def make(folder, frames):
        run_ffmpeg(*(argument.format(1) for argument in SINE), *arguments, folder / f"a.{suffix}")
        return folder / f"a.{suffix}"

    return make


def make_song_with_cover(folder: Path, frames: np.ndarray) -> Path:
    Image.fromarray(frames[0]).save(folder / "cover.jpg")
    run_ffmpeg(
        *("-i", folder / "cover.jpg", *(argument.format(1) for argument in SINE)),
        *("-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v:0", "attached_pic"),
        folder / "song.m4a",
    )
    return folder / "song.m4a"


def make_playlist(folder: Path, frames: np.ndarray) -> Path:
    clip_of(frames, folder, "ts", *X264)
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\n"
    return write("list.mp4", f"{head}clip.ts\n#EXT-X-ENDLIST\n")(folder, frames)


def make_list(folder: Path, frames: np.ndarray) -> Path:
    clip_of(frames, folder, "mp4", *X264)
    return write("list.mp4", "ffconcat version 1.0\nfile clip.mp4\n")(folder, frames)


def make_dash(folder: Path, frames: np.ndarray) -> Path:
    path = clip_of(frames, folder, "mp4", *X264)
    run_ffmpeg("-i", path, "-c", "copy", "-f", "dash", folder / "stream.mpd")
    return (folder / "stream.mpd").rename(folder / "stream.mp4")


def make_folder(folder: Path, frames: np.ndarray) -> Path:
    (folder / "clip.mp4").mkdir()
    return folder / "clip.mp4"


def make_zip(folder: Path, frames: np.ndarray) -> Path:
    with zipfile.ZipFile(folder / "a.mp4", "w") as file:
        file.writestr("a.txt", "text" * 100)
    return folder / "a.mp4"


def make_encrypted(folder: Path, frames: np.ndarray) -> Path:
    path = clip_of(frames, folder, "mp4", *X264)
    keys = ("-encryption_key", "0" * 32, "-encryption_kid", "0" * 32)
    protected = folder / "protected.mp4"
    run_ffmpeg("-i", path, "-c", "copy", "-encryption_scheme", "cenc-aes-ctr", *keys, protected)
    return protected


def make_cut(kind: Kind) -> Callable[[Path, np.ndarray], Path]:
    return bytes_of(kind.make, lambda data: data[: len(data) // 2]).make


REFUSED = {
    "empty": (write("a.mp4", b""), "empty"),
    "zeros": (write("a.mp4", bytes(10_000)), "neither"),
    "text": (write("a.mp4", "Dear reader,\n" * 99), "neither"),
    "page": (write("a.mp4", "<!doctype html><title>404</title>"), "neither"),
    "svg": (write("a.png", '<svg xmlns="http://www.w3.org/2000/svg"/>'), "neither"),
    "pdf": (write("a.mp4", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(999)), "neither"),
    "program": (write("a.mp4", b"\x7fELF\x02\x01\x01" + bytes(9999)), "neither"),
    "zip": (make_zip, "neither"),
    "session description": (write("a.mp4", "v=0\ns=x\nm=video 5004 RTP/AVP 96\n"), "neither"),
    "playlist": (make_playlist, "lists other files"),
    "list of files": (make_list, "lists other files"),
    "dash": (make_dash, "lists other files"),
    "sound, wav": (sound("wav"), "an audio file"),
    "sound, mp3": (sound("mp3"), "an audio file"),
    "sound, m4a": (sound("m4a"), "an audio file"),
    "sound, ac3": (sound("ac3"), "an audio file"),
    "sound, aiff": (sound("aiff"), "an audio file"),
    "sound, mkv": (sound("mkv"), "an audio file"),
    "song with a cover": (make_song_with_cover, "cover picture is not analysed"),
    "encrypted": (make_encrypted, "encrypted"),
    "no index": (make_cut(clip("mp4", *X264)), "cut short"),
    "half a jpeg": (make_cut(image("a.jpg")), "cut short"),
    "half a png": (make_cut(image("a.png")), "cut short"),
    "half a heic": (make_cut(image("a.heic")), "cut short"),
    "half an animation": (make_cut(animation("gif")), "cut short"),
    "canon": (write("a.cr2", b"II*\0\x10\0\0\0CR\2\0" + bytes(99)), "a camera raw file"),
    "fuji": (write("a.raf", b"FUJIFILMCCD-RAW 0201" + bytes(99)), "a camera raw file"),
    "photoshop": (write("a.psd", b"8BPS\0\1" + bytes(99)), "a Photoshop file"),
    "jpeg xl": (write("a.jxl", b"\xff\x0a" + bytes(99)), "a JPEG XL file"),
    "floating point": (image("a.tif", "F").make, "neither 8 nor 16 bits"),
    "folder": (make_folder, "a folder"),
    "missing": (lambda folder, frames: folder / "none.mp4", "missing"),
    "url": (lambda folder, frames: Path("https://example.org/a.mp4"), "URL"),
}


@pytest.mark.parametrize(
    ("make", "words"), [pytest.param(*row, id=name) for name, row in REFUSED.items()]
)
def test_a_file_that_is_not_read_is_refused_in_one_line(tmp_path, frames, capfd, make, words):
    path = make(tmp_path, frames)
    with pytest.raises(OSError, match=re.escape(path.name)) as caught:
        jk.extract_faces(path, OPTIONS)
    message = str(caught.value)
    assert message.startswith("Expected ")
    assert message.isprintable()
    assert re.search(words, message), message
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_a_folder_with_the_name_of_a_video_is_searched_for_videos(tmp_path, frames):
    inside = image("a.png").make(make_folder(tmp_path, frames), frames)
    assert list_files([tmp_path / "clip.mp4"]) == ([inside], [])
