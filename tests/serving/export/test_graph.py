"""The serving graph: image formats, invalid images, calibration and metadata."""

import io
import struct
import zlib

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from jdfd_keras.client.metadata import Calibration, ModelMetadata, read_metadata
from jdfd_keras.client.signatures import MAX_IMAGE_PIXELS
from jdfd_keras.inference.explain import explain_faces
from jdfd_keras.inference.saved_model import serialize_example
from jdfd_keras.serving.export.graph import _read_face, build_signatures, is_readable

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
    function = tf.function(lambda encoded: _read_face(encoded, SIZE), input_signature=spec)

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
def test_lossless_images_are_decoded_exactly_and_not_resized(read, face, form, mode, options):
    image, valid = read(encode(face, form, mode=mode, **options))
    expected = np.asarray(Image.fromarray(face).convert(mode).convert("RGB"))
    assert valid
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("WEBP", "RGB", {}),
    ],
)
def test_lossy_images_are_decoded_as_by_pillow(read, face, form, mode, options):
    encoded = encode(face, form, mode=mode, quality=95, **options)
    image, valid = read(encoded)
    assert valid
    # Decoders differ in how they smooth the color planes.
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), float)
    assert np.abs(image - expected).mean() < 2


def test_of_16_bits_the_upper_8_are_used(read, face):
    deep = face.astype(np.uint16) * 256 + 77
    image, valid = read(cv2.imencode(".png", deep[..., ::-1])[1].tobytes())
    assert valid
    np.testing.assert_array_equal(image, face)


def with_thumbnail(jpeg: bytes, thumbnail: bytes) -> bytes:
    """Insert a complete JPEG as a segment at the start, as cameras do."""
    segment = b"Exif\0\0" + thumbnail
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def complete_images(face: np.ndarray) -> dict[str, bytes]:
    jpeg = encode(face, "JPEG")
    return {
        "bytes after the end": jpeg + b"more \xff\xda",
        "repeated FF before a marker": jpeg[:2] + b"\xff\xff" + jpeg[2:],
        "thumbnail": with_thumbnail(jpeg, encode(face[::4, ::4], "JPEG")),
        "many segments": jpeg[:2] + b"\xff\xfe\x00\x04ab" * 100 + jpeg[2:],
        "bytes after a PNG": encode(face, "PNG") + b"more",
    }


def png_of(width: int, height: int) -> bytes:
    """A PNG that is complete except for its pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_of(face: np.ndarray, width: int, height: int) -> bytes:
    """A JPEG whose frame header declares another size."""
    jpeg = encode(face, "JPEG")
    start = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:start] + struct.pack(">HH", height, width) + jpeg[start + 4 :]


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
    more_frames = [Image.fromarray(255 - face)]
    return {
        "nothing": b"",
        "text": b"no image",
        "GIF": encode(face, "GIF"),
        "TIFF": encode(face, "TIFF"),
        "animated WebP": encode(face, "WEBP", save_all=True, append_images=more_frames),
        "BMP with a palette": encode(face, "BMP", mode="P"),
        "first byte of a JPEG": jpeg[:1],
        "first bytes of a JPEG": jpeg[:3],
        "first segment of a JPEG": jpeg[:12],
        "half a JPEG": jpeg[: len(jpeg) // 2],
        "JPEG without its last byte": jpeg[:-1],
        "half a JPEG with a thumbnail": camera[: -len(jpeg) // 2],
        "JPEG truncated after its thumbnail": camera[: -len(jpeg) + 30],
        "first bytes of a PNG": png[:8],
        "header of a PNG": png[:33],
        "PNG without its end": png[:-12],
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
        lambda encoded: tf.map_fn(is_readable, encoded, fn_output_signature=tf.bool),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    assert MAX_IMAGE_PIXELS == 2**12 * 2**12
    complete["PNG just not too large"] = png_of(2**12, 2**12)
    found = check(tf.constant([*complete.values(), *unreadable.values()])).numpy()
    for name, readable in zip([*complete, *unreadable], found, strict=True):
        assert readable == (name in complete), name


def test_truncated_images_never_raise_in_the_check(face):
    check = tf.function(is_readable, input_signature=[tf.TensorSpec([], tf.string)])
    for form in ("JPEG", "PNG", "BMP", "WEBP"):
        encoded = encode(face[:8, :8], form)
        cuts = {*range(min(len(encoded), 64)), *range(0, len(encoded), 37)}
        readable = {cut for cut in cuts if check(tf.constant(encoded[:cut]))}
        # Missing pixels of a BMP are detected by the decoder.
        assert not readable or form == "BMP"


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


CALIBRATION = Calibration(temperature=0.2, uncertain_from=0.4, uncertain_to=0.7, data="clips")


@pytest.fixture(scope="module")
def calibrated(detector, tiny_faces):
    """The signatures of the detector with a temperature, and its metadata."""
    metadata = ModelMetadata(tiny_faces, CALIBRATION, "sharp", 3, "0123")
    return build_signatures(detector, metadata), metadata


def test_served_scores_are_calibrated(calibrated, face_batch, encoded_faces, expected_scores):
    signatures, _ = calibrated
    # sigmoid(logit / 0.2) is p^5 / (p^5 + (1 - p)^5).
    expected = expected_scores**5 / (expected_scores**5 + (1 - expected_scores) ** 5)
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
