import json

import h5py
import numpy as np
import pytest

from jdfd_keras.cli import import_weights
from jdfd_keras.cli.main import main
from jdfd_keras.model.weight_import import SOURCES
from jdfd_keras.training.run_folder import find_split_table, load_run_model, was_imported


@pytest.fixture
def published(tmp_path):
    """A weights file of Meso4, as Keras 2 wrote it."""
    shapes = {}
    for index, (kernel, before, after) in enumerate(
        [(3, 3, 8), (5, 8, 8), (5, 8, 16), (5, 16, 16)], start=5
    ):
        shapes[f"conv2d_{index}"] = [(kernel, kernel, before, after), (after,)]
        shapes[f"batch_normalization_{index}"] = [(after,)] * 4
    shapes |= {"dense_3": [(1024, 16), (16,)], "dense_4": [(16, 1), (1,)]}
    with h5py.File(tmp_path / "Meso4.h5", "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in shapes]
        for name, parts in shapes.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [b"%d" % index for index in range(len(parts))]
            for index, shape in enumerate(parts):
                group[str(index)] = np.full(shape, 0.01, np.float32)
    return tmp_path / "Meso4.h5"


def test_the_command_offers_every_source():
    assert set(import_weights.SOURCES) == set(SOURCES)


def test_mesonet_becomes_a_run_folder_of_unknown_training(published, tmp_path, capsys):
    out = tmp_path / "meso4"
    words = ["import-weights", str(published), "--from", "mesonet-meso4", "--out", str(out)]
    assert main([*words, "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert facts["network"] == "meso4"
    assert facts["file"] == "Meso4.h5"
    assert load_run_model(out).faces.face_size == 256
    assert was_imported(out)
    assert find_split_table(out) == ""
    assert json.loads((out / "options.json").read_text())["imported"] == facts
    assert main(words) == 1
    assert "new or empty folder" in capsys.readouterr().err


@pytest.mark.slow
def test_the_report_says_that_leakage_cannot_be_checked(
    published, tmp_path, example_folder, capsys
):
    import jdfd_keras as jk

    out, prepared = tmp_path / "meso4", tmp_path / "prepared"
    main(["import-weights", str(published), "--from", "mesonet-meso4", "--out", str(out)])
    jk.prepare(
        example_folder / "videos", prepared, jk.FaceOptions(frames_per_video=2, face_size=256)
    )
    protocol = jk.evaluate(out, prepared, jk.EvaluateOptions(n_resamples=0)).protocol
    assert protocol.leakage == "not checked: the training data of this model is unknown"
    assert protocol.training is None
    assert protocol.training_faces is None
    assert "their training is unknown" in protocol.checkpoint


def test_other_files_are_one_line_on_stderr(tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(b"not weights")
    words = ["import-weights", str(tmp_path / "x.pth"), "--from", "faceforensics"]
    assert main([*words, "--out", str(tmp_path / "x.weights.h5")]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "Expected the weights of a PyTorch network" in error[0]


def test_places_that_cannot_be_written_are_errors_before_the_import(tmp_path, capsys, monkeypatch):
    file = tmp_path / "x.pth"
    file.write_bytes(b"not weights")
    for source in ("faceforensics", "mesonet-meso4"):
        words = ["import-weights", str(file), "--from", source, "--out"]
        assert main([*words, str(file / "below" / "x.weights.h5")]) == 1
        assert f"got {file}, which is not a folder. Try" in capsys.readouterr().err
        with monkeypatch.context() as patched:
            patched.setattr(import_weights.os, "access", lambda *_: False)
            assert main([*words, str(tmp_path / "new" / "x.weights.h5")]) == 1
        assert f"got {tmp_path}, in which you may not write. Try" in capsys.readouterr().err


def test_a_missing_file_is_an_error_with_advice(tmp_path, capsys):
    words = ["import-weights", str(tmp_path / "none.pth"), "--from", "faceforensics", "--out"]
    assert main([*words, str(tmp_path / "x.weights.h5")]) == 1
    error = capsys.readouterr().err
    assert f"got {tmp_path / 'none.pth'}, which is missing. Check the path" in error
    assert "Errno" not in error
