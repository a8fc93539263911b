"""Ask a server that speaks TensorFlow Serving's REST or gRPC; imports no TensorFlow."""

from jdfd_keras.serving.client.connection import Client, connect
from jdfd_keras.serving.client.scores import score_faces, score_files

__all__ = ["Client", "connect", "score_faces", "score_files"]
