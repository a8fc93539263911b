"""One exported detector, its engine and a server of it, made once a run."""

import contextlib

import cv2
import numpy as np
import pytest

from jdfd_keras.options import FaceOptions, ServeOptions


@pytest.fixture(scope="session")
def tiny_faces():
    """The face options of the tiny detector, none of them but the size at its default."""
    return FaceOptions(face_size=71, frames_per_video=5, margin=1.4)


@pytest.fixture(scope="session")
def detector(tiny_detector):
    """The tiny detector with a louder last layer.

    With random weights every score is 0.5 to six digits, whatever is shown: no comparison could
    fail. Here the faces of `face_batch` are well apart.
    """
    import keras

    model = keras.models.clone_model(tiny_detector)
    model.set_weights(tiny_detector.get_weights())
    layer = model.get_layer("classifier_logit")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * 4e5, bias])
    return model


@pytest.fixture(scope="session")
def expected_scores(detector, face_batch):
    """float32[4], what Keras itself gives for `face_batch`."""
    scores = detector.predict(face_batch.astype("float32"), verbose=0)["classification"][:, 0]
    assert np.ptp(scores) > 0.02, "faces that score alike would hide a mistake"
    return scores


@pytest.fixture(scope="session")
def encoded_faces(face_batch):
    """`face_batch` as PNG files."""
    return [cv2.imencode(".png", face[..., ::-1])[1].tobytes() for face in face_batch]


@pytest.fixture(scope="session")
def exported(detector, tiny_faces, tmp_path_factory):
    """saved_models/tiny/1, exported once."""
    from jdfd_keras.serving.export.run import export_detector

    directory = tmp_path_factory.mktemp("saved_models") / "tiny"
    card = {"Training data": {"name": "made on the spot", "faces": 4}}
    return export_detector(detector, directory, faces=tiny_faces, card=card)


@pytest.fixture(scope="session")
def engine(exported):
    """The export, loaded by the version-1 session loader as TensorFlow Serving does."""
    from jdfd_keras.serving.engine import SavedModelEngine

    with SavedModelEngine(exported) as engine:
        yield engine


@pytest.fixture(scope="session")
def start_server():
    """A function from ModelConfigs to a server on free ports, running till the end.

    Bodies of up to 1 MiB are read; keyword arguments change further options.
    """
    from jdfd_keras.serving.server.run import ModelServer

    with contextlib.ExitStack() as running:

        def start(configs, **options):
            options = ServeOptions(**{"port": 0, "grpc_port": 0, "max_body_mb": 1} | options)
            return running.enter_context(ModelServer(configs, options))

        yield start


@pytest.fixture(scope="session")
def server(exported, start_server):
    """A server of the exported model; its label `stable` is version 1."""
    from jdfd_keras.serving.model_config import ModelConfig

    return start_server([ModelConfig("tiny", exported.parent, labels={"stable": 1, "next": 2})])


@pytest.fixture(scope="session")
def model_url(server):
    """The REST URL of the exported model."""
    return f"{server.url}/v1/models/tiny"


@pytest.fixture(scope="session")
def grpc_target(server):
    """Where the same server answers gRPC, `127.0.0.1:PORT`."""
    return server.grpc_target


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """The configuration of a model that loads in no time, and doubles numbers."""
    import tensorflow as tf

    from jdfd_keras.serving.model_config import ModelConfig

    directory = tmp_path_factory.mktemp("small")
    spec = tf.TensorSpec([None], tf.float32, name="x")
    double = tf.function(lambda x: {"y": 2 * x}, input_signature=[spec])
    tf.saved_model.save(tf.Module(), str(directory / "1"), signatures={"serving_default": double})
    return ModelConfig("small", directory)
