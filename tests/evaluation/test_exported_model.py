import dataclasses
import shutil

import numpy as np
import pytest

import jdfd_keras
from jdfd_keras.evaluation.evaluate import evaluate
from jdfd_keras.options import EngineOptions, EvaluateOptions
from jdfd_keras.reporting.report_text import render_markdown

FLOAT32 = EngineOptions("openvino", "float32")
OPTIONS = EvaluateOptions(n_resamples=0, batch_size=3)  # fewer than the faces, and no divisor


@pytest.fixture(scope="module")
def report(exported, prepared_set):
    """The evaluation of the exported model by OpenVINO."""
    return evaluate(exported, prepared_set, OPTIONS, engine=FLOAT32)


@pytest.mark.slow
def test_scores_are_those_of_the_model_it_was_exported_from(
    report, detector, prepared_set, tmp_path
):
    detector.save(tmp_path / "tiny.keras")
    own = evaluate(tmp_path / "tiny.keras", prepared_set, OPTIONS)
    np.testing.assert_allclose(report.scores.score, own.scores.score, atol=1e-5)
    assert np.ptp(own.scores.score) > 1e-3
    for name in ("label", "frame_index", "track_id"):
        np.testing.assert_array_equal(getattr(report.scores, name), getattr(own.scores, name))
    np.testing.assert_array_equal(report.errors.image, own.errors.image)
    np.testing.assert_allclose(report.errors.cam, own.errors.cam, atol=1e-4)
    assert (report.errors.residual, report.errors.reconstruction) == (None, None)
    assert own.protocol.engine.startswith("TensorFlow ")
    assert own.protocol.engine.endswith(", float32")


@pytest.mark.slow
def test_the_protocol_names_the_version_and_the_engine(report, exported, prepared_set, tiny_faces):
    protocol = report.protocol
    assert protocol.model == "tiny, version 1"
    assert protocol.engine.startswith("OpenVINO ") and protocol.engine.endswith(", float32")
    assert (protocol.training, protocol.training_faces) == (None, tiny_faces)
    assert protocol.leakage == "not checked: the training data of this model is unknown"
    assert protocol.versions["jdfd_keras"] == jdfd_keras.__version__
    assert f"| engine | {protocol.engine} |" in render_markdown(report)
    other = evaluate(exported.parent, prepared_set, OPTIONS, engine=EngineOptions("tensorflow"))
    np.testing.assert_allclose(report.scores.score, other.scores.score, atol=1e-5)
    assert other.protocol == dataclasses.replace(protocol, engine=other.protocol.engine)
    assert other.protocol.engine.startswith("TensorFlow ")


def test_what_an_exported_model_lacks_is_refused(exported, prepared_set, tmp_path, detector):
    options = dataclasses.replace(OPTIONS, reconstruction=True)
    with pytest.raises(ValueError, match="a run folder with --reconstruction; got the exported"):
        evaluate(exported, prepared_set, options)
    detector.save(tmp_path / "tiny.keras")
    with pytest.raises(ValueError, match="exported model with --backend openvino; got .*keras"):
        evaluate(tmp_path / "tiny.keras", prepared_set, OPTIONS, engine=FLOAT32)


def test_faces_by_other_landmarks_than_those_of_the_training_are_refused(
    exported, prepared_set, tmp_path
):
    other = shutil.copytree(prepared_set, tmp_path / "mesh")
    path = other / "options.json"
    path.write_text(path.read_text().replace('"detector": "dlib"', '"detector": "mesh"'))
    with pytest.raises(ValueError, match="detector dlib or mtcnn, .* got mesh, .* --detector dlib"):
        evaluate(exported, other, OPTIONS, engine=FLOAT32)


@pytest.mark.slow
def test_degraded_faces_are_scored_and_shown(report, exported, prepared_set, detector, tmp_path):
    options = dataclasses.replace(OPTIONS, degrade="brightness=25")
    degraded = evaluate(exported, prepared_set, options, engine=FLOAT32)
    brighter = np.minimum(report.examples.image.astype(int) + 25, 255)
    np.testing.assert_array_equal(degraded.examples.image, brighter)
    expected = detector.predict(brighter.astype("float32"), verbose=0)["classification"][:, 0]
    np.testing.assert_allclose(degraded.examples.score, expected, atol=1e-5)
    assert not np.allclose(degraded.scores.score, report.scores.score, atol=1e-4)
    assert degraded.protocol.degradation == "brightness=25 (grey levels) of the face crops"
    assert "**The data was degraded before it was scored: brightness=25" in render_markdown(
        degraded
    )
    assert "degraded" not in render_markdown(report)
    detector.save(tmp_path / "tiny.keras")
    own = evaluate(tmp_path / "tiny.keras", prepared_set, options)
    np.testing.assert_allclose(degraded.scores.score, own.scores.score, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EvaluateOptions(degrade="jpeg=30", reconstruction=True), "got --reconstruction"),
        (EvaluateOptions(degrade="jpg=30"), "got 'jpg'"),
    ],
)
def test_wrong_degradations_are_refused_before_anything_is_read(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate("no model", "no data", options)


def test_a_table_of_scores_cannot_be_degraded():
    with pytest.raises(ValueError, match="got a table of scores"):
        evaluate(scores="scores.csv", options=EvaluateOptions(degrade="jpeg=30"))
