"""Each method of Table 2 from its run folder on: calibrate, evaluate, export, predict, explain.

The networks have random weights, spread so that their scores differ; their training is tested
elsewhere. Headpose is trained, and used through the commands.
"""

import contextlib
import json
import shutil

import numpy as np
import pytest

from jdfd_keras.cli.main import main
from jdfd_keras.inference.backends import load_predictor
from jdfd_keras.options import METHODS, EngineOptions, EvaluateOptions, ModelOptions, PredictOptions

NETWORK_METHODS = [name for name in METHODS if name not in ("jdfd", "headpose")]
ENGINES = {
    "run": None,
    "tensorflow": EngineOptions(backend="tensorflow"),
    "openvino": EngineOptions(backend="openvino", precision="float32"),
}
TOLERANCE = {"run": 1e-5, "tensorflow": 1e-5, "openvino": 2e-5}


@pytest.fixture(scope="module")
def faces(prepared_set):
    """uint8[8, 71, 71, 3], the test faces."""
    from jdfd_keras.datasets.pipeline import load_faces

    ((image, _),) = load_faces(prepared_set, "test", batch_size=8)
    return image.numpy().astype(np.uint8)


def build_spread(method, faces):
    """Build a network whose batch normalization has the statistics of faces."""
    import keras

    from jdfd_keras.model.methods import build_detector

    keras.utils.set_random_seed(0)
    model = build_detector(ModelOptions(method=method, image_size=71, encoder_weights="none"))
    normalizations = [
        layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momentum = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    model(faces.astype("float32"), training=True)
    for layer, value in zip(normalizations, momentum, strict=True):
        layer.momentum = value
    last = model.get_layer("classifier_logit")
    if last.weights:  # not of capsules
        logit = keras.Model(model.input, last.output).predict(faces.astype("float32"), verbose=0)
        kernel, bias = last.get_weights()
        last.set_weights([kernel / logit.std(), (bias - logit.mean()) / logit.std()])
    return model


@pytest.fixture(scope="module", params=NETWORK_METHODS)
def trained(request, faces, headpose_run, prepared_set, tmp_path_factory):
    """Method, run folder, and its uncalibrated scores of the test faces, by the training model."""
    from jdfd_keras.training.run_folder import MONITOR, PROVENANCE, write_epoch

    model = build_spread(request.param, faces)
    run = tmp_path_factory.mktemp("runs") / request.param
    run.mkdir()
    # The same options and faces as those of Headpose, but for the method.
    options = json.loads((headpose_run / "options.json").read_text())
    options["model"]["method"] = request.param
    (run / "options.json").write_text(json.dumps(options))
    shutil.copyfile(headpose_run / PROVENANCE, run / PROVENANCE)
    write_epoch(run, model, [{"epoch": 1.0, MONITOR: 0.5, "val_loss": 0.7}])
    scores = model.predict(faces.astype("float32"), verbose=0)["classification"][:, 0]
    assert np.ptp(scores) > 0.01, "equal scores would hide an error"
    return request.param, run, scores.astype(np.float64)


@pytest.mark.slow
def test_a_network_is_calibrated_evaluated_exported_explained_and_judges_files(
    trained, faces, prepared_set, clips_folder, tmp_path
):
    from jdfd_keras.evaluation.calibrate import calibrate
    from jdfd_keras.evaluation.evaluate import evaluate
    from jdfd_keras.inference.explain import explain_faces
    from jdfd_keras.prediction.predict import predict_files
    from jdfd_keras.reporting.verdict_page import write_report
    from jdfd_keras.serving.export.exporter import export_detector
    from jdfd_keras.training.run_folder import load_run_model

    method, run, raw = trained
    calibration = calibrate(run, prepared_set).calibration
    report = evaluate(run, prepared_set, EvaluateOptions(n_resamples=0))
    np.testing.assert_allclose(report.scores.score, calibration.apply(raw), atol=1e-5)
    assert report.examples is not None
    model = load_run_model(run).model
    assert list(model.output) == ["classification"]
    cams = explain_faces(model, faces).cam
    assert cams.shape == (8, 71, 71)
    assert (cams.max(axis=(1, 2)) > 0).any(), "a map of zeros explains nothing"
    assert (cams >= 0).all()

    exported = export_detector(run, tmp_path / "models" / method).path
    for name, engine in ENGINES.items():
        with contextlib.closing(load_predictor(run if name == "run" else exported, engine)) as one:
            np.testing.assert_allclose(one(faces), calibration.apply(raw), atol=TOLERANCE[name])
            np.testing.assert_allclose(one.explain(faces), cams, atol=1e-3 * cams.max())
            assert one.reconstruct_error is None
    clip = min((clips_folder / "real").glob("*.mp4"))
    options = PredictOptions(frames_per_video=4)
    found = predict_files([clip], options, model=exported, explain=True)
    (verdict,) = found.files
    assert len(verdict.faces) == 4 and 0 <= verdict.score <= 1
    assert found.top_faces[str(clip)].cams is not None
    write_report(found, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000


@pytest.fixture
def run_command(capsys):
    """A function that runs a command, and returns its exit code, stdout and stderr."""

    def run(*words):
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


@pytest.mark.slow
def test_the_commands_use_headpose(run_command, headpose_run, prepared_set, clips_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(headpose_run, run)
    code, text, _ = run_command("calibrate", run, prepared_set)
    assert code == 0 and "video AUC" in text
    report = tmp_path / "report"
    code, text, _ = run_command("evaluate", run, prepared_set, "--out", report)
    assert code == 0 and (report / "report.html").is_file()
    clips = sorted(clips_folder.rglob("*.mp4"))[:2]
    page, out = tmp_path / "page.html", tmp_path / "out"
    words = ("predict", *clips, "--model", run, "--frames-per-video", 4, "--out", out)
    code, text, _ = run_command(*words, "--report", page, "--format", "json")
    found = json.loads(text)
    assert code == 0 and len(found["files"]) == 2
    assert found["provenance"]["engine"]["backend"] == "numpy"
    assert "without a network" in found["provenance"]["engine"]["note"]
    assert "tensorflow" not in found["provenance"]["versions"]
    pages = [path.read_text() for path in (tmp_path / "page_files").glob("*.html")]
    assert len(pages) == 2 and all("There are no maps of the regions" in text for text in pages)
    # A second run takes the verdicts from the folder.
    code, again, _ = run_command(*words, "--format", "csv")
    assert code == 0
    rows = again.splitlines()[1:]
    for row, verdict in zip(rows, found["files"], strict=True):
        assert f",{verdict['score']:.6f}"[:8] in row
    annotated = tmp_path / "annotated.mp4"
    code, *_ = run_command("predict", clips[0], "--model", run, "--annotate", annotated)
    assert code == 0 and annotated.stat().st_size > 1000


@pytest.mark.slow
def test_headpose_is_one_of_several_opinions(run_command, headpose_run, clips_folder):
    clip = min(clips_folder.rglob("*.mp4"))
    code, text, _ = run_command(
        *("predict", clip, "--model", headpose_run, "--model", "jdfd-faces", "--format", "json"),
        *("--frames-per-video", 4),
    )
    found = json.loads(text)
    assert code == 0
    assert [model["engine"][:5] for model in found["models"]][0] == "NumPy"
    assert all(0 <= one["score"] <= 1 for one in found["files"][0]["opinions"])


@pytest.mark.parametrize(
    "words",
    [
        ("export", "RUN", "--name", "heads", "--saved-models", "OUT"),
        ("serve", "RUN"),
        (
            "experiment",
            "robustness",
            "--model",
            "RUN",
            "--data",
            "a=DATA",
            "--quick",
            "--out",
            "OUT",
        ),
    ],
    ids=lambda words: words[0],
)
def test_commands_that_need_a_network_say_that_headpose_has_none(
    run_command, headpose_run, prepared_set, tmp_path, words
):
    paths = {"RUN": headpose_run, "OUT": tmp_path / "out", "a=DATA": f"a={prepared_set}"}
    code, text, error = run_command(*(paths.get(word, word) for word in words))
    assert (code, text) == (1, "")
    assert "Headpose is a support vector machine without a network" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("evaluate", ("--degrade", "jpeg=30")),
        ("evaluate", ("--reconstruction",)),
        ("evaluate", ("--backend", "openvino")),
        ("predict", ("--backend", "tensorflow")),
    ],
)
def test_options_that_headpose_lacks_are_named(
    run_command, headpose_run, prepared_set, clips_folder, tmp_path, command, options
):
    clip = min(clips_folder.rglob("*.mp4"))
    words = {
        "evaluate": (headpose_run, prepared_set, "--out", tmp_path / "out"),
        "predict": (clip, "--model", headpose_run),
    }[command]
    code, text, error = run_command(command, *words, *options)
    assert (code, text) == (1, "")
    assert f"{options[0]}" in error and "Headpose" in error


def test_whole_images_are_no_faces_with_landmarks(run_command, headpose_run, tmp_path, astronaut):
    from PIL import Image

    Image.fromarray(astronaut).save(tmp_path / "face.png")
    code, _, error = run_command(
        "predict", tmp_path / "face.png", "--model", headpose_run, "--detector", "none"
    )
    assert code == 1
    assert "Expected faces with landmarks" in error and "--detector dlib" in error
