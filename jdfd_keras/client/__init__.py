"""Ask a server that speaks TensorFlow Serving's REST or gRPC; imports no TensorFlow."""

from jdfd_keras.client.client import Client, connect, score_faces, score_files

__all__ = ["Client", "connect", "score_faces", "score_files"]
