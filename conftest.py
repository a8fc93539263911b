"""The folder in which the examples of docstrings run.

`pytest --doctest-modules jdfd_keras` runs them with this folder as the working directory. It has
video.mp4, photograph.png (a portrait), face.png (a crop of 71 pixels), videos/ (real and fake clips
of 8 subjects), prepared/, run/ (calibrated), headpose_run/, report/ and saved_models/detector/1.
For examples that name port 8501, a server of that model runs there.
"""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def build_example_folder(folder: Path) -> None:
    """Write the files that examples use: made-up clips, and what the commands make of them."""
    import cv2
    import keras
    from skimage.data import astronaut

    import jdfd_keras as jk
    from jdfd_keras.datasets.synthetic.clips import make_clips, vary_portrait

    keras.utils.set_random_seed(0)
    for _ in make_clips(
        vary_portrait(astronaut(), 8, seed=0), folder / "videos", num_frames=6, seed=0
    ):
        pass
    clip = min((folder / "videos" / "real").glob("*.mp4"))
    (folder / "video.mp4").write_bytes(clip.read_bytes())
    prepared, run, report = folder / "prepared", folder / "run", folder / "report"
    face_options = jk.FaceOptions(frames_per_video=4, face_size=71)
    crop = jk.extract_faces(folder / "video.mp4", face_options).faces[0].crop
    cv2.imwrite(str(folder / "face.png"), crop[..., ::-1])
    cv2.imwrite(str(folder / "photograph.png"), astronaut()[..., ::-1])
    jk.prepare(folder / "videos", prepared, face_options)
    jk.train(
        prepared,
        run,
        model=jk.ModelOptions(encoder_weights="none", latent_dim=16),
        optimizer=jk.OptimizerOptions(optimizer="adam", learning_rate=0.0005),
        # Not `auto`, whose precision depends on the processor.
        train=jk.TrainOptions(epochs=1, batch_size=8, precision="float32"),
    )
    jk.train(prepared, folder / "headpose_run", model=jk.ModelOptions(method="headpose"))
    jk.calibrate(run, prepared)
    evaluated = jk.evaluate(run, prepared, jk.EvaluateOptions(n_resamples=200))
    jk.write_evaluation(evaluated, report)
    jk.export_detector(run, folder / "saved_models" / "detector")


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory) -> Path:
    """The folder, built once."""
    folder = tmp_path_factory.mktemp("examples")
    build_example_folder(folder)
    return folder


@pytest.fixture(scope="session")
def example_server(example_folder):
    """A server of the example model on port 8501."""
    from jdfd_keras.options import ServeOptions
    from jdfd_keras.serving.model_config import ModelConfig
    from jdfd_keras.serving.server.model_server import ModelServer

    model = ModelConfig("detector", example_folder / "saved_models" / "detector")
    with ModelServer([model], ServeOptions(port=8501, grpc_port=8500)) as server:
        yield server


@pytest.fixture(autouse=True)
def in_example_folder(request, monkeypatch):
    """Run an example in the folder; other tests are left alone."""
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(request.getfixturevalue("example_folder"))
        if "8501" in request.node.dtest.docstring:
            request.getfixturevalue("example_server")


def pytest_collection_modifyitems(items):
    """Count the examples among the slow tests: they train and export a model first."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker(pytest.mark.slow)
            if "raise_signal" in item.dtest.docstring:
                item.add_marker(pytest.mark.signals)
