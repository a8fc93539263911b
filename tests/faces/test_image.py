import itertools
import struct
import threading
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Generator

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, GifImagePlugin, Image, ImageCms, PngImagePlugin, TiffImagePlugin
from skimage.transform import resize

from jdfd_keras.faces.image import ImageReader, is_image
from jdfd_keras.faces.media import UnreadableFileError, open_file
from jdfd_keras.options import LimitOptions
from tests.faces.media_files import decode_with_ffmpeg, make_clip

EXIF_ORIENTATION = 0x0112
# How the stored pixels are shown, by EXIF orientation. Reference: EXIF 2.32 (2019), 4.6.4.
SHOWN = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
# Colorants of Display P3 and sRGB, adapted to D50, as in Apple's and the ICC's profiles.
DISPLAY_P3 = [[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]]
SRGB = [[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]]


def read(path, count=1, *, every=0, **limits):
    """Return all frames, and the reader after them."""
    with open_file(path) as file:
        assert is_image(file)
        reader = ImageReader(file, LimitOptions(**limits))
        frames = list(reader.read(count, every=every))
    return frames, reader


def read_pixels(path, **limits):
    (frame,), reader = read(path, **limits)
    assert (frame.index, frame.time_s, reader.is_video) == (0, 0.0, False)
    assert frame.pixels.dtype == np.uint8
    return frame.pixels


def error_of(path, **limits):
    """Return the one-line message of the error."""
    with pytest.raises(UnreadableFileError) as caught:
        read(path, **limits)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def decode_with_opencv(path):
    decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded[..., ::-1]


def begins_as_image(path, data):
    path.write_bytes(data)
    with open_file(path) as file:
        found = is_image(file)
        assert file.handle.tell() == 0
    return found


def write(path, pixels, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if path.suffix == ".heic":
        file = pillow_heif.from_bytes(image.mode, image.size, image.tobytes())
        if "exif" in options:  # then the orientation is written into the container too
            file.info["exif"] = options.pop("exif").tobytes()
        if "icc_profile" in options:
            file.info.update(icc_profile=options.pop("icc_profile"), icc_profile_type="prof")
        file.save(path, **{"quality": 90} | options)
    else:
        image.save(path, **options)
    return path


def oriented(orientation):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return exif


def moving(count=6, width=48, height=32):
    """Return frames with a bright square that moves over grey: uint8[count, height, width, 3]."""
    frames = np.full((count, height, width, 3), (60, 90, 120), np.uint8)
    for index, frame in enumerate(frames):
        frame[8:20, 4 + 5 * index : 16 + 5 * index] = (250, 180, 40 * index)
    return frames


def write_animation(path, frames, **options):
    images = [Image.fromarray(frame) for frame in frames]
    options.setdefault("duration", 100)
    images[0].save(path, save_all=True, append_images=images[1:], **options)
    return path


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def apng(frames, delays_ms, default=None):
    """Return an animated PNG of RGB frames, after a default image that is not one of them."""

    def compress(pixels):
        return zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))

    count, height, width, _ = np.shape(frames)
    parts = [
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        chunk(b"acTL", struct.pack(">II", count, 0)),
    ]
    numbers = itertools.count()
    if default is not None:
        parts.append(chunk(b"IDAT", compress(default)))
    for index, (frame, delay_ms) in enumerate(zip(frames, delays_ms, strict=True)):
        control = struct.pack(
            ">IIIIIHHBB", next(numbers), width, height, 0, 0, delay_ms, 1000, 0, 0
        )
        parts.append(chunk(b"fcTL", control))
        if index == 0 and default is None:
            parts.append(chunk(b"IDAT", compress(frame)))
        else:
            parts.append(chunk(b"fdAT", struct.pack(">I", next(numbers)) + compress(frame)))
    return b"".join([*parts, chunk(b"IEND", b"")])


def tiff(*, channels, bits, kind, is_planar=False):
    """Return a TIFF of 5 x 4 pixels with the values 40000, 20000, 10000 or 0.5."""
    values = [40000, 20000, 10000, 500][:channels] if kind == "u" else [0.5] * channels
    pixels = np.broadcast_to(np.array(values), (4, 5, channels)).astype(f"<{kind}{bits // 8}")
    planes = list(np.moveaxis(pixels, 2, 0)) if is_planar else [pixels]
    sizes = [plane.nbytes for plane in planes]
    tags = {
        256: [5],
        257: [4],
        258: [bits] * channels,
        259: [1],
        262: [2 if channels > 2 else 1],
        273: [1024 + sum(sizes[:index]) for index in range(len(sizes))],
        277: [channels],
        278: [4],
        279: sizes,
        284: [2 if is_planar else 1],
        **({338: [2]} if channels in (2, 4) else {}),
        339: [{"u": 1, "f": 3}[kind]] * channels,
    }
    entries, rest = b"", b""
    for tag, numbers in tags.items():
        data = struct.pack(f"<{len(numbers)}H", *numbers)
        if len(data) > 4:
            offset = 8 + 2 + 12 * len(tags) + 4 + len(rest)
            rest, data = rest + data, struct.pack("<I", offset)
        entries += struct.pack("<HHI4s", tag, 3, len(numbers), data)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + rest
    return head.ljust(1024, b"\0") + b"".join(plane.tobytes() for plane in planes)


def icc_profile(colorants, name):
    """Return a display profile with the curve of sRGB. Reference: ICC.1:2001-04."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))

    numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    curve = b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, *(round(65536 * n) for n in numbers))
    text = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name.encode() + bytes(79)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1, 0.8249))}
    for letter, column in zip((b"r", b"g", b"b"), np.transpose(colorants), strict=True):
        tags |= {letter + b"XYZ": xyz(column), letter + b"TRC": curve}
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI", 128 + len(table + body), bytes(4), 0x02400000)
    head += b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28) + xyz((0.9642, 1, 0.8249))[8:]
    return head.ljust(128, b"\0") + table + body


def to_srgb(pixels, colorants):
    """Convert from linear light to linear light, between the curve of sRGB and its inverse."""
    encoded = pixels / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ (np.linalg.inv(SRGB) @ colorants).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * encoded


@pytest.mark.parametrize(
    "brands",
    ["heic mif1", "heix mif1", "hevc msf1", "mif1 heic", "msf1 hevc", "avif mif1", "avis msf1"],
)
def test_the_brands_of_images_are_not_those_of_videos(tmp_path, brands):
    major, other = (brand.encode() for brand in brands.split())
    image = b"\0\0\0\x18ftyp" + major + bytes(4) + b"miaf" + other + bytes(100)
    assert begins_as_image(tmp_path / "a.mp4", image)
    video = b"\0\0\0\x18ftypmp42" + bytes(4) + major + other + bytes(100)
    assert not begins_as_image(tmp_path / "a.heic", video)


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\x18ftypisom\0\0\2\0isomavc1" + bytes(100),
        b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(100),
        b"\0\0\0\x18ftypM4A \0\0\0\0isom" + bytes(100),
        b"\x1aE\xdf\xa3" + bytes(100),
        b"RIFF\x24\0\0\0AVI LIST" + bytes(100),
        b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
        b"\0\0\1\xba" + bytes(100),
        b"BM is a company. So is P5.".ljust(100),
        b"#EXTM3U\n".ljust(100),
        b"G" + bytes(187) + b"G" + bytes(187),
        b"\xff\x0a\0\0G" + bytes(187) + b"\xff\x0a\0\1G" + bytes(187),  # MPEG-TS of a camcorder
        b"x",
    ],
)
def test_a_video_or_text_does_not_begin_as_an_image(tmp_path, data):
    assert not begins_as_image(tmp_path / "a.png", data)


@pytest.mark.parametrize(
    ("name", "container", "codec", "tolerance"),
    [
        ("a.png", "png", "png", 0),
        ("a.bmp", "bmp", "bmp", 0),
        ("a.tiff", "tiff", "tiff", 0),
        ("a.ppm", "pnm", "pnm", 0),
        ("a.jpg", "jpeg", "jpeg", 1),
        ("a.webp", "webp", "webp", 1),
        ("a.jp2", "jpeg2000", "jpeg2000", 1),
        ("a.j2k", "jpeg2000", "jpeg2000", 1),
    ],
)
def test_a_still_is_decoded_as_by_opencv(tmp_path, astronaut, name, container, codec, tolerance):
    path = write(tmp_path / name, astronaut[:201, :301])
    path = path.rename(tmp_path / "upload")  # its name does not matter
    expected = decode_with_opencv(path)
    np.testing.assert_allclose(read_pixels(path).astype(int), expected, atol=tolerance)
    info = read(path)[1].info
    assert (info.container, info.codec, info.pixel_format) == (container, codec, "RGB")
    assert (info.width, info.height, info.num_frames) == (301, 201, 1)
    assert (info.duration_s, info.frame_rate, info.orientation) == (0, 0, "")


@pytest.mark.parametrize("depth", [8, 10])
def test_an_avif_is_decoded_as_by_ffmpeg(tmp_path, astronaut, depth):
    source = write(tmp_path / "a.png", astronaut[:200, :300])
    kind = "yuv420p10le" if depth == 10 else "yuv420p"
    encoder = ("-c:v", "libaom-av1", "-crf", 20, "-cpu-used", 8, "-still-picture", 1)
    path = make_clip(tmp_path / "a.avif", *encoder, "-pix_fmt", kind, source=source)
    pixels = read_pixels(path)
    (expected,) = decode_with_ffmpeg(path)
    # The scalers of chroma differ; swapped or shifted channels would differ by far more.
    assert np.abs(pixels.astype(int) - expected).mean() < 1.5
    info = read(path)[1].info
    assert (info.container, info.codec) == ("avif", "av1")
    assert info.pixel_format == ("RGB" if depth == 8 else "RGB;10")


@pytest.mark.parametrize("name", ["a.heic", "a.avif"])
def test_the_brand_of_an_image_may_be_a_general_one(tmp_path, astronaut, name):
    path = write(tmp_path / name, astronaut[:64, :96])
    data = path.read_bytes()
    expected = read(path)[1].info
    path.write_bytes(data[:8] + b"mif1" + data[12:])
    assert read(path)[1].info == expected


@pytest.mark.slow
def test_a_heic_of_tiles_is_read_whole(tmp_path, astronaut):
    scene = np.uint8(255 * resize(astronaut, (1100, 1500)))
    path = write(tmp_path / "iphone.heic", scene, tile_size=512, chroma=444)
    data = path.read_bytes()
    assert b"infe" in data
    assert data.count(b"hvc1") >= 9  # 3 x 3 tiles, each an item of its own
    assert b"grid" in data
    pixels = read_pixels(path)
    assert pixels.shape == scene.shape
    difference = np.abs(pixels.astype(int) - scene)
    for top, left in itertools.product(range(0, 1100, 512), range(0, 1500, 512)):
        assert difference[top : top + 512, left : left + 512].mean() < 2
    info = read(path)[1].info
    assert (info.container, info.codec, info.pixel_format) == ("heif", "hevc", "RGB")
    assert (info.width, info.height) == (1500, 1100)


def test_a_heic_of_tiles_is_decoded_as_by_ffmpeg(tmp_path, astronaut):
    scene = np.uint8(255 * resize(astronaut, (600, 700)))
    path = write(tmp_path / "iphone.heic", scene, tile_size=256)
    (expected,) = decode_with_ffmpeg(path)
    pixels = read_pixels(path)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 1.5


def test_a_heic_of_10_bits_is_scaled_to_8(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    deep = np.stack([ramp, ramp[::-1], ramp.T], axis=-1)
    image = pillow_heif.from_bytes("RGB;16", (64, 64), deep.tobytes())
    image.save(tmp_path / "a.heic", quality=-1, chroma=444)
    np.testing.assert_allclose(read_pixels(tmp_path / "a.heic"), deep / 257, atol=2)
    assert read(tmp_path / "a.heic")[1].info.pixel_format == "RGB;10"


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff", "a.avif", "a.heic"])
def test_an_image_is_shown_upright(tmp_path, name, orientation):
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[:32, :48], stored[:32, 48:], stored[32:, :48] = (200, 60, 60), (60, 180, 60), 240
    path = write(tmp_path / name, stored, exif=oriented(orientation))
    expected = SHOWN[orientation](stored)
    pixels = read_pixels(path)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 4
    info = read(path)[1].info
    assert (info.width, info.height) == (96, 64)
    words = ("" if orientation == 1 else info.orientation) or "upright"
    assert ("mirrored" in words) == (orientation in (2, 4, 5, 7))
    assert ("rotated" in words) == (orientation in (3, 4, 5, 6, 7, 8))


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("P", 0, (0, 0, 0)),
        ("RGBA", (200, 100, 0, 255), (200, 100, 0)),
        ("RGBA", (200, 100, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 100, 0, 51), (244, 224, 204)),  # a fifth
        ("LA", (100, 51), (224, 224, 224)),
    ],
)
def test_transparent_pixels_are_shown_on_white(tmp_path, mode, colour, expected):
    path = write(tmp_path / "a.png", Image.new(mode, (5, 4), colour))
    pixels = read_pixels(path)
    assert pixels.shape == (4, 5, 3)
    np.testing.assert_allclose(pixels, np.broadcast_to(expected, (4, 5, 3)), atol=1)
    assert read(path)[1].info.pixel_format == {"P": "P;1"}.get(mode, mode)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_transparent_colour_is_shown_on_white(tmp_path, suffix):
    pixels = np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.fromarray(pixels).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    path = write(tmp_path / f"a.{suffix}", image, transparency=1)
    expected = [[[255, 0, 0], [255, 255, 255]], [[0, 0, 255], [255, 255, 255]]]
    assert read_pixels(path).tolist() == expected


def test_the_transparent_colour_of_an_rgb_image_is_shown_on_white(tmp_path):
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    path = write(tmp_path / "a.png", image, transparency=(4, 5, 6))
    assert read_pixels(path).tolist() == [[[1, 2, 3], [255, 255, 255]]]


def test_cmyk_becomes_rgb(tmp_path):
    path = write(tmp_path / "a.tiff", Image.new("CMYK", (5, 4), (10, 100, 200, 51)))
    expected = [(255 - ink) * (255 - 51) / 255 for ink in (10, 100, 200)]
    np.testing.assert_allclose(read_pixels(path)[0, 0], expected, atol=1)
    assert read(path)[1].info.pixel_format == "CMYK"


@pytest.mark.parametrize("size", [(33, 47), (1, 1)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16"])
def test_images_of_odd_sizes_are_decoded_completely(tmp_path, size, mode):
    path = write(tmp_path / "a.png", Image.new(mode, size, 0))
    assert read_pixels(path).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_scaled_to_8(tmp_path, suffix, channels):
    stored = np.full((64, 64, channels), 65535, np.uint16)  # alpha: opaque
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    stored[..., 0] = ramp  # OpenCV writes blue first, and alpha last
    stored[..., 1:3] = 40000
    path = tmp_path / f"scan{suffix}"
    cv2.imwrite(str(path), stored)
    pixels = read_pixels(path)
    assert pixels.shape == (64, 64, 3)
    assert (pixels[0, 0, 2], pixels[-1, -1, 2]) == (0, 255)
    np.testing.assert_allclose(pixels[..., 2], ramp / 257, atol=1)
    other = np.repeat(ramp[..., None] / 257, 2, axis=2) if channels == 1 else 40000 / 257
    np.testing.assert_allclose(pixels[..., :2], other, atol=1)
    formats = {1: "I;16", 3: "RGB;16", 4: "RGBA;16"}
    assert read(path)[1].info.pixel_format == formats[channels]


def test_16_bit_grey_images_are_rotated_by_their_exif_flag(tmp_path):
    stored = np.full((20, 40), 40000, np.uint16)
    stored[:, :8] = 0
    path = write(tmp_path / "scan.png", stored, exif=oriented(6))
    pixels = read_pixels(path)
    assert pixels.shape == (40, 20, 3)
    assert pixels[:8].max() == 0
    np.testing.assert_allclose(pixels[8:], 40000 / 257, atol=1)


def test_the_tiff_of_these_tests_is_read(tmp_path):
    for channels in (1, 3):  # otherwise the refusals below could be due to a broken file
        (tmp_path / "scan.tiff").write_bytes(tiff(channels=channels, bits=16, kind="u"))
        pixels = read_pixels(tmp_path / "scan.tiff")
        np.testing.assert_allclose(pixels[0, 0], [156, 78, 39] if channels > 1 else 156, atol=1)


@pytest.mark.parametrize(
    "layout",
    [
        {"channels": 1, "bits": 32, "kind": "u"},
        {"channels": 1, "bits": 32, "kind": "f"},
        {"channels": 3, "bits": 32, "kind": "f"},
        {"channels": 2, "bits": 16, "kind": "u"},
        {"channels": 3, "bits": 16, "kind": "u", "is_planar": True},
    ],
    ids=["integers", "floats", "float colours", "grey and alpha", "planes"],
)
def test_an_image_of_another_depth_is_refused(tmp_path, capfd, layout):
    (tmp_path / "scan.tiff").write_bytes(tiff(**layout))
    assert "8 or 16 bits" in error_of(tmp_path / "scan.tiff")
    assert capfd.readouterr() == ("", "")


def test_a_frame_of_8k_is_copied_few_times(tmp_path):
    path = write(tmp_path / "8k.jpg", Image.new("RGB", (7680, 4320), (1, 2, 3)))
    tracemalloc.start()
    try:
        pixels = read_pixels(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Without the memory of Pillow itself: one copy, of four bytes per pixel.
    assert peak < 2.5 * pixels.nbytes


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.heic", "a.avif", "a.webp", "a.tiff"])
def test_a_wide_gamut_becomes_srgb(tmp_path, astronaut, name):
    photograph = astronaut[100:180, 180:260]
    profile = icc_profile(DISPLAY_P3, "Display P3")
    options = {} if name == "a.tiff" else {"quality": 100}
    path = write(tmp_path / name, photograph, icc_profile=profile, **options)
    expected = to_srgb(photograph, DISPLAY_P3)
    assert np.abs((expected - photograph).mean((0, 1))).max() > 3  # or the test proves nothing
    pixels = read_pixels(path)
    np.testing.assert_allclose(pixels.mean((0, 1)), expected.mean((0, 1)), atol=1)
    if name in ("a.png", "a.tiff"):
        np.testing.assert_allclose(pixels, expected, atol=1.5)
    assert read(path)[1].info.colour == "Display P3"


@pytest.mark.parametrize(
    "profile",
    [
        icc_profile(SRGB, "sRGB"),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        icc_profile(DISPLAY_P3, "Display P3").replace(b"RGB XYZ ", b"CMYKXYZ "),
        icc_profile(DISPLAY_P3, "Display P3")[:200],
        icc_profile(DISPLAY_P3, "Display P3").replace(b"rXYZ", b"none"),
        b"no profile",
    ],
    ids=["sRGB", "sRGB of LittleCMS", "CMYK", "cut short", "incomplete", "text"],
)
def test_srgb_and_unusable_profiles_change_no_pixel(tmp_path, astronaut, profile):
    photograph = astronaut[100:180, 180:260]
    path = write(tmp_path / "a.png", photograph, icc_profile=profile)
    np.testing.assert_array_equal(read_pixels(path), photograph)


def test_of_a_multi_page_tiff_the_first_page_is_read_with_a_warning(tmp_path):
    images = [Image.new("RGB", (8, 8), (40 * index, 0, 0)) for index in range(3)]
    images[0].save(tmp_path / "a.tiff", save_all=True, append_images=images[1:])
    (frame,), reader = read(tmp_path / "a.tiff", count=32)
    assert frame.pixels.max() == 0
    assert (reader.is_video, reader.info.num_frames) == (False, 1)
    assert reader.warnings == ["only the first page of 3 is analysed"]


def test_of_a_photograph_with_further_pictures_the_first_is_read(tmp_path, astronaut):
    image = Image.fromarray(astronaut)
    more = [image.resize((64, 64))]
    image.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=more, quality=75)
    (frame,), reader = read(tmp_path / "a.jpg", every=1)
    expected = decode_with_opencv(tmp_path / "a.jpg")
    np.testing.assert_allclose(frame.pixels.astype(int), expected, atol=1)
    assert (reader.is_video, reader.warnings) == (False, [])
    assert (reader.info.container, reader.info.jpeg_quality) == ("jpeg", 75)


def test_of_a_heif_file_the_primary_image_is_read_with_a_warning(tmp_path, astronaut):
    image = Image.fromarray(astronaut)
    file = pillow_heif.from_pillow(image.resize((64, 64)))
    file.add_from_pillow(image.resize((96, 80)))
    file.save(tmp_path / "a.heic", primary_index=1)
    (frame,), reader = read(tmp_path / "a.heic", every=1)
    assert frame.pixels.shape == (80, 96, 3)
    assert reader.warnings == ["only the primary image of 2 is analysed"]


@pytest.mark.parametrize(
    ("name", "tags"),
    [("a.dng", {50706: b"\1\4\0\0"}), ("a.nef", {254: 1}), ("a.tiff", {254: 1, 271: "NIKON"})],
)
def test_a_camera_raw_file_in_a_tiff_is_refused_by_name(tmp_path, name, tags):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
    Image.new("RGB", (16, 12)).save(tmp_path / name, "TIFF", tiffinfo=info)
    message = error_of(tmp_path / name)
    assert "a camera raw file" in message
    assert message.endswith("Export it as JPEG, PNG or TIFF.")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"II*\0\x10\0\0\0CR\2\0", "camera raw"),
        (b"IIRO\x08\0\0\0", "camera raw"),
        (b"IIU\0\x18\0\0\0", "camera raw"),
        (b"FUJIFILMCCD-RAW 0201", "camera raw"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "camera raw"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
    ],
)
def test_an_image_of_a_kind_that_is_not_read_is_refused_by_name(tmp_path, data, kind):
    (tmp_path / "upload.jpg").write_bytes(data + bytes(100))
    assert f"a {kind} file" in error_of(tmp_path / "upload.jpg")


@pytest.mark.parametrize(
    "name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.tiff", "a.heic", "a.avif", "a.jp2"]
)
def test_an_image_beyond_the_limit_is_refused_before_it_is_decoded(tmp_path, monkeypatch, name):
    path = write(tmp_path / name, np.zeros((64, 80, 3), np.uint8))
    assert read_pixels(path, max_pixels=64 * 80).shape == (64, 80, 3)
    assert read_pixels(path, max_pixels=0).shape == (64, 80, 3)

    def fail(*_):
        raise AssertionError

    monkeypatch.setattr(Image.Image, "load", fail)
    with open_file(path) as file, pytest.raises(UnreadableFileError) as caught:
        ImageReader(file, LimitOptions(max_pixels=64 * 80 - 1))
    limit = "Expected at most 5119 pixels per frame"
    assert str(caught.value) == (
        f"{limit}; got {path}, which has 80 x 64 (5120). Try a smaller copy, or --max-pixels 5120."
    )


def test_an_animation_is_refused_once_it_lasts_too_long(tmp_path):
    frames = [Image.new("RGB", (8, 8), (index * 9, 0, 0)) for index in range(20)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    assert len(read(path, every=1, max_duration_s=2.1)[0]) == 20
    with pytest.raises(UnreadableFileError, match="at most 1.2 s; got .*a.gif, .* 1.3 s") as caught:
        read(path, every=1, max_duration_s=1.2)
    assert caught.value.code == "too_long"
    still = write(tmp_path / "b.png", np.zeros((64, 80, 3), np.uint8))
    assert len(read(still, max_duration_s=1e-6)[0]) == 1


def test_the_limit_of_pillow_has_no_effect_and_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("a.png", "a.jpg", "a.webp", "a.bmp", "a.heic", "a.avif"):
        path = write(tmp_path / name, np.zeros((64, 80, 3), np.uint8))
        assert read_pixels(path).shape == (64, 80, 3)
        assert Image.MAX_IMAGE_PIXELS == 100


def test_a_frame_that_enlarges_a_gif_beyond_the_limit_is_refused(tmp_path):
    path = write_animation(tmp_path / "a.gif", moving(2))
    data = bytearray(path.read_bytes())
    position = data.index(b",", data.index(b"!\xf9", data.index(b",")))  # of the second frame
    data[position + 5 : position + 9] = struct.pack("<HH", 3000, 3000)
    path.write_bytes(data)
    assert "--max-pixels" in error_of(path, max_pixels=5_000_000)


def test_pillow_and_the_filters_of_warnings_are_the_same_after_reading(tmp_path, monkeypatch):
    path = write(tmp_path / "a.heic", np.zeros((64, 80, 3), np.uint8))
    before = {name: dict(getattr(Image, name)) for name in ("OPEN", "SAVE", "EXTENSION", "MIME")}
    filters = list(warnings.filters)
    entered, most_at_once = [], 0
    load = pillow_heif.HeifImageFile.load

    def load_slowly(image):
        nonlocal most_at_once
        entered.append(image)
        most_at_once = max(most_at_once, len(entered))
        time.sleep(0.02)
        entered.remove(image)
        return load(image)

    monkeypatch.setattr(pillow_heif.HeifImageFile, "load", load_slowly)
    threads = [threading.Thread(target=read_pixels, args=[path]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: dict(getattr(Image, name)) for name in before} == before
    assert list(warnings.filters) == filters
    # Otherwise one thread could restore the filters while another still changes them.
    assert most_at_once == 1


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.gif", {}, 0),
        ("a.gif", {"disposal": 1, "optimize": True}, 0),
        ("a.gif", {"disposal": 2}, 0),
        ("a.png", {}, 0),
        ("a.png", {"disposal": 1, "blend": 0}, 0),
        ("a.png", {"disposal": 2, "blend": 1}, 0),
        ("a.avif", {"quality": 90}, 2),
    ],
)
def test_an_animation_is_a_video_of_the_frames_that_ffmpeg_shows(
    tmp_path, name, options, tolerance
):
    path = write_animation(tmp_path / name, moving(), **options)
    frames, reader = read(path, every=1)
    # ffmpeg shows the still image of an AVIF first.
    shown = decode_with_ffmpeg(path, *(("-map", "0:v:1") if name == "a.avif" else ()))
    assert [frame.index for frame in frames] == list(range(6))
    for frame, expected in zip(frames, shown, strict=True):
        assert np.abs(frame.pixels.astype(int) - expected).mean() <= tolerance
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    info = reader.info
    assert (reader.is_video, info.num_frames) == (True, 6)
    assert (info.duration_s, info.frame_rate) == pytest.approx((0.6, 10))
    assert reader.warnings == []


def test_the_frames_of_a_webp_are_read(tmp_path):
    path = write_animation(
        tmp_path / "a.webp", moving(), duration=[50, 60, 70, 80, 90, 100], lossless=True
    )
    frames, reader = read(path, every=1)
    np.testing.assert_array_equal([frame.pixels for frame in frames], moving())
    expected = [0, 0.05, 0.11, 0.18, 0.26, 0.35]
    assert [frame.time_s for frame in frames] == pytest.approx(expected)
    assert reader.info.duration_s == pytest.approx(0.45)


def test_the_frames_of_an_avif_keep_their_times(tmp_path):
    encoder = ("-c:v", "libaom-av1", "-cpu-used", 8, "-crf", 30, "-f", "avif")
    source = "testsrc2=size=64x48:rate=24:duration=1"
    path = make_clip(tmp_path / "a.avif", *encoder, source=source)
    frames, reader = read(path, every=1)
    # In whole milliseconds; the sum of 24 rounded delays would be 8 ms off.
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(24) / 24, abs=0.0006)
    assert reader.info.frame_rate == pytest.approx(24, abs=0.05)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
@pytest.mark.parametrize(
    ("options", "indices"),
    [
        ({"count": 2}, [1, 4]),
        ({"count": 3}, [1, 3, 5]),
        ({"count": 99}, [0, 1, 2, 3, 4, 5]),
        ({"every": 4}, [0, 4]),
        ({"every": 99}, [0]),
    ],
)
def test_frames_of_an_animation_are_sampled_as_those_of_a_video(tmp_path, suffix, options, indices):
    path = write_animation(tmp_path / f"a.{suffix}", moving(), duration=80)
    whole, _ = read(path, every=1)
    frames, reader = read(path, **options)
    assert [frame.index for frame in frames] == indices
    for frame in frames:
        np.testing.assert_array_equal(frame.pixels, whole[frame.index].pixels)
        assert frame.time_s == whole[frame.index].time_s == pytest.approx(0.08 * frame.index)
    assert reader.info.duration_s == pytest.approx(0.48)


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_frames_without_a_delay_are_shown_as_long_as_in_browsers(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    delays_ms = [10, 0, 20, 200, 0, 30]
    if suffix == "png":
        path.write_bytes(apng(moving(), delays_ms))
    else:
        write_animation(path, moving(), duration=delays_ms)
    frames, reader = read(path, every=1)
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.22, 0.42, 0.52])
    assert reader.info.duration_s == pytest.approx(0.55)


def test_the_default_image_of_an_animated_png_is_not_a_frame(tmp_path):
    path = tmp_path / "a.png"
    default = np.full_like(moving()[0], 255)
    path.write_bytes(apng(moving(3), [40, 50, 60], default))
    frames, reader = read(path, every=1)
    np.testing.assert_array_equal([frame.pixels for frame in frames], moving(3))
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.04, 0.09])
    assert reader.info.num_frames == 3


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_an_animation_of_one_frame_is_a_still(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        path.write_bytes(apng(moving(1), [100]))
    else:
        write_animation(path, moving(1), lossless=True)
    np.testing.assert_array_equal(read_pixels(path), moving(1)[0])
    assert read(path)[1].info.duration_s == 0


def test_an_animation_is_rotated_by_its_exif_flag(tmp_path):
    path = write_animation(tmp_path / "a.png", moving(), exif=oriented(6))
    frames, reader = read(path, every=1)
    expected = [SHOWN[6](frame) for frame in moving()]
    np.testing.assert_array_equal([frame.pixels for frame in frames], expected)
    assert (reader.info.width, reader.info.height) == (48, 32)
    assert reader.info.orientation == "rotated by 90 degrees"


def test_an_animation_is_decoded_in_one_pass(tmp_path, monkeypatch):
    path = write_animation(tmp_path / "a.gif", moving())
    decoded = []
    load_end = GifImagePlugin.GifImageFile.load_end

    def count(image):
        decoded.append(image.tell())
        load_end(image)

    monkeypatch.setattr(GifImagePlugin.GifImageFile, "load_end", count)
    assert len(read(path, 3)[0]) == 3
    assert decoded == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize(
    "name",
    ["a.jpg", "prog.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tiff", "a.jp2", "a.ppm"]
    + ["a.avif", "a.heic", "tiles.heic", "moving.gif", "moving.png", "moving.webp", "moving.avif"],
)
def test_a_truncated_image_is_refused(tmp_path, capfd, astronaut, name, share):
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (4, 100, 80, 3), dtype=np.uint8)
    if name.startswith("moving"):
        write_animation(path, noise)
    else:
        options = {"prog.jpg": {"progressive": True}, "tiles.heic": {"tile_size": 64}}
        write(path, astronaut[:300, :400], **options.get(name, {}))
    assert read(path)[0]
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "cut short" in error_of(path)
    assert capfd.readouterr() == ("", "")


def test_bytes_after_the_end_of_an_image_are_ignored(tmp_path, astronaut):
    for name in ("a.jpg", "a.png", "a.heic", "a.gif"):
        path = write(tmp_path / name, astronaut[:64, :64])
        expected = read_pixels(path)
        for extra in (b"\0" * 99, b"\xff" * 99, b"\x7f\xff\xff\xffmore" + b"x" * 99):
            path.write_bytes(path.read_bytes() + extra)
            np.testing.assert_array_equal(read_pixels(path), expected)


@pytest.mark.parametrize("method", ["_open", "load", "seek"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (IndexError("list index out of range"), "IndexError list index out of range"),
        (TypeError("an integer is required"), "TypeError an integer is required"),
        (RuntimeError("line 1\nline 2"), "RuntimeError line 1 line 2"),
        (struct.error("unpack requires 4 bytes"), "error unpack requires 4 bytes"),
        (zlib.error("Error -3"), "error Error -3"),
        (KeyError(274), "KeyError 274"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (OSError("broken data stream"), "broken data stream"),
        (ValueError(), "ValueError"),
        (SyntaxError("not a PNG file"), "not a PNG file"),
        (Image.DecompressionBombError("too many"), "DecompressionBombError too many"),
    ],
)
def test_whatever_a_decoder_raises_names_its_file(tmp_path, monkeypatch, method, error, reason):
    path = write(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))

    def fail(*_):
        raise error

    monkeypatch.setattr(PngImagePlugin.PngImageFile, method, fail)
    message = error_of(path)
    # Pillow itself makes a SyntaxError of some of them while it reads the header.
    assert f"decoded: {reason}. " in message or (
        method == "_open" and isinstance(error, (IndexError, TypeError, KeyError, struct.error))
    )


def test_a_lack_of_memory_is_not_the_fault_of_the_file(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(MemoryError):
        read(path)


def test_errors_of_the_caller_pass_through(tmp_path):
    path = write_animation(tmp_path / "a.gif", moving())
    with open_file(path) as file:
        frames = ImageReader(file, LimitOptions()).read(1, every=1)
        assert isinstance(frames, Generator)
        next(frames)
        with pytest.raises(IndexError, match="of the caller"):
            frames.throw(IndexError("of the caller"))


def test_damaged_metadata_cost_nothing_and_print_nothing(tmp_path, capfd):
    exif = oriented(6)
    exif[ExifTags.Base.Software] = "a program"
    pixels = np.zeros((20, 40, 3), np.uint8)
    path = write(tmp_path / "a.jpg", pixels, exif=exif)
    whole = path.read_bytes()
    start = whole.index(b"Exif\0\0") + 6
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for damage in (b"XX", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"):
            path.write_bytes(whole[:start] + damage + whole[start + len(damage) :])
            assert read_pixels(path).shape in ((20, 40, 3), (40, 20, 3))
    assert caught == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("tags", "encoder"),
    [
        ({271: "Apple", 272: "iPhone 15", 305: "17.1.1"}, "Apple iPhone 15 17.1.1"),
        ({305: "Adobe Photoshop 25.0"}, "Adobe Photoshop 25.0"),
        ({272: "X100\0\0"}, "X100"),
        ({305: "a\nb\t c"}, "a b c"),
        ({305: 1000 * "x"}, 200 * "x"),
        ({}, ""),
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff", "a.heic", "a.avif"])
def test_the_encoder_is_what_the_file_states(tmp_path, name, tags, encoder):
    exif = Image.Exif()
    exif.update(tags)
    path = write(tmp_path / name, np.zeros((64, 64, 3), np.uint8), exif=exif)
    assert read(path)[1].info.encoder == encoder


def test_the_encoder_of_a_png_may_be_a_text(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "GIMP 2.10")
    path = write(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8), pnginfo=text)
    assert read(path)[1].info.encoder == "GIMP 2.10"


@pytest.mark.parametrize(
    ("quality", "mode"), [(30, "RGB"), (50, "L"), (75, "CMYK"), (90, "RGB"), (95, "L")]
)
def test_the_quality_of_a_jpeg_is_estimated(tmp_path, astronaut, quality, mode):
    image = Image.fromarray(astronaut).convert(mode)
    image.save(tmp_path / "a.jpg", quality=quality, progressive=True, subsampling=2)
    assert read(tmp_path / "a.jpg")[1].info.jpeg_quality == pytest.approx(quality, abs=2)


@pytest.mark.parametrize("quality", [1, 100])
def test_the_quality_of_a_jpeg_is_between_1_and_100(tmp_path, astronaut, quality):
    path = write(tmp_path / "a.jpg", astronaut, quality=quality)
    assert 1 <= read(path)[1].info.jpeg_quality <= 100


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.heic", "a.gif"])
def test_other_images_than_jpeg_have_quality_0(tmp_path, astronaut, name):
    assert read(write(tmp_path / name, astronaut[:64, :64]))[1].info.jpeg_quality == 0


def test_the_header_is_read_before_the_pixels(tmp_path, monkeypatch, astronaut):
    path = write(tmp_path / "a.heic", astronaut[:64, :96])
    monkeypatch.setattr(pillow_heif.HeifImageFile, "load", lambda _: pytest.fail("decoded"))
    with open_file(path) as file:
        reader = ImageReader(file, LimitOptions())
    assert (reader.info.width, reader.info.height, reader.is_video) == (96, 64, False)
