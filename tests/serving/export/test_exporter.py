import contextlib
import hashlib
import json
import os
import shutil
import urllib.error
import urllib.request
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from jdfd_keras.client.calibration import Calibration, read_calibration
from jdfd_keras.client.metadata import ModelMetadata
from jdfd_keras.inference.backends import load_predictor
from jdfd_keras.inference.saved_model import SavedModelEngine, serialize_example
from jdfd_keras.io import files
from jdfd_keras.io.files import load_options, save_options
from jdfd_keras.model.methods import build_detector
from jdfd_keras.options import EngineOptions, FaceOptions, ModelOptions, TrainOptions
from jdfd_keras.reporting import model_card
from jdfd_keras.serving.export import exporter
from jdfd_keras.serving.export.serving_graph import _make_metadata_fn
from jdfd_keras.serving.model_config import ModelConfig
from jdfd_keras.training.run_folder import TrainedModel

TOLERANCE = 1e-5


def test_serving_default_scores_encoded_faces_like_keras(engine, encoded_faces, expected_scores):
    scores = engine.run("serving_default", {"image_bytes": np.array(encoded_faces, object)})
    assert scores["scores"].shape == (4,)
    np.testing.assert_allclose(scores["scores"], expected_scores, atol=TOLERANCE)


def test_faces_scores_pixels_like_keras(engine, face_batch, expected_scores):
    scores = engine.run("faces", {"faces": face_batch})["scores"]
    np.testing.assert_allclose(scores, expected_scores, atol=TOLERANCE)


def test_variables_are_in_files_below_the_limit_of_hosts_of_code(exported):
    names = [path.name for path in sorted((exported / "variables").glob("variables.data*"))]
    assert names == ["variables.data-00000-of-00002", "variables.data-00001-of-00002"]
    sizes = [path.stat().st_size for path in exported.rglob("*")]
    assert sum(sizes) > 80e6 and max(sizes) <= 48e6


def test_classify_returns_real_and_fake_like_keras(engine, encoded_faces, expected_scores):
    examples = [serialize_example({"image/encoded": [face]}) for face in encoded_faces]
    outputs = engine.run("classify", {"inputs": np.array(examples, object)})
    assert outputs.keys() == {"classes", "scores"}
    assert outputs["classes"].tolist() == [[b"real", b"fake"]] * 4
    expected = np.stack([1 - expected_scores, expected_scores], axis=1)
    np.testing.assert_allclose(outputs["scores"], expected, atol=TOLERANCE)
    assert engine.signatures["classify"].method == "tensorflow/serving/classify"


def test_reconstruct_returns_the_reconstruction_and_its_error(engine, detector, face_batch):
    outputs = engine.run("reconstruct", {"faces": face_batch})
    pixels = face_batch.astype("float32")
    expected = detector.predict(pixels, verbose=0)["reconstruction"]
    np.testing.assert_allclose(outputs["reconstruction"], expected, atol=TOLERANCE)
    error = [np.mean((expected[i] - (pixels[i] / 127.5 - 1)) ** 2) for i in range(4)]
    np.testing.assert_allclose(outputs["error"], error, atol=TOLERANCE)


@pytest.mark.parametrize(("height", "width"), [(150, 113), (40, 55)])
def test_faces_of_another_size_are_resized_with_antialiasing(engine, detector, height, width):
    face = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    encoded = cv2.imencode(".png", face[..., ::-1])[1].tobytes()
    resized = np.einsum("yh,hwc,xw->yxc", triangles(height, 71), face, triangles(width, 71))
    expected = detector.predict(resized[None].astype("float32"), verbose=0)["classification"]

    scores = engine.run("serving_default", {"image_bytes": np.array([encoded], object)})["scores"]
    np.testing.assert_allclose(scores, expected[:, 0], atol=TOLERANCE)
    if height > 71:
        plain = tf.image.resize(face[None], [71, 71], antialias=False)
        plain_score = detector.predict(plain, verbose=0)["classification"][0, 0]
        assert abs(plain_score - scores[0]) > 10 * TOLERANCE, "this face cannot distinguish the two"


def triangles(size, new_size):
    """float64[new_size, size], bilinear weights with antialiasing."""
    scale = size / new_size
    middles = (np.arange(new_size) + 0.5) * scale
    distances = np.abs(np.arange(size) + 0.5 - middles[:, None]) / max(scale, 1)
    weights = np.maximum(0, 1 - distances)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("signature", "has_decoder"),
    [
        ("serving_default", False),
        ("classify", False),
        ("faces", False),
        ("explain", False),
        ("reconstruct", True),
    ],
)
def test_only_reconstruct_contains_the_decoder(exported, signature, has_decoder):
    nodes = nodes_of_signature(exported, signature)
    assert any("squeeze" in name for name, _ in nodes), "the encoder must be found"
    deconvolutions = [name for name, op in nodes if op == "Conv2DBackpropInput"]
    decoder_nodes = [name for name, _ in nodes if "decoder_" in name]
    assert bool(deconvolutions) == bool(decoder_nodes) == has_decoder


def nodes_of_signature(path, signature):
    """(name, operation) of each node that a signature reaches, including its functions."""
    meta_graph = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    meta_graph = meta_graph.meta_graphs[0]
    graph = {node.name: node for node in meta_graph.graph_def.node}
    library = {
        function.signature.name: function for function in meta_graph.graph_def.library.function
    }
    outputs = meta_graph.signature_def[signature].outputs.values()
    waiting = [graph[info.name.split(":")[0]] for info in outputs]
    seen_nodes, seen_functions, found = set(), set(), []
    while waiting:
        node = waiting.pop()
        found.append((node.name, node.op))
        if graph.get(node.name) is node:
            sources = {name.lstrip("^").split(":")[0] for name in node.input} - seen_nodes
            seen_nodes |= sources
            waiting += [graph[name] for name in sources]
        called = [a.func.name for a in node.attr.values() if a.HasField("func")]
        called += [f.name for a in node.attr.values() for f in a.list.func]
        for name in set(called) - seen_functions:
            seen_functions.add(name)
            waiting += library[name].node_def
    return found


def test_weights_are_stored_once(exported, detector):
    stored = sum(path.stat().st_size for path in (exported / "variables").iterdir())
    needed = 4 * sum(int(np.prod(variable.shape)) for variable in detector.variables)
    assert needed <= stored < 1.01 * needed


def test_warm_up_has_one_request_per_signature(engine):
    replayed = [name for name, _ in engine.replay_warmup()]
    assert sorted(replayed) == [
        "classify",
        "explain",
        "faces",
        "metadata",
        "reconstruct",
        "serving_default",
    ]


def test_the_graph_itself_checks_the_size_of_faces(exported):
    # TensorFlow Serving feeds any shape, while this session checks it before the graph runs: the
    # operation itself must be present.
    operations = [op for _, op in nodes_of_signature(exported, "faces")]
    assert "EnsureShape" in operations


def test_alignment_options_are_stored_with_the_model(exported, tiny_faces):
    path = exported / "assets.extra" / "alignment.json"
    assert load_options(path, "faces", FaceOptions) == tiny_faces


def test_the_model_card_has_the_given_facts(exported):
    for path in (exported.parent / "MODEL_CARD.md", exported / "assets.extra" / "MODEL_CARD.md"):
        card = path.read_text()
        assert card.startswith("# tiny, version 1\n")
        for fact in ("71 x 71", "margin: 1.4", "name: made on the spot", "**Proof.**", "300-W"):
            assert fact in card


def test_no_temporary_or_stale_file_is_left(exported):
    assert sorted(path.name for path in exported.parent.iterdir()) == ["1", "MODEL_CARD.md"]
    assert not (exported / "fingerprint.pb").exists()


@pytest.fixture
def quick_write(exported, monkeypatch):
    """Link the graph and weights of `exported` instead of writing them again."""

    def link_openvino(model, directory, metadata):
        shutil.copytree(
            exported / "openvino",
            directory / "openvino",
            copy_function=os.link,
            ignore=shutil.ignore_patterns("engine.json"),
        )

    def link(model, directory, metadata):
        (directory / "variables").mkdir(parents=True)
        for path in [exported / "saved_model.pb", *(exported / "variables").iterdir()]:
            os.link(path, directory / path.relative_to(exported))

    monkeypatch.setattr(exporter, "write_saved_model", link)
    monkeypatch.setattr(exporter, "write_openvino", link_openvino)


@pytest.fixture
def quick_export(quick_write, monkeypatch):
    """Like `quick_write`, also without the check of the result, which takes seconds."""
    monkeypatch.setattr(exporter, "_check_runs", lambda directory, size: None)


CALIBRATION = Calibration(
    temperature=0.2,
    uncertain_from=0.4,
    uncertain_to=0.7,
    data="clips",
    num_real=2,
    num_fake=1,
    ece_before=0.1,
    ece_after=0.2,
    real_scores=(0.1, 0.3),
    fake_scores=(0.8,),
)


def test_calibration_is_stored_with_the_model_and_on_its_card(
    quick_export, detector, tiny_faces, tmp_path, snapshot
):
    path = exporter.export_detector(
        detector, tmp_path / "sharp", faces=tiny_faces, calibration=CALIBRATION
    ).path
    assert read_calibration(path / "assets.extra" / "calibration.json") == CALIBRATION
    card = (path.parent / "MODEL_CARD.md").read_text()
    assert card.split("## Reading a score\n\n")[1].split("\n\n## ")[0] == snapshot


def test_faces_by_other_landmarks_than_those_of_the_training_are_refused(
    detector, tiny_faces, prepared_set, tmp_path
):
    data = shutil.copytree(prepared_set, tmp_path / "mesh")
    path = data / "options.json"
    path.write_text(path.read_text().replace('"detector": "dlib"', '"detector": "mesh"'))
    with pytest.raises(ValueError, match="detector dlib or mtcnn, .* got mesh"):
        exporter.export_detector(
            detector, tmp_path / "fast", faces=tiny_faces, formats=["float16"], data=data
        )
    assert not (tmp_path / "fast").exists()


def test_versions_count_up_and_are_never_overwritten(quick_export, detector, tiny_faces, tmp_path):
    model = tmp_path / "tiny"
    first = exporter.export_detector(detector, model, faces=tiny_faces)
    digest = exporter.digest_weights(detector)
    assert first == exporter.ExportedModel(model / "1", "tiny", 1, digest)
    assert exporter.ExportedModel.from_dict(json.loads(json.dumps(first.to_dict()))) == first
    for version, expected in ((7, "7"), (None, "8")):
        exported = exporter.export_detector(detector, model, faces=tiny_faces, version=version)
        assert exported.path == model / expected
    with pytest.raises(ValueError, match="got 7, and .*tiny has \\[1, 7, 8\\]"):
        exporter.export_detector(detector, model, faces=tiny_faces, version=7)


@pytest.mark.slow
def test_an_export_that_does_not_load_creates_no_version(
    detector, tiny_faces, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        exporter, "write_saved_model", lambda model, directory, _: directory.mkdir(parents=True)
    )
    with pytest.raises(OSError, match="tiny/1.* a SavedModel"):
        exporter.export_detector(detector, tmp_path / "tiny", faces=tiny_faces)
    assert list((tmp_path / "tiny").iterdir()) == []


def test_an_export_that_returns_nan_creates_no_version(
    quick_write, detector, tiny_faces, tmp_path, monkeypatch
):
    engine = SimpleNamespace(replay_warmup=lambda: [("faces", {"scores": np.array([np.nan])})])
    monkeypatch.setattr(exporter, "SavedModelEngine", lambda path: contextlib.nullcontext(engine))
    with pytest.raises(ValueError, match="Expected finite numbers"):
        exporter.export_detector(detector, tmp_path / "tiny", faces=tiny_faces)
    assert list((tmp_path / "tiny").iterdir()) == []


def test_an_export_of_another_format_version_is_not_loaded(tiny_faces, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(files, "FORMAT_VERSION", 3)
        signature = _make_metadata_fn(ModelMetadata(tiny_faces, None, "tiny", 1, "abc"))
    tf.saved_model.save(tf.Module(), str(tmp_path / "1"), signatures={"metadata": signature})
    with pytest.raises(OSError, match="format_version 2; got 3"):
        load_predictor(tmp_path)


def test_a_keras_model_needs_faces_and_takes_no_report(detector, tiny_faces, tmp_path):
    for arguments in ({}, {"faces": tiny_faces, "report": tmp_path}):
        with pytest.raises(ValueError, match="no report with a keras.Model"):
            exporter.export_detector(detector, tmp_path / "tiny", **arguments)


@pytest.mark.parametrize("name", ["a:b", "with space", ".hidden"])
def test_a_name_invalid_in_a_url_is_rejected(detector, tiny_faces, tmp_path, name):
    with pytest.raises(ValueError, match=f"model name .*; got '{name}'"):
        exporter.export_detector(detector, tmp_path / name, faces=tiny_faces)


def test_faces_of_another_size_than_the_model_are_rejected(detector, tmp_path):
    with pytest.raises(ValueError, match="71 px; got face_size=299"):
        exporter.export_detector(detector, tmp_path / "tiny", faces=FaceOptions())


def test_the_digest_depends_on_every_weight(detector):
    digest = exporter.digest_weights(detector)
    parts = [f"<f4{values.shape}".encode() + values.tobytes() for values in detector.get_weights()]
    assert digest == hashlib.sha256(b"".join(parts)).hexdigest()
    assert digest == exporter.digest_weights(detector)
    layer = detector.get_layer("classifier_logit")
    weights = layer.get_weights()
    layer.set_weights([weights[0], np.nextafter(weights[1], np.float32(1))])
    changed = exporter.digest_weights(detector)
    layer.set_weights(weights)
    assert changed != digest == exporter.digest_weights(detector)


@pytest.fixture
def short_run(detector, tiny_faces, tmp_path, monkeypatch):
    """A run folder with options and history; its model is replaced by the tiny one."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "best.keras").write_bytes(b"weights")
    save_options(folder / "options.json", train=TrainOptions(epochs=2))
    (folder / "history.csv").write_text(
        "epoch,val_classification_frame_auc,val_loss\n1,0.75,1\n2,0.875,1\n3,0.5,1\n"
    )
    loaded = TrainedModel(detector, tiny_faces)
    monkeypatch.setattr(exporter, "load_run_model", lambda path: loaded)
    return folder


@pytest.mark.parametrize("mark", [False, True])
def test_the_mark_of_a_run_is_in_its_export_and_on_its_card(
    quick_export, short_run, detector, tiny_faces, tmp_path, monkeypatch, mark
):
    loaded = TrainedModel(detector, tiny_faces, demonstration=mark)
    monkeypatch.setattr(exporter, "load_run_model", lambda path: loaded)
    version = exporter.export_detector(short_run, tmp_path / "marked").path
    texts = json.loads((version / "openvino" / "engine.json").read_text())["metadata"]
    assert json.loads(texts["model.json"])["demonstration"] is mark
    card = (version.parent / "MODEL_CARD.md").read_text()
    assert ("For demonstration only: this model cannot judge real videos." in card) is mark


def test_a_run_is_exported_with_its_training_on_the_card(quick_export, short_run, tmp_path):
    version = exporter.export_detector(short_run, tmp_path / "saved_models" / "mine").path
    assert version == tmp_path / "saved_models" / "mine" / "1"
    card = (version.parent / "MODEL_CARD.md").read_text()
    assert "| epochs | 2 | " in card
    assert "epoch 2 of 3" in card and "frame AUC (0.875)" in card
    assert "No test figures" in card
    assert "jdfd-keras export RUN --report DIR" in card


def test_with_a_report_of_another_model_nothing_is_exported(
    quick_export, short_run, tmp_path, monkeypatch
):
    protocol = SimpleNamespace(model_digest=hashlib.sha256(b"others").hexdigest(), calibration=None)
    report = SimpleNamespace(protocol=protocol)
    monkeypatch.setattr(model_card, "load_report", lambda folder: report)
    with pytest.raises(ValueError, match="report of .* SHA-256 .*; got"):
        exporter.export_detector(short_run, tmp_path / "models" / "mine", report=tmp_path)
    assert not (tmp_path / "models").exists()


def test_checksums_cover_all_other_files(exported):
    listed = [line.split("  ")[1] for line in (exported / "SHA256SUMS").read_text().splitlines()]
    paths = [path for path in exported.rglob("*") if path.is_file()]
    expected = {str(path.relative_to(exported)) for path in paths} - {"SHA256SUMS"}
    assert len(listed) == len(expected)
    assert set(listed) == expected


@pytest.fixture(scope="module")
def baseline_run(detector, tiny_faces, tmp_path_factory):
    """A run with the same encoder and classifier, no decoder, and mixed precision."""
    options = ModelOptions(image_size=71, latent_dim=16, encoder_weights="none", decoder=False)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        baseline = build_detector(options)
    finally:
        keras.config.set_dtype_policy("float32")
    shared = [weight for weight in detector.weights if not weight.path.startswith("decoder_")]
    baseline.set_weights([weight.numpy() for weight in shared])
    folder = tmp_path_factory.mktemp("baseline") / "run"
    folder.mkdir()
    baseline.save(folder / "best.keras")
    save_options(folder / "options.json", faces=tiny_faces)
    return folder


@pytest.fixture(scope="module")
def exported_baseline(baseline_run, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved_models") / "baseline"
    return exporter.export_detector(baseline_run, directory).path


@pytest.fixture(scope="module")
def baseline_engine(exported_baseline):
    with SavedModelEngine(exported_baseline) as engine:
        yield engine


@pytest.mark.slow
def test_without_a_decoder_the_other_signatures_are_the_same(engine, baseline_engine):
    expected = {**engine.signatures}
    del expected["reconstruct"]
    assert baseline_engine.signatures == expected
    replayed = [name for name, _ in baseline_engine.replay_warmup()]
    assert sorted(replayed) == ["classify", "explain", "faces", "metadata", "serving_default"]


@pytest.mark.slow
def test_a_mixed_precision_run_without_decoder_scores_in_float32(
    baseline_run, baseline_engine, exported_baseline, face_batch, encoded_faces, expected_scores
):
    trained = keras.models.load_model(baseline_run / "best.keras", compile=False)
    as_trained = trained(face_batch.astype("float32"), training=False)["classification"][:, 0]
    assert np.abs(as_trained - expected_scores).max() > 100 * TOLERANCE, (
        "an error would go unnoticed"
    )

    scores = baseline_engine.run("faces", {"faces": face_batch})["scores"]
    np.testing.assert_allclose(scores, expected_scores, atol=TOLERANCE)
    inputs = {"image_bytes": np.array(encoded_faces, object)}
    scores = baseline_engine.run("serving_default", inputs)["scores"]
    np.testing.assert_allclose(scores, expected_scores, atol=TOLERANCE)
    for path in (baseline_run, exported_baseline.parent):
        scores = load_predictor(path, EngineOptions(backend="tensorflow"))(face_batch)
        np.testing.assert_allclose(scores, expected_scores, atol=TOLERANCE)


@pytest.mark.slow
def test_without_a_decoder_the_server_scores_but_has_no_reconstruct(
    exported_baseline, start_server, face_batch, expected_scores
):
    server = start_server([ModelConfig("baseline", exported_baseline.parent)])
    url = f"{server.url}/v1/models/baseline"
    np.testing.assert_allclose(load_predictor(url)(face_batch), expected_scores, atol=TOLERANCE)
    with urllib.request.urlopen(f"{url}/metadata") as response:
        signatures = json.load(response)["metadata"]["signature_def"]["signature_def"]
    assert {"classify", "faces", "serving_default"} <= set(signatures)
    assert "reconstruct" not in signatures
    body = json.dumps({"signature_name": "reconstruct", "instances": face_batch[:1].tolist()})
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(f"{url}:predict", body.encode())
    with refusal.value as answer:
        assert "reconstruct" in json.load(answer)["error"]


def test_the_model_card_states_whether_the_model_has_a_decoder(
    exported, detector, quick_export, tmp_path
):
    def read(version):
        return " ".join((version.parent / "MODEL_CARD.md").read_text().split())

    bare = keras.Model(detector.input, {"classification": detector.output["classification"]})
    options = FaceOptions(face_size=71)
    without = read(exporter.export_detector(bare, tmp_path / "baseline", faces=options).path)
    assert "a decoder that reconstructs" in read(exported)
    assert "has no decoder" in without
    assert "Joint" not in without
