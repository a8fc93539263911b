"""Damaged media files of every kind end in faces, no face, or one line, and harm no other file."""

import collections
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from jdfd_keras.faces.extract import Extraction
from jdfd_keras.faces.image import KINDS
from jdfd_keras.io.workers import LimitExceeded, WorkerCrashed, run_all
from jdfd_keras.options import FaceOptions, LimitOptions
from jdfd_keras.prediction.extraction import extract_file
from tests.faces.media_files import make_clip

OPTIONS = FaceOptions(face_size=71, frames_per_video=2, tracks="all")
LIMITS = LimitOptions(max_seconds=20, max_memory=2, max_pixels=4_000_000)
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
# Suffix and options of ffmpeg.
CLIPS = [
    ("mp4", X264),
    ("mp4", (*X264, "-movflags", "frag_keyframe+empty_moov")),
    ("mp4", (*X264, "-vf", "interlace", "-flags", "+ilme+ildct")),
    ("mp4", ("-c:v", "libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p10le")),
    ("mp4", ("-c:v", "libsvtav1", "-pix_fmt", "yuv420p")),
    ("mov", ("-c:v", "prores_ks", "-pix_fmt", "yuv422p10le")),
    ("mov", ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p")),
    ("mkv", (*X264, "-vf", "setsar=4/3")),
    ("mkv", ("-c:v", "ffv1", "-pix_fmt", "yuv420p")),
    ("webm", ("-c:v", "libvpx", "-pix_fmt", "yuv420p")),
    ("webm", ("-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p")),
    ("avi", ("-c:v", "mpeg4")),
    ("avi", ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p")),
    ("ts", X264),
    ("mts", ("-c:v", "mpeg2video", "-vf", "interlace", "-flags", "+ilme+ildct")),
    ("mpg", ("-c:v", "mpeg2video")),
    ("mpg", ("-c:v", "mpeg1video")),
    ("mxf", ("-c:v", "mpeg2video")),
    ("flv", ("-c:v", "flv1")),
    ("wmv", ("-c:v", "wmv2")),
    ("ogv", ("-c:v", "libtheora")),
    ("3gp", ("-c:v", "h263", "-s", "176x144")),
    ("h264", X264),
    ("gif", ()),
]
# File name and options of Pillow.
IMAGES = [
    ("a.jpg", {}),
    ("progressive.jpg", {"progressive": True}),
    ("a.png", {}),
    ("a.webp", {}),
    ("lossless.webp", {"lossless": True}),
    ("a.heic", {}),
    ("tiles.heic", {"tile_size": 64}),
    ("a.avif", {}),
    ("a.tif", {}),
    ("lzw.tif", {"compression": "tiff_lzw"}),
    ("a.bmp", {}),
    ("a.jp2", {}),
    ("a.ppm", {}),
    ("moving.png", {"save_all": True}),
    ("moving.webp", {"save_all": True}),
    ("moving.avif", {"save_all": True}),
]


def flip_bits(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Flip 1 to 64 bits, half the time within the header."""
    end = min(len(data), 512) if rng.integers(2) else len(data)
    data = data.copy()
    positions = rng.integers(0, end, 2 ** rng.integers(0, 7))
    data[positions] ^= (1 << rng.integers(0, 8, len(positions))).astype(np.uint8)
    return data


def cut_short(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return data[: rng.integers(0, len(data))]


def swap_chunks(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    first, second, third, fourth = np.sort(rng.integers(0, len(data) + 1, 4))
    return np.concatenate(
        [data[:first], data[third:fourth], data[second:third], data[first:second], data[fourth:]]
    )


def delete_chunk(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    start, end = np.sort(rng.integers(0, len(data) + 1, 2))
    return np.concatenate([data[:start], data[end:]])


def repeat_chunk(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    start, end = np.sort(rng.integers(0, len(data) + 1, 2))
    return np.concatenate([data[:end], data[start:]])


def overwrite_chunk(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    data, start = data.copy(), rng.integers(0, len(data))
    chunk = data[start : start + 2 ** rng.integers(0, 9)]
    chunk[:] = rng.choice([0, 255]) if rng.integers(2) else rng.bytes(1)[0]
    return data


def overwrite_number(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace 4 bytes, which may be a size or a count, by an extreme number."""
    end = min(len(data), 2048) if rng.integers(4) else len(data)
    data, start = data.copy(), rng.integers(0, max(end - 4, 1))
    number = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1])
    packed = np.frombuffer(number.astype(rng.choice([">u4", "<u4"])).tobytes(), np.uint8)
    data[start : start + 4] = packed[: len(data) - start]
    return data


MUTATIONS: list[Callable[[np.ndarray, np.random.Generator], np.ndarray]] = [
    *(flip_bits, cut_short, swap_chunks, delete_chunk, repeat_chunk, overwrite_chunk),
    overwrite_number,
]


def make_originals(folder: Path, astronaut: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Make a file of each kind; return their suffixes and bytes."""
    face = np.ascontiguousarray(astronaut[:208, 120:328])
    frames = np.stack([np.roll(face, step, axis=1) for step in range(6)])
    for number, (suffix, options) in enumerate(CLIPS):
        make_clip(folder / f"clip{number}.{suffix}", *options, source=frames)
    images = [Image.fromarray(frame) for frame in frames]
    for name, options in IMAGES:
        image = images[0]
        if name.endswith(".heic"):
            image = pillow_heif.from_pillow(image)
        elif "save_all" in options:
            options = options | {"append_images": images[1:3]}
        image.save(folder / name, **options)
    paths = sorted(folder.iterdir())
    return [(path.suffix, np.fromfile(path, np.uint8)) for path in paths]


def write_mutants(
    folder: Path, originals: list[tuple[str, np.ndarray]], num_files: int
) -> Iterator[Path]:
    """Write mutants of files, by a seed that is drawn anew; the reader deletes them."""
    rng = np.random.default_rng()
    for number in range(num_files):
        suffix, data = originals[number % len(originals)]
        for mutate in rng.choice(np.array(MUTATIONS), rng.integers(1, 3)):
            if len(data):
                data = mutate(data, rng)
        path = folder / f"mutant{number}{suffix}"
        path.write_bytes(data.tobytes())
        yield path


def name_outcome(path: Path, result: object) -> str:
    """Return what became of a file; "wrong" if it is none of what may."""
    if isinstance(result, Extraction):
        return "faces" if result.faces else "no face"
    if isinstance(result, LimitExceeded):
        return "beyond a limit"
    if isinstance(result, WorkerCrashed):
        return "process died"
    text = str(result)
    is_sentence = text.startswith("Expected ") and str(path) in text and text.isprintable()
    return "refused" if isinstance(result, OSError) and is_sentence else "wrong"


def run_mutants(
    folder: Path, astronaut: np.ndarray, num_files: int, num_workers: int = 2
) -> collections.Counter[str]:
    """Analyse mutants of all kinds in other processes; count the outcomes.

    Neither the seed nor a mutant is kept.
    """
    originals_folder = folder / "originals"
    originals_folder.mkdir()
    originals = make_originals(originals_folder, astronaut)
    mutants = write_mutants(folder, originals, num_files)
    extract = functools.partial(extract_file, options=OPTIONS, limits=LIMITS)
    outcomes: collections.Counter[str] = collections.Counter()
    since = time.monotonic()
    for path, result in run_all(extract, mutants, num_workers, LIMITS):
        outcomes[name_outcome(path, result)] += 1
        outcomes["late"] += time.monotonic() - since > LIMITS.max_seconds + 30
        since = time.monotonic()
        path.unlink()
    assert not list(folder.glob("mutant*"))
    return +outcomes


def test_every_kind_of_image_that_is_read_is_mutated():
    kinds = {Path(name).suffix.lstrip(".") for name, _ in IMAGES} | {
        suffix for suffix, _ in CLIPS if suffix == "gif"
    }
    names = {"jpg": "jpeg", "tif": "tiff", "heic": "heif", "jp2": "jpeg2000", "ppm": "pnm"}
    read = {kind for kind, (_, decoder) in KINDS.items() if decoder}
    assert {names.get(kind, kind) for kind in kinds} == read


def test_every_mutation_changes_the_bytes():
    rng = np.random.default_rng()
    data = np.frombuffer(rng.bytes(4096), np.uint8)
    for mutate in MUTATIONS:
        before = data.copy()
        mutants = [mutate(data, rng) for _ in range(20)]
        np.testing.assert_array_equal(data, before)
        assert any(mutant.tobytes() != data.tobytes() for mutant in mutants), mutate.__name__


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (OSError("Expected a video; got a.mp4. Copy it again."), "refused"),
        (OSError("Expected a video; got b.mp4. Copy it again."), "wrong"),
        (OSError("Invalid data: a.mp4"), "wrong"),
        (OSError("Expected a video; got a.mp4.\nTraceback"), "wrong"),
        (ValueError("Expected a video; got a.mp4. Copy it again."), "wrong"),
        (None, "wrong"),
        (WorkerCrashed("whose process died", "Try it."), "process died"),
        (LimitExceeded("which took long", "Try it."), "beyond a limit"),
    ],
)
def test_an_outcome_is_one_line_that_names_the_file(error, outcome):
    assert name_outcome(Path("a.mp4"), error) == outcome


@pytest.mark.slow
def test_mutants_of_every_kind_cost_only_themselves(tmp_path, astronaut, capfd):
    outcomes = run_mutants(tmp_path, astronaut, 400)
    printed = capfd.readouterr()
    assert outcomes.total() == 400, "a file without an outcome, or later than its limit"
    assert set(outcomes) <= {"faces", "no face", "refused", "process died", "beyond a limit"}
    assert outcomes["faces"] > 40
    assert outcomes["refused"] > 40
    assert "Traceback" not in printed.out + printed.err
