"""The bytes that a signer adds are counted, whatever their number."""

import tempfile

import av
import numpy as np
import pytest
from PIL import Image

from jdfd_keras.faces.credential_bytes import count_credential_bytes

c2pa = pytest.importorskip("c2pa")

from tests.faces.signed_files import make_chain, sign_file  # noqa: E402, needs c2pa


@pytest.fixture(scope="module")
def chain():
    return make_chain()


def write(path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    if path.suffix in (".mp4", ".mov", ".avi"):
        with av.open(str(path), "w") as output:
            stream = output.add_stream("mpeg4", 25)
            stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
            for shift in range(5):
                frame = av.VideoFrame.from_ndarray(np.roll(pixels, shift, axis=0))
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
    else:
        import pillow_heif

        pillow_heif.register_heif_opener()
        Image.fromarray(pixels).save(path)
    return path


def count(path):
    with open(path, "rb") as file:
        return count_credential_bytes(file)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "avi", "jpg", "png", "webp", "heic", "avif"])
@pytest.mark.parametrize("length", [0, 100_000])
def test_the_count_is_what_signing_added(tmp_path, chain, suffix, length):
    source = write(tmp_path / f"plain.{suffix}")
    signed = sign_file(source, tmp_path / f"signed.{suffix}", chain, title="a" * (length + 9))
    added = signed.stat().st_size - source.stat().st_size
    assert count(source) == 0
    assert added > length
    assert count(signed) == added


@pytest.mark.parametrize("suffix", ["mp4", "avi", "jpg", "png", "webp"])
def test_damage_raises_nothing_and_never_counts_more_than_the_file(tmp_path, chain, suffix):
    source = write(tmp_path / f"plain.{suffix}")
    content = sign_file(source, tmp_path / f"signed.{suffix}", chain).read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(content[: rng.integers(0, len(content) + 1)])
        for position in rng.integers(0, max(len(damaged), 1), 8):
            if damaged:
                damaged[position] = rng.integers(0, 256)
        with tempfile.TemporaryFile() as file:
            file.write(damaged)
            assert 0 <= count_credential_bytes(file) <= len(damaged) + 65536


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"GIF89a", b"RIFF", b"\0\0\0\x08ftyp"])
def test_other_files_have_none(content):
    with tempfile.TemporaryFile() as file:
        file.write(content)
        assert count_credential_bytes(file) == 0


def test_a_box_without_length_ends_the_walk():
    boxes = b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\0\0mdat" + bytes(100)
    with tempfile.TemporaryFile() as file:
        file.write(boxes)
        assert count_credential_bytes(file) == 0
