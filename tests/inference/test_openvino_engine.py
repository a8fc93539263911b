import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from jdfd_keras.inference.backends import load_predictor
from jdfd_keras.inference.engine import Engine
from jdfd_keras.inference.openvino_engine import OpenVINOEngine, load_engine
from jdfd_keras.inference.openvino_network import MAX_STREAMS, read_network
from jdfd_keras.io.console import import_openvino
from jdfd_keras.io.files import save_options, sha256_of
from jdfd_keras.io.processor import has_bfloat16
from jdfd_keras.options import EngineOptions

# Refuses the import of packages in every process that has it on its path.
REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tensorflow", "keras", "openvino_telemetry"}:
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
"""
AUTO, OPENVINO, FLOAT32 = (
    EngineOptions(),
    EngineOptions(backend="openvino"),
    EngineOptions(precision="float32"),
)


needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="the processor has no bfloat16")


@pytest.fixture(params=["not by OpenVINO", "by conversions"])
def without_bfloat16(monkeypatch, request):
    """Let the processor not compute in bfloat16, or only by conversions."""
    if request.param == "by conversions":
        monkeypatch.setattr("jdfd_keras.inference.openvino_network.has_bfloat16", lambda: False)
    else:
        monkeypatch.setattr("openvino.Core.get_property", lambda *_: ["FP32", "INT8"])


@pytest.fixture(scope="module")
def loaded(exported):
    """The engine of the exported model in float32."""
    with OpenVINOEngine(exported, "float32") as engine:
        yield engine


@pytest.fixture
def version(exported, tmp_path):
    """A copy of the exported version, whose files are links: replace them, never write to them."""
    return shutil.copytree(exported, tmp_path / "tiny" / "1", copy_function=os.link)


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def change_facts(version, **changes):
    path = version / "openvino" / "engine.json"
    replace(path, json.dumps(json.loads(path.read_text()) | changes).encode())


def test_outputs_in_float32_are_those_of_tensorflow(loaded, engine, face_batch, expected_scores):
    assert loaded.outputs == {"scores", "cam", "reconstruction"}
    scores = loaded.run("scores", face_batch)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    for output, signature in (("cam", "explain"), ("reconstruction", "reconstruct")):
        expected = engine.run(signature, {"faces": face_batch})[output]
        # The decoder has random weights, whose reconstructions are close to 0.
        tolerance = min(1e-5, 1e-3 * np.ptp(expected))
        np.testing.assert_allclose(loaded.run(output, face_batch), expected, rtol=0, atol=tolerance)


def test_faces_that_are_no_whole_numbers_are_scored_as_they_are(loaded, detector, face_batch):
    faces = face_batch * np.float32(0.7) + np.float32(0.3)
    expected = detector.predict(faces, verbose=0)["classification"][:, 0]
    np.testing.assert_allclose(loaded.run("scores", faces), expected, atol=1e-5)


def test_a_score_does_not_depend_on_the_other_faces_of_a_call(loaded, face_batch):
    faces = np.concatenate([face_batch, face_batch[::-1], 255 - face_batch])[:11]
    together = loaded.run("scores", faces)
    assert len(np.unique(together)) > 4
    alone = np.concatenate([loaded.run("scores", face[None]) for face in faces])
    np.testing.assert_array_equal(together, alone)
    order = np.random.default_rng(0).permutation(len(faces))
    np.testing.assert_array_equal(loaded.run("scores", faces[order]), together[order])


def test_no_faces_have_no_scores(loaded, face_batch):
    assert loaded.run("scores", face_batch[:0]).shape == (0,)
    assert loaded.run("cam", face_batch[:0]).shape == (0, 3, 3)
    assert loaded.run("reconstruction", face_batch[:0]).shape == (0, 71, 71, 3)


def test_faces_of_another_size_are_an_error(loaded):
    with pytest.raises(ValueError, match=r"faces of \(71, 71, 3\).*got uint8\[2, 64, 64, 3\]"):
        loaded.run("scores", np.zeros((2, 64, 64, 3), np.uint8))


def test_threads_may_call_it_at_once(exported, face_batch, expected_scores):
    results = {}
    with OpenVINOEngine(exported, "float32") as engine:

        def call(key):
            results[key] = engine.run("scores", face_batch[key % 4 :])

        threads = [threading.Thread(target=call, args=(key,)) for key in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for key, scores in results.items():
        np.testing.assert_allclose(scores, expected_scores[key % 4 :], atol=1e-5)
    assert len(results) == 8


@pytest.mark.parametrize(("cores", "streams"), [(1, 1), (3, 3), (64, MAX_STREAMS)])
def test_the_number_of_faces_in_memory_is_limited(
    exported, face_batch, monkeypatch, cores, streams
):
    import openvino

    compile_model, settings = openvino.Core.compile_model, []

    def record(core, model, device, options):
        settings.append(options)
        return compile_model(core, model, device, options | {"INFERENCE_NUM_THREADS": 2})

    monkeypatch.setattr("jdfd_keras.inference.openvino_network._count_cores", lambda: cores)
    monkeypatch.setattr("openvino.Core.compile_model", record)
    with OpenVINOEngine(exported, "float32") as engine:
        engine.run("cam", face_batch)
    (options,) = settings
    assert (options["NUM_STREAMS"], options["INFERENCE_NUM_THREADS"]) == (streams, cores)
    assert options["INFERENCE_PRECISION_HINT"] == "f32"


@needs_bfloat16
def test_bfloat16_moves_scores_little_and_maps_not_at_all(
    exported, loaded, face_batch, expected_scores
):
    with OpenVINOEngine(exported) as engine:
        assert engine.engine == Engine("openvino", import_openvino(), "bfloat16")
        scores, cam = engine.run("scores", face_batch), engine.run("cam", face_batch)
    np.testing.assert_allclose(scores, expected_scores, atol=0.02)
    assert np.abs(scores - expected_scores).max() > 1e-5, "the precision was not used"
    np.testing.assert_array_equal(cam, loaded.run("cam", face_batch))
    # The last layer is not rounded to bfloat16, whose numbers have 16 zero bits as float32.
    assert (scores.view(np.uint32) & 0xFFFF).all()


def test_the_engine_is_that_of_the_options(exported, loaded, tiny_faces):
    for options, precision in (
        (FLOAT32, "float32"),
        (EngineOptions("openvino", "float32"), "float32"),
    ):
        engine, note = load_engine(exported, options)
        assert note == ""
        assert engine.engine == Engine("openvino", import_openvino(), precision)
        assert engine.metadata.faces == tiny_faces and engine.metadata.name == "tiny"
        engine.close()
    assert load_engine(exported, EngineOptions("tensorflow", "float32")) == (None, "")


def no_folder(version):
    shutil.rmtree(version / "openvino")


def damage(version):
    replace(version / "openvino" / "engine.json", b"{")


def remove(version):
    (version / "openvino" / "float32.bin-00001-of-00002").unlink()


def remove_all_weights(version):
    for path in (version / "openvino").glob("float32.bin*"):
        path.unlink()


def add_part(version):
    (version / "openvino" / "float32.bin-00002-of-00003").write_bytes(b"more")


def swap_parts(version):
    first, second = sorted((version / "openvino").glob("float32.bin-*"))
    content = first.read_bytes()
    replace(first, second.read_bytes())
    replace(second, content)


def change_graph(version):
    replace(version / "openvino" / "float32.xml", b"<net/>")


def change_model(version):
    replace(version / "saved_model.pb", (version / "saved_model.pb").read_bytes() + b" ")


def change_weights(version):
    replace(version / "variables" / "variables.index", b"other")


def unlist(version):
    change_facts(version, files={})


def change_image_reader(version):
    replace(version / "openvino" / "image_reader" / "saved_model.pb", b"other")


def without_image_reader(version):
    shutil.rmtree(version / "openvino" / "image_reader")


def damage_metadata(version):
    change_facts(version, metadata={"model.json": "{}"})


def state_other_types(version):
    change_facts(version, files=[], int8="yes")


def leave_int8_open(version):
    change_facts(version, int8={})


def cannot_read(version):
    path = version / "openvino" / "float32.xml"
    replace(path, b"<net/>")
    facts = json.loads((version / "openvino" / "engine.json").read_text())
    change_facts(version, files=facts["files"] | {"openvino/float32.xml": sha256_of(path)})


UNUSABLE = {
    no_folder: "the model has no OpenVINO files",
    damage: "engine.json is damaged",
    remove: "float32.bin-00001-of-00002 is missing",
    remove_all_weights: "float32.bin-00000-of-00002 is missing",
    add_part: "float32.bin-00002-of-00003 is not the file that belongs",
    swap_parts: "float32.bin-00000-of-00002 is not the file that belongs",
    change_graph: "float32.xml is not the file that belongs",
    change_model: "saved_model.pb is not the file that belongs",
    change_weights: "variables.index is not the file that belongs",
    unlist: "is not the file that belongs",
    change_image_reader: "openvino/image_reader/saved_model.pb is not the file that belongs",
    without_image_reader: "is missing beside its OpenVINO files",
    damage_metadata: "engine.json is damaged",
    state_other_types: "engine.json is damaged",
    leave_int8_open: "engine.json is damaged",
    cannot_read: "OpenVINO cannot read its files",
}


@pytest.mark.parametrize("change", UNUSABLE, ids=lambda change: change.__name__)
def test_files_that_do_not_belong_to_the_model_are_not_used(version, change):
    change(version)
    engine, note = load_engine(version, FLOAT32)
    assert engine is None
    assert UNUSABLE[change] in note
    with pytest.raises(OSError, match="--backend openvino.*--backend tensorflow") as caught:
        load_engine(version, EngineOptions("openvino", "float32"))
    assert UNUSABLE[change] in str(caught.value)


def join_weights(version):
    """Write the parts of the weights as one file, and list it, as if they were small."""
    folder, facts = version / "openvino", json.loads((version / "openvino/engine.json").read_text())
    parts = sorted(folder.glob("float32.bin-*"))
    (folder / "float32.bin").write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
        del facts["files"][f"openvino/{part.name}"]
    digest = sha256_of(folder / "float32.bin")
    change_facts(version, files=facts["files"] | {"openvino/float32.bin": digest})


def test_weights_in_one_file_and_in_parts_are_the_same(version, loaded, face_batch):
    assert len(list((version / "openvino").glob("float32.bin-*"))) == 2
    join_weights(version)
    with OpenVINOEngine(version, "float32") as engine:
        for output in ("scores", "cam"):
            found, expected = engine.run(output, face_batch), loaded.run(output, face_batch)
            np.testing.assert_array_equal(found, expected)
    (version / "openvino" / "float32.bin").unlink()
    assert load_engine(version, FLOAT32)[1].startswith("openvino/float32.bin is missing")


def test_a_network_keeps_its_weights_when_its_files_are_gone(version, face_batch, expected_scores):
    """A model that is served may be removed from the disk."""
    engine = OpenVINOEngine(version, "float32")
    shutil.rmtree(version)
    # Memory that was freed too early would now have other contents.
    others = [np.full(10**7, 255, np.uint8) for _ in range(10)]
    np.testing.assert_allclose(engine.run("scores", face_batch), expected_scores, atol=1e-5)
    assert len(others) == 10
    engine.close()


def test_a_processor_without_bfloat16_computes_in_float32(exported, without_bfloat16):
    reason = "the processor does not compute in bfloat16"
    assert load_engine(exported, AUTO) == (None, reason)
    with pytest.raises(OSError, match=f"{reason}. Try --precision float32"):
        load_engine(exported, OPENVINO)
    engine, _ = load_engine(exported, EngineOptions("openvino", "float32"))
    assert engine.engine.precision == "float32"
    engine.close()


@pytest.mark.parametrize("ends_with_product", [True, False])
def test_bfloat16_is_refused_where_the_last_layer_would_not_be_exact(
    version, monkeypatch, ends_with_product
):
    import openvino
    from openvino import opset14

    pixels = opset14.parameter([-1, 4], np.float32)
    weights = opset14.constant(np.ones((4, 1), np.float32))
    last = opset14.matmul(pixels, weights, False, False) if ends_with_product else pixels
    result = opset14.result(opset14.sigmoid(last))
    result.output(0).set_names({"scores"})
    network = openvino.Model([result], [pixels])
    target = "jdfd_keras.inference.openvino_engine"
    monkeypatch.setattr(f"{target}.read_network", lambda *_: network)
    monkeypatch.setattr(f"{target}.computes_in_bfloat16", lambda _: True)
    engine, note = load_engine(version, AUTO)
    if ends_with_product:
        assert (engine.engine.precision, note) == ("bfloat16", "")
        engine.close()
    else:
        assert (engine, note) == (None, "the last layers of this network need float32")


def test_tensorflow_takes_over_and_says_why(version, face_batch, expected_scores, capfd):
    import tensorflow as tf

    remove(version)
    predictor = load_predictor(version)
    note = "openvino/float32.bin-00001-of-00002 is missing beside its OpenVINO files"
    assert predictor.engine == Engine("tensorflow", tf.__version__, "float32", note)
    np.testing.assert_allclose(predictor(face_batch), expected_scores, atol=1e-5)
    assert capfd.readouterr().err == f"scores by TensorFlow {tf.__version__}, float32: {note}\n"
    predictor.close()


def test_requested_tensorflow_has_no_note(exported, capfd):
    import tensorflow as tf

    predictor = load_predictor(exported, EngineOptions(backend="tensorflow"))
    assert predictor.engine == Engine("tensorflow", tf.__version__, "float32")
    assert capfd.readouterr().err == ""
    predictor.close()


def test_other_requests_are_refused(exported, tmp_path):
    with pytest.raises(ValueError, match="float32 with --backend tensorflow; got bfloat16"):
        load_predictor(exported, EngineOptions("tensorflow", "bfloat16"))
    with pytest.raises(OSError, match="the model was exported without int8 files"):
        load_predictor(exported, EngineOptions("openvino", "int8"))
    save_options(tmp_path / "options.json")
    with pytest.raises(ValueError, match="exported model with --backend openvino; got .*export"):
        load_predictor(tmp_path, OPENVINO)
    with pytest.raises(ValueError, match="no --backend .*server.*got openvino and auto"):
        load_predictor("http://127.0.0.1:1/v1/models/m", OPENVINO)


@pytest.fixture(scope="module")
def quantised(exported, face_batch, tmp_path_factory):
    """A copy of the exported version with int8 files."""
    nncf = pytest.importorskip("nncf")
    import openvino

    version = tmp_path_factory.mktemp("int8") / "tiny" / "1"
    shutil.copytree(exported, version, copy_function=os.link)
    model = read_network(openvino.Core(), version / "openvino" / "float32.xml")
    source = model.output("scores").get_node().input_value(0)
    scores = openvino.Model([source], model.get_parameters())
    faces = np.concatenate([face_batch, 255 - face_batch]).astype(np.float32)
    small = nncf.quantize(scores, nncf.Dataset([face[None] for face in faces]))
    small.outputs[0].get_tensor().set_names({"scores"})
    openvino.save_model(small, version / "openvino" / "int8.xml", compress_to_fp16=False)
    facts = json.loads((version / "openvino" / "engine.json").read_text())
    names = [f"openvino/int8{suffix}" for suffix in (".xml", ".bin")]
    files = facts["files"] | {name: sha256_of(version / name) for name in names}
    change_facts(version, files=files, int8={"accepted": True})
    return version


@pytest.mark.slow
def test_int8_is_used_if_its_export_accepted_it(
    quantised, loaded, face_batch, expected_scores, tmp_path
):
    with OpenVINOEngine(quantised) as engine:
        assert engine.engine.precision == "int8"
        scores = engine.run("scores", face_batch)
        np.testing.assert_array_equal(engine.run("cam", face_batch), loaded.run("cam", face_batch))
    np.testing.assert_allclose(scores, expected_scores, atol=0.2)
    assert np.abs(scores - expected_scores).max() > 1e-4, "the precision was not used"
    refused = shutil.copytree(quantised, tmp_path / "1", copy_function=os.link)
    change_facts(refused, int8={"accepted": False})
    engine, note = load_engine(refused, AUTO)
    assert (engine.engine.precision if engine else note) in (
        "bfloat16",
        "the processor does not compute in bfloat16",
    )
    engine, _ = load_engine(refused, EngineOptions(precision="int8"))
    np.testing.assert_array_equal(engine.run("scores", face_batch), scores)
    engine.close()
    replace(refused / "openvino" / "int8.bin", b"other")
    assert "int8.bin is not" in load_engine(refused, EngineOptions(precision="int8"))[1]


@pytest.mark.slow
def test_predict_imports_no_tensorflow_and_names_the_engine(exported, clips_folder, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(REFUSE)
    clip = min((clips_folder / "real").glob("*.mp4"))
    command = [sys.executable, "-m", "jdfd_keras", "predict", str(clip), "--model", str(exported)]
    command += ["--backend", "openvino", "--precision", "float32", "--out", "out"]
    command += ["--report", "page.html", "--annotate", "clip.mp4", "--format", "json"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result, name = json.loads(done.stdout), f"OpenVINO {import_openvino()}, float32"
    assert result["provenance"]["engine"] == {
        "backend": "openvino",
        "version": import_openvino(),
        "precision": "float32",
        "note": "",
    }
    assert [verdict["engine"] for verdict in result["files"]] == [name]
    page = (tmp_path / "page.html").read_text()
    assert f'<th scope="row">Engine of the scores</th><td>{name}</td>' in page
    assert page.count("regions that raised the fake score") == 1
    header, row = (tmp_path / "out" / "verdicts.csv").read_text().splitlines()
    assert header.endswith(",engine,note,credentials,ai_claims") and f',"{name}",,' in row
    assert (tmp_path / "clip.mp4").is_file()
