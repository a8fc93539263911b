"""Faces extracted in other processes are the same, and whatever harms one file costs that file."""

import hashlib
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from jdfd_keras.faces import extract
from jdfd_keras.faces.extract import Extraction, extract_faces
from jdfd_keras.faces.media import UnreadableFileError
from jdfd_keras.options import FaceOptions, LimitOptions
from jdfd_keras.prediction.extraction import ExtractedPart, Extractor, extract_file
from jdfd_keras.prediction.file_list import list_files

FACES = FaceOptions(face_size=71, frames_per_video=3, tracks="largest")


def extract_all(*arguments, **options):
    with Extractor(*arguments, **options) as extractor:
        for path, result in extractor.receive():
            if not isinstance(result, ExtractedPart):
                yield path, result


@pytest.fixture(scope="module")
def clip(clips_folder):
    return sorted(clips_folder.rglob("real/*.mp4"))[0]


def test_faces_from_another_process_are_the_same_and_an_error_is_a_result(clip):
    expected = extract_faces(clip, FACES)
    found = dict(extract_all([clip, clip.with_name("none.mp4")], FACES))
    missing = found.pop(clip.with_name("none.mp4"))
    assert isinstance(missing, FileNotFoundError) and "none.mp4, which is missing" in str(missing)
    (extraction,) = found.values()
    assert len(extraction.faces) == extraction.num_frames == 3
    for face, other in zip(extraction.faces, expected.faces, strict=True):
        np.testing.assert_array_equal(face.crop, other.crop)
        assert (face.frame_index, face.box) == (other.frame_index, other.box)
    assert extraction.sha256 == hashlib.sha256(clip.read_bytes()).hexdigest()
    assert extraction.info == expected.info


def test_many_crops_pass_in_a_file_that_is_deleted(clip, monkeypatch, tmp_path):
    import pickle

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(extract, "MAX_BYTES_IN_MEMORY", 2 * 71 * 71 * 3)
    extraction = extract_faces(clip, FACES)
    expected = [face.crop for face in extraction.faces]
    message = pickle.dumps(extraction)
    (copy,) = tmp_path.iterdir()
    assert copy.stat().st_size == 3 * 71 * 71 * 3
    found = pickle.loads(message)
    assert list(tmp_path.iterdir()) == []
    for face, crop in zip(found.faces, expected, strict=True):
        np.testing.assert_array_equal(face.crop, crop)
    assert found.faces[0].crops is found.faces[2].crops


def test_an_error_of_a_library_costs_its_file_in_one_line(clip, monkeypatch):
    def fail(*arguments):
        raise TypeError("unsupported\noperand")

    with monkeypatch.context() as patch:
        patch.setattr(extract, "align_face", fail)
        error = extract_file(clip, FACES, LimitOptions())
    assert isinstance(error, UnreadableFileError)
    assert f"got {clip}, which failed with 'TypeError: unsupported operand'" in str(error)
    assert isinstance(extract_file(clip, FACES, LimitOptions()), Extraction)


def test_a_lack_of_memory_in_opencv_is_not_an_error_of_the_file(clip, monkeypatch):
    def fail(*arguments):
        error = cv2.error("Failed to allocate 4 bytes")
        error.code = -4
        raise error

    monkeypatch.setattr(extract, "align_face", fail)
    with pytest.raises(MemoryError, match="OpenCV, at .*Failed to allocate"):
        extract_file(clip, FACES, LimitOptions())


def test_a_url_is_refused_and_not_mangled(tmp_path):
    for url in ("https://example.org/a.mp4", "rtsp://camera/1", Path("http://example.org/b.mp4")):
        with pytest.raises(ValueError, match=f"got {url}, which is a URL.*Download it first"):
            list_files(["a.mp4", url])
    (tmp_path / "Zoom: call.mp4").touch()
    assert list_files([tmp_path / "Zoom: call.mp4"]) == ([tmp_path / "Zoom: call.mp4"], [])


def test_an_empty_path_is_not_the_current_folder(clip, monkeypatch):
    monkeypatch.chdir(clip.parent)
    with pytest.raises(ValueError, match=r'got "". Try \. for'):
        list_files([""])
    assert Path(clip.name) in list_files(["."])[0]


def test_a_folder_with_the_name_of_a_video_is_a_folder(tmp_path):
    (tmp_path / "clip.mp4").mkdir()
    (tmp_path / "clip.mp4" / "inner.mp4").mkdir()
    (tmp_path / "clip.mp4" / "a.mp4").touch()
    (tmp_path / "clip.mp4" / "inner.mp4" / "b.png").touch()
    files = [tmp_path / "clip.mp4" / "a.mp4", tmp_path / "clip.mp4" / "inner.mp4" / "b.png"]
    assert list_files([tmp_path / "clip.mp4"]) == (files, [])
    assert list_files([tmp_path]) == (files, [])


LIMITS = LimitOptions(max_seconds=6, max_memory=0.8)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_whatever_harms_one_file_costs_that_file(clip, harm, tmp_path, num_workers):
    for name in ["a_good", *harm, "z_good"]:
        (tmp_path / f"{name}.mp4").write_bytes(clip.read_bytes())
    files, _ = list_files([tmp_path / f"{name}.mp4" for name in ("a_good", *harm, "z_good")])
    results = {path.stem: result for path, result in extract_all(files, FACES, num_workers, LIMITS)}
    for name in ("a_good", "z_good"):
        assert len(results.pop(name).faces) == 3
    assert set(results) == set(harm)
    for name, reason in harm.items():
        assert isinstance(results[name], UnreadableFileError)
        assert reason in str(results[name]) and f"{name}.mp4" in str(results[name])
        assert "\n" not in str(results[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exits", "killed", "memory", "allocates", "changes"])
def test_a_single_file_that_harms_its_process_is_named(clip, harm, tmp_path, name):
    path = tmp_path / f"{name}.mp4"
    path.write_bytes(clip.read_bytes())
    ((found, error),) = extract_all([path], FACES, limits=LIMITS)
    assert found == path and harm[name] in str(error)
