"""What several test files share: one tiny detector, so TensorFlow is set up once a run."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import pytest

from jdfd_keras.options import ModelOptions


@pytest.fixture(scope="session")
def build_tiny():
    """A function that builds a detector of 71 px with random weights, always the same ones."""
    import keras

    from jdfd_keras.model.network import build_detector

    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        return build_detector(ModelOptions(image_size=71, latent_dim=16, encoder_weights="none"))

    return build


@pytest.fixture(scope="session")
def tiny_detector(build_tiny):
    """One such detector; tests read it and never change it."""
    return build_tiny()


@pytest.fixture
def stand_in(monkeypatch):
    """In training, a detector of a few weights: quick, where learning is not the question."""

    def build(options):
        import keras

        image = keras.Input((options.image_size, options.image_size, 3), name="image")
        small = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
        last = keras.layers.ReLU(name="squeeze_relu")(keras.layers.Conv2D(3, 1)(small))
        mean = keras.layers.GlobalAveragePooling2D()(last)
        logit = keras.layers.Dense(1, name="classifier_logit")(mean)
        outputs = {
            "classification": keras.layers.Activation("sigmoid", name="classification")(logit),
            "reconstruction": keras.layers.Conv2D(3, 1, name="reconstruction")(small),
        }
        return keras.Model(image, outputs)

    monkeypatch.setattr("jdfd_keras.training.train.build_detector", build)


@pytest.fixture(scope="session")
def face_batch():
    """uint8[4, 71, 71, 3] smooth random pictures: a stand-in where no real face is needed."""
    import cv2

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    return np.stack([cv2.resize(picture, (71, 71)) for picture in coarse])


@pytest.fixture(scope="session")
def clips_folder(tmp_path_factory):
    """A data set of short clips: 8 people of one portrait, one real and one fake clip each."""
    from skimage import data

    from jdfd_keras.data.clips import make_clips, vary_portrait

    root = tmp_path_factory.mktemp("data") / "clips"
    for _ in make_clips(vary_portrait(data.astronaut(), 8, seed=0), root, num_frames=6, seed=0):
        pass
    return root


@pytest.fixture(scope="session")
def prepared_set(clips_folder, tmp_path_factory):
    """The same clips prepared: 4 faces of 71 px each, split by source; tests only read it."""
    from jdfd_keras.data.prepare import prepare
    from jdfd_keras.options import FaceOptions

    out = tmp_path_factory.mktemp("data") / "prepared"
    prepare(clips_folder, out, FaceOptions(frames_per_video=4, face_size=71))
    return out


@pytest.fixture(scope="session")
def change_table():
    """A function that puts other rows into a table of a prepared data set."""
    from jdfd_keras.data import manifest

    tables = {
        manifest.FaceRow: (manifest.MANIFEST, manifest.read_manifest),
        manifest.VideoRow: (manifest.VIDEOS, manifest.read_videos),
    }

    def change(directory, kind, function):
        name, read = tables[kind]
        (path,) = directory.glob(f"{name}.*")
        rows = function(read(directory))
        with open(path, "wb") as file:
            manifest.write_table(file, path.suffix[1:], kind, [manifest.to_table(rows, kind)])

    return change


@pytest.fixture(scope="session")
def astronaut():
    """uint8[512, 512, 3], the public-domain portrait; dlib sees its face at 179, 83, 266, 170."""
    from skimage import data

    return data.astronaut()


@pytest.fixture(scope="session")
def astronaut_landmarks(astronaut):
    """float32[68, 2] of that face."""
    from jdfd_keras.faces.detect import Box
    from jdfd_keras.faces.landmarks import find_landmarks

    return find_landmarks(astronaut, Box(179, 83, 266, 170, 1.0))
