"""The serving graph: image formats, invalid images, calibration and metadata."""

import io
import struct
import zlib

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from jdfd_keras.client.calibration import Calibration
from jdfd_keras.client.metadata import ModelMetadata, read_metadata
from jdfd_keras.client.signatures import MAX_IMAGE_PIXELS
from jdfd_keras.faces.decode import read_frames
from jdfd_keras.inference.explain import explain_faces
from jdfd_keras.inference.saved_model import serialize_example
from jdfd_keras.serving.export.graph import read_face, read_header
from jdfd_keras.serving.export.serving_graph import build_signatures

TOLERANCE = 1e-5
SIZE = 71


def encode(face: np.ndarray, form: str, *, mode: str = "RGB", **options) -> bytes:
    """Encode an image with Pillow, independently of TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(face).convert(mode).save(file, form, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def face(face_batch):
    return face_batch[0]


@pytest.fixture(scope="module")
def read():
    """The check and the decoder as one graph; an image of SIZE is not resized."""
    spec = [tf.TensorSpec([], tf.string)]
    function = tf.function(lambda encoded: read_face(encoded, SIZE), input_signature=spec)

    def read(encoded: bytes) -> tuple[np.ndarray, bool]:
        image, valid = function(tf.constant(encoded))
        return image.numpy(), bool(valid)

    return read


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "L", {}),
        ("PNG", "LA", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("BMP", "RGB", {}),
        ("BMP", "RGBA", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {"lossless": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
    ],
)
@pytest.mark.slow
def test_lossless_images_are_decoded_exactly_and_not_resized(read, face, form, mode, options):
    image, valid = read(encode(face, form, mode=mode, **options))
    expected = np.asarray(Image.fromarray(face).convert(mode).convert("RGB"))
    assert valid
    np.testing.assert_array_equal(image, expected)


@pytest.fixture(scope="module")
def photograph(astronaut):
    """A real face, uint8[SIZE, SIZE, 3], unlike its own mirror image and rotations."""
    return cv2.resize(astronaut[60:202, 150:292], (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def decode(encoded: bytes, mode: str = "RGB") -> np.ndarray:
    """Decode an image with Pillow."""
    return np.asarray(Image.open(io.BytesIO(encoded)).convert(mode))


LOSSY = {
    "JPEG 4:4:4": ("JPEG", "RGB", {"subsampling": 0}),
    "JPEG 4:2:2": ("JPEG", "RGB", {"subsampling": 1}),
    "JPEG 4:2:0": ("JPEG", "RGB", {"subsampling": 2}),
    "progressive JPEG": ("JPEG", "RGB", {"progressive": True}),
    "JPEG of low quality": ("JPEG", "RGB", {"quality": 30}),
    "grey JPEG": ("JPEG", "L", {}),
    "CMYK JPEG": ("JPEG", "CMYK", {}),
    "WebP": ("WEBP", "RGB", {}),
    "WebP of low quality": ("WEBP", "RGB", {"quality": 30}),
}


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_images_are_decoded_exactly_as_by_pillow(read, photograph, name):
    form, mode, options = LOSSY[name]
    encoded = encode(photograph, form, mode=mode, **{"quality": 95} | options)
    image, valid = read(encoded)
    assert valid
    np.testing.assert_array_equal(image, decode(encoded))


@pytest.mark.parametrize("name", [*LOSSY, "PNG", "BMP", "transparent PNG", "turned JPEG"])
def test_served_bytes_have_the_score_of_the_decoded_pixels(engine, photograph, name):
    if name in LOSSY:
        form, mode, options = LOSSY[name]
        encoded = encode(photograph, form, mode=mode, **{"quality": 95} | options)
        pixels = decode(encoded)
    elif name == "transparent PNG":
        encoded = png_bytes(with_alpha(photograph))
        pixels = on_white(with_alpha(photograph))
    elif name == "turned JPEG":
        encoded = encode(photograph, "JPEG", exif=b"Exif\0\0" + exif_of(6))
        pixels = np.rot90(decode(encoded), -1)
    else:
        encoded, pixels = encode(photograph, name), photograph
    expected = engine.run("faces", {"faces": pixels[None]})["scores"]
    found = engine.run("serving_default", {"image_bytes": np.array([encoded], object)})["scores"]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    if name == "JPEG 4:2:0":
        fast = tf.io.decode_jpeg(encoded)[None].numpy()
        other = engine.run("faces", {"faces": fast})["scores"]
        assert abs(other - expected) > 10 * TOLERANCE, "this face cannot distinguish the two"


def test_of_16_bits_the_upper_8_are_used(read, face):
    deep = face.astype(np.uint16) * 256 + 77
    image, valid = read(cv2.imencode(".png", deep[..., ::-1])[1].tobytes())
    assert valid
    np.testing.assert_array_equal(image, face)


def with_alpha(face: np.ndarray) -> np.ndarray:
    """Add an alpha channel with all 256 values."""
    rows, columns = np.indices(face.shape[:2])
    return np.dstack([face, (rows * 71 + columns).astype(np.uint8)])


def on_white(rgba: np.ndarray) -> np.ndarray:
    """Composite on white, in whole numbers; halves do not occur."""
    colors, alpha = rgba[..., :3].astype(int), rgba[..., 3:].astype(int)
    return ((colors * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def png_bytes(pixels: np.ndarray, mode: str | None = None, **options) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, "PNG", **options)
    return file.getvalue()


def transparent_images(face: np.ndarray) -> dict[str, bytes]:
    rgba = with_alpha(face)
    deep = rgba.astype(np.uint16) * 257
    few_colors = Image.fromarray(face).quantize(16)
    palette, webp, lossless = io.BytesIO(), io.BytesIO(), io.BytesIO()
    few_colors.save(palette, "PNG", transparency=bytes(range(0, 256, 16)))
    Image.fromarray(rgba).save(webp, "WEBP")
    Image.fromarray(rgba).save(lossless, "WEBP", lossless=True)
    return {
        "PNG": png_bytes(rgba),
        "grey PNG with alpha": png_bytes(rgba, "LA"),
        "PNG with a transparent color": png_bytes(face, transparency=tuple(map(int, face[9, 9]))),
        "grey PNG with a transparent level": png_bytes(face, "L", transparency=int(face[9, 9, 0])),
        "bilevel PNG with a transparent level": png_bytes(face, "1", transparency=0),
        "PNG with a palette": palette.getvalue(),
        "PNG of 16 bits": cv2.imencode(".png", deep[..., [2, 1, 0, 3]])[1].tobytes(),
        "BMP": cv2.imencode(".bmp", rgba[..., [2, 1, 0, 3]])[1].tobytes(),
        "WebP": webp.getvalue(),
        "lossless WebP": lossless.getvalue(),
    }


def test_transparent_pixels_are_put_on_white(read, photograph):
    assert set(with_alpha(photograph)[..., 3].ravel()) == set(range(256))
    for name, encoded in transparent_images(photograph).items():
        image, valid = read(encoded)
        expected = on_white(decode(encoded, "RGBA"))
        assert valid
        assert (image != decode(encoded, "RGBA")[..., :3]).any(), f"{name} must be transparent"
        np.testing.assert_array_equal(image, expected, err_msg=name)


@pytest.mark.parametrize(("mode", "colors"), [("1", 2), ("P", 2), ("P", 4), ("P", 16)])
def test_opaque_images_of_few_bits_stay_opaque(read, photograph, mode, colors):
    image = Image.fromarray(photograph)
    file = io.BytesIO()
    (image.convert("1") if mode == "1" else image.quantize(colors)).save(file, "PNG")
    found, valid = read(file.getvalue())
    assert valid
    np.testing.assert_array_equal(found, decode(file.getvalue()))


def exif_of(
    orientation: int,
    order: str = ">",
    *,
    fields_before: int = 0,
    is_long: bool = False,
    offset: int = 8,
) -> bytes:
    """Exif metadata whose first directory is at `offset` and has more fields around the tag."""
    field = struct.pack(f"{order}HHI", 0x0112, 4 if is_long else 3, 1)
    field += struct.pack(
        f"{order}I" if is_long else f"{order}HH", orientation, *[0] * (not is_long)
    )
    others = [
        struct.pack(f"{order}HHIHH", tag, 3, 1, 7, 0x0112) for tag in range(1, fields_before + 1)
    ]
    after = struct.pack(f"{order}HHII", 0x0128, 3, 1, 0)
    fields = [*others, field, after]
    head = {">": b"MM\0*", "<": b"II*\0"}[order] + struct.pack(f"{order}I", offset)
    body = struct.pack(f"{order}H", len(fields)) + b"".join(fields) + bytes(4)
    return head + bytes(offset - 8) + body


def upright(encoded: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_images_are_turned_upright_as_by_pillow(read, photograph, form, order):
    stored = decode(encode(photograph, form))
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }
    for orientation, expected in turned.items():
        encoded = encode(photograph, form, exif=b"Exif\0\0" + exif_of(orientation, order))
        image, valid = read(encoded)
        assert valid
        np.testing.assert_array_equal(image, expected, err_msg=str(orientation))
        np.testing.assert_array_equal(image, upright(encoded))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_before_it_is_resized(read, photograph, orientation):
    exif = b"Exif\0\0" + exif_of(orientation)
    encoded = encode(photograph[:, 10:50], "JPEG", exif=exif)
    image, valid = read(encoded)
    assert valid
    expected = tf.image.resize(upright(encoded), [SIZE, SIZE], antialias=True)
    np.testing.assert_allclose(image, expected, atol=1e-3)


def segment(content: bytes) -> bytes:
    """A segment of a JPEG in which Exif and XMP are stored."""
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def chunk(kind: bytes, body: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + check


def turned_images(face: np.ndarray) -> dict[str, bytes]:
    """Images of orientation 6 that store it in unusual ways."""
    jpeg, png = encode(face, "JPEG"), encode(face, "PNG")
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"

    def jpeg_with(*contents: bytes) -> bytes:
        return jpeg[:2] + b"".join(map(segment, contents)) + jpeg[2:]

    exif = b"Exif\0\0" + exif_of(6)
    webp = bytearray(encode(face, "WEBP", exif=exif))
    webp += struct.pack("<4sI", b"EXIF", len(exif)) + exif
    start = webp.index(b"EXIF")
    webp[start : start + 4] = b"odd "  # the first is no longer Exif, the second has a prefix
    webp[4:8] = struct.pack("<I", len(webp) - 8)
    return {
        "after XMP": jpeg_with(xmp, exif),
        "before XMP and more Exif": jpeg_with(exif, xmp, b"Exif\0\0more of the first"),
        "after the tables": jpeg.replace(b"\xff\xc0", segment(exif) + b"\xff\xc0", 1),
        "as the 201st field": jpeg_with(b"Exif\0\0" + exif_of(6, fields_before=200)),
        "as the 201st field, II": jpeg_with(b"Exif\0\0" + exif_of(6, "<", fields_before=200)),
        "at the end of 60 KB": jpeg_with(b"Exif\0\0" + exif_of(6, offset=60_000)),
        "in 4 bytes": jpeg_with(b"Exif\0\0" + exif_of(6, is_long=True)),
        "in 4 bytes, II": jpeg_with(b"Exif\0\0" + exif_of(6, "<", is_long=True)),
        "after the pixels of a PNG": png[:-12] + chunk(b"eXIf", exif_of(6)) + png[-12:],
        "in a WebP with a prefix": bytes(webp),
    }


def test_the_orientation_is_found_wherever_it_is_stored(read, photograph):
    for name, encoded in turned_images(photograph).items():
        image, valid = read(encoded)
        assert valid, name
        np.testing.assert_array_equal(image, np.rot90(decode(encoded), -1), err_msg=name)
        np.testing.assert_array_equal(image, upright(encoded), err_msg=name)


def test_a_served_image_has_the_pixels_of_a_predicted_file(read, photograph, tmp_path):
    images = {
        name: encode(photograph, form, mode=mode, **options)
        for name, (form, mode, options) in LOSSY.items()
    }
    images |= transparent_images(photograph) | turned_images(photograph)
    images |= {form: encode(photograph, form) for form in ("PNG", "BMP")}
    for name, encoded in images.items():
        (tmp_path / "face").write_bytes(encoded)
        (frame,) = read_frames(tmp_path / "face", 1)
        np.testing.assert_array_equal(read(encoded)[0], frame.pixels, err_msg=name)


def without_orientation() -> dict[str, bytes]:
    """Exif metadata that state no valid orientation."""
    whole = exif_of(6)
    return {
        "nothing": b"",
        "another byte order": b"XX" + whole[2:],
        "another magic number": exif_of(6, "<").replace(b"II*", b"II+"),
        "0": exif_of(0),
        "9": exif_of(9),
        "65535": exif_of(65535),
        "directory at the end of 4 GiB": whole[:4] + b"\xff\xff\xff\xff" + whole[8:],
        "directory behind the end": whole[:4] + struct.pack(">I", len(whole)) + whole[8:],
        "no fields": whole[:8] + b"\0\0" + whole[10:],
        "truncated header": whole[:6],
        "truncated directory": whole[:9],
        "truncated field": whole[:21],
    }


def test_without_a_valid_orientation_an_image_is_upright(read, photograph):
    jpeg = encode(photograph, "JPEG")
    many = exif_of(1)
    many = many[:8] + b"\xff\xff" + many[10:]  # 65535 fields, of which two exist
    for name, exif in {**without_orientation(), "too many fields": many}.items():
        encoded = jpeg[:2] + segment(b"Exif\0\0" + exif) + jpeg[2:]
        image, valid = read(encoded)
        assert valid, name
        np.testing.assert_array_equal(image, decode(jpeg), err_msg=name)


def test_damaged_exif_metadata_never_fail_a_request(read, photograph):
    random = np.random.default_rng()  # drawn anew in each run
    whole = np.frombuffer(exif_of(6, fields_before=3), np.uint8)
    damaged = np.tile(whole, (300, 1))
    for row in damaged:
        row[random.integers(0, len(whole), 4)] = random.integers(0, 256, 4)
    jpeg = encode(photograph, "JPEG")
    rows = [jpeg[:2] + segment(b"Exif\0\0" + row.tobytes()) + jpeg[2:] for row in damaged]
    known = {turned.tobytes() for turned in all_orientations(decode(jpeg))}
    for row in rows:
        image, valid = read(row)
        assert valid
        assert image.astype(np.uint8).tobytes() in known


def all_orientations(image: np.ndarray) -> list[np.ndarray]:
    """Return the eight rotations and mirror images."""
    return [np.rot90(side, k) for side in (image, image[:, ::-1]) for k in range(4)]


def with_thumbnail(jpeg: bytes, thumbnail: bytes) -> bytes:
    """Insert a complete JPEG as a segment at the start, as cameras do."""
    return jpeg[:2] + segment(b"Exif\0\0" + thumbnail) + jpeg[2:]


def complete_images(face: np.ndarray) -> dict[str, bytes]:
    jpeg = encode(face, "JPEG")
    return {
        "bytes after the end": jpeg + b"more \xff\xda",
        "repeated FF before a marker": jpeg[:2] + b"\xff\xff" + jpeg[2:],
        "thumbnail": with_thumbnail(jpeg, encode(face[::4, ::4], "JPEG")),
        "many segments": jpeg[:2] + b"\xff\xfe\x00\x04ab" * 100 + jpeg[2:],
        "bytes after a PNG": encode(face, "PNG") + b"more",
        "PNG of many chunks": many_chunks(encode(face, "PNG")),
        "BMP from the top": bmp_of(face, SIZE, -SIZE),
        "BMP of 32 bits with masks": bmp_with_masks(face, "BGRA"),
    }


def png_of(width: int, height: int) -> bytes:
    """A PNG that is complete except for its pixels."""

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_of(face: np.ndarray, width: int, height: int) -> bytes:
    """A JPEG whose frame header declares another size."""
    jpeg = encode(face, "JPEG")
    start = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:start] + struct.pack(">HH", height, width) + jpeg[start + 4 :]


def many_chunks(png: bytes) -> bytes:
    """A PNG whose pixels are divided into chunks of a byte each."""
    start = png.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", png[start : start + 4])
    body = png[start + 8 : start + 8 + length]
    parts = b"".join(chunk(b"IDAT", body[at : at + 1]) for at in range(len(body)))
    return png[:start] + parts + png[start + 12 + length :]


def bmp_with_masks(face: np.ndarray, order: str) -> bytes:
    """A BMP of 32 bits that states in masks in which order it stores the colors."""
    bmp = bytearray(cv2.imencode(".bmp", with_alpha(face))[1])
    for color, at in zip("RGBA", range(54, 70, 4), strict=True):
        bmp[at : at + 4] = struct.pack("<I", 255 << 8 * order.index(color))
    return bytes(bmp)


def animated(face: np.ndarray, form: str) -> bytes:
    return encode(face, form, save_all=True, append_images=[Image.fromarray(255 - face)])


def bmp_of(face: np.ndarray, width: int, height: int) -> bytes:
    bmp = encode(face, "BMP")
    return bmp[:18] + struct.pack("<ii", width, height) + bmp[26:]


def webp_of(face: np.ndarray, side: int, **options) -> bytes:
    """A WebP of one of three kinds, whose header declares a square of another size."""
    webp = bytearray(encode(face, "WEBP", **options))
    kind = bytes(webp[12:16])
    if kind == b"VP8 ":
        webp[26:30] = struct.pack("<HH", side, side)
    elif kind == b"VP8L":
        webp[21:25] = struct.pack("<I", (side - 1) | (side - 1) << 14)
    else:
        webp[24:30] = struct.pack("<I", side - 1)[:3] * 2
    return bytes(webp)


def unreadable_images(face: np.ndarray) -> dict[str, bytes]:
    jpeg, png, webp = encode(face, "JPEG"), encode(face, "PNG"), encode(face, "WEBP")
    camera = with_thumbnail(jpeg, encode(face[::4, ::4], "JPEG"))
    return {
        "nothing": b"",
        "text": b"no image",
        "GIF": encode(face, "GIF"),
        "TIFF": encode(face, "TIFF"),
        "animated GIF": animated(face, "GIF"),
        "animated WebP": animated(face, "WEBP"),
        "animated PNG": animated(face, "PNG"),
        "WebP of another kind": webp[:12] + b"VP8?" + webp[16:],
        "BMP with a palette": encode(face, "BMP", mode="P"),
        "BMP with another order of colors": bmp_with_masks(face, "RGBA"),
        "BMP without its last byte": encode(face, "BMP")[:-1],
        "bytes after a BMP": encode(face, "BMP") + b"\0",
        "first byte of a JPEG": jpeg[:1],
        "first bytes of a JPEG": jpeg[:3],
        "first segment of a JPEG": jpeg[:12],
        "JPEG without a frame": jpeg.replace(b"\xff\xc0", b"\xff\xef"),
        "half a JPEG": jpeg[: len(jpeg) // 2],
        "JPEG without its last byte": jpeg[:-1],
        "half a JPEG with a thumbnail": camera[: -len(jpeg) // 2],
        "JPEG truncated after its thumbnail": camera[: -len(jpeg) + 30],
        "first bytes of a PNG": png[:8],
        "header of a PNG": png[:33],
        "PNG without its end": png[:-12],
        "PNG without its last byte": png[:-1],
        "first bytes of a BMP": b"BM",
        "first bytes of a WebP": webp[:12],
        "WebP without its last byte": webp[:-1],
        "huge PNG": png_of(100_000, 100_000),
        "PNG of 2^64 pixels": png_of(2**32 - 1, 2**32 - 1),
        "PNG of no pixel": png_of(0, 71),
        "PNG just too large": png_of(2**12, 2**12 + 1),
        "huge JPEG": jpeg_of(face, 65_000, 65_000),
        "JPEG of no pixel": jpeg_of(face, 71, 0),
        "huge BMP": bmp_of(face, 2**30, 71),
        "huge BMP from below": bmp_of(face, 2**15, -(2**15)),
        "huge WebP": webp_of(face, 2**14 - 1),
        "huge lossless WebP": webp_of(face, 2**14 - 1, lossless=True),
        "huge extended WebP": webp_of(face, 2**14 - 1, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
    }


def test_the_check_accepts_complete_images_only(face):
    complete, unreadable = complete_images(face), unreadable_images(face)
    check = tf.function(
        lambda encoded: tf.map_fn(
            lambda one: read_header(one)[0], encoded, fn_output_signature=tf.bool
        ),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    assert MAX_IMAGE_PIXELS == 2**12 * 2**12
    complete["PNG just not too large"] = png_of(2**12, 2**12)
    found = check(tf.constant([*complete.values(), *unreadable.values()])).numpy()
    for name, readable in zip([*complete, *unreadable], found, strict=True):
        assert readable == (name in complete), name


def test_truncated_images_never_raise_in_the_check(face):
    check = tf.function(
        lambda encoded: read_header(encoded)[0], input_signature=[tf.TensorSpec([], tf.string)]
    )
    for form in ("JPEG", "PNG", "BMP", "WEBP"):
        encoded = encode(face[:8, :8], form)
        cuts = {*range(min(len(encoded), 64)), *range(0, len(encoded), 37)}
        assert not any(check(tf.constant(encoded[:cut])) for cut in cuts)


def test_an_invalid_image_affects_only_its_own_row(engine, face, encoded_faces):
    bad = unreadable_images(face)
    rows = [encoded_faces[0], *bad.values(), *encoded_faces[1:]]
    is_bad = np.array([row not in encoded_faces for row in rows])
    # A batch of the same size without invalid images: the other scores must be equal.
    good = [encoded_faces[3] if bad_row else row for row, bad_row in zip(rows, is_bad, strict=True)]
    expected = engine.run("serving_default", {"image_bytes": np.array(good, object)})["scores"]

    found = engine.run("serving_default", {"image_bytes": np.array(rows, object)})
    np.testing.assert_array_equal(found["valid"], ~is_bad)
    assert np.isnan(found["scores"][is_bad]).all()
    np.testing.assert_array_equal(found["scores"][~is_bad], expected[~is_bad])

    examples = [serialize_example({"image/encoded": [row]}) for row in rows]
    outputs = engine.run("classify", {"inputs": np.array(examples, object)})
    assert outputs.keys() == {"classes", "scores"}
    assert np.isnan(outputs["scores"][is_bad]).all()
    np.testing.assert_array_equal(outputs["scores"][~is_bad, 1], expected[~is_bad])


def test_an_image_only_the_decoder_rejects_fails_the_request(engine, encoded_faces):
    rows = np.array([encoded_faces[0], png_of(71, 71)], object)
    with pytest.raises(tf.errors.InvalidArgumentError, match="PNG"):
        engine.run("serving_default", {"image_bytes": rows})


def test_explain_returns_the_map_of_explain_faces_before_resizing(engine, detector, face_batch):
    cam = engine.run("explain", {"faces": face_batch})["cam"]
    assert cam.shape == (4, 3, 3)
    assert cam.max() > 0.1, "an empty map would hide a mistake"
    resized = [cv2.resize(cells, (SIZE, SIZE)) for cells in cam]
    expected = explain_faces(detector, face_batch).cam
    np.testing.assert_allclose(resized, expected, atol=1e-4)


CALIBRATION = Calibration(
    temperature=0.2,
    bias=-0.5,
    uncertain_from=0.4,
    uncertain_to=0.7,
    num_real=2,
    num_fake=1,
    real_scores=(0.1, 0.2),
    fake_scores=(0.9,),
    data="clips",
)


@pytest.fixture(scope="module")
def calibrated(detector, tiny_faces):
    """The signatures of the detector with a temperature, and its metadata."""
    metadata = ModelMetadata(tiny_faces, CALIBRATION, "sharp", 3, "0123")
    return build_signatures(detector, metadata), metadata


@pytest.mark.slow
def test_served_scores_are_calibrated(calibrated, face_batch, encoded_faces, expected_scores):
    signatures, _ = calibrated
    # sigmoid(logit / 0.2 - 0.5) has the odds p^5 / (1 - p)^5 / sqrt(e).
    odds = (expected_scores / (1 - expected_scores)) ** 5 / np.sqrt(np.e)
    expected = odds / (1 + odds)
    np.testing.assert_allclose(CALIBRATION.apply(expected_scores), expected, atol=1e-6)
    assert np.abs(expected - expected_scores).max() > 0.01
    scores = signatures["serving_default"](tf.constant(encoded_faces))["scores"]
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)
    scores = signatures["faces"](tf.constant(face_batch))["scores"]
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)
    examples = [serialize_example({"image/encoded": [face]}) for face in encoded_faces]
    scores = signatures["classify"](tf.constant(examples))["scores"]
    np.testing.assert_allclose(scores, np.stack([1 - expected, expected], 1), atol=TOLERANCE)


def test_without_a_decoder_the_signature_reconstruct_is_missing(calibrated, detector):
    signatures, metadata = calibrated
    bare = keras.Model(detector.input, {"classification": detector.output["classification"]})
    assert build_signatures(bare, metadata).keys() == signatures.keys() - {"reconstruct"}
    assert "reconstruct" in signatures


def test_the_metadata_signature_returns_the_metadata(calibrated):
    signatures, metadata = calibrated

    def ask(names):
        return signatures["metadata"](tf.constant(names))["contents"].numpy()

    assert read_metadata(ask, "model") == metadata
    assert ask(["model.json", "secrets.json", ""])[1:].tolist() == [b"", b""]


def test_without_calibration_its_text_is_empty(engine, tiny_faces):
    def ask(names):
        return engine.run("metadata", {"names": names})["contents"]

    metadata = read_metadata(ask, "model")
    assert metadata == ModelMetadata(tiny_faces, None, "tiny", 1, metadata.digest)
