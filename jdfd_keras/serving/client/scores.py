"""Scores in one call: a connection made, asked and closed.

Takes a model's URL and encoded faces, or their files; gives scores. Imports no TensorFlow.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jdfd_keras.serving.client.connection import BATCH_SIZE, RETRIES, TIMEOUT_S, connect


def score_faces(
    url: str,
    encoded_faces: Sequence[bytes],
    *,
    timeout_s: float = TIMEOUT_S,
    retries: int = RETRIES,
    batch_size: int = BATCH_SIZE,
    headers: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Score face crops on a server.

    Args:
        url: The model, as `connect` takes it; so the numbers.
        encoded_faces: As `Client.score` takes them.
        timeout_s: How long each try may wait for its answer.
        retries: How often a request is repeated.
        batch_size: Faces a request.
        headers: What goes with each request.

    Returns:
        float64[n], P(fake), in the order of the faces; NaN where one is no image.

    Raises:
        OSError: If the server is not there, fails, or serves something else.
        ValueError: If the URL is not that of a model, or a number is out of range.
    """
    with connect(
        url, timeout_s=timeout_s, retries=retries, batch_size=batch_size, headers=headers
    ) as client:
        return client.score(encoded_faces)


def score_files(
    url: str,
    paths: Sequence[str | Path],
    *,
    timeout_s: float = TIMEOUT_S,
    retries: int = RETRIES,
    batch_size: int = BATCH_SIZE,
    headers: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Score image files of face crops on a server.

    Args:
        url: As `score_faces` takes it, and the rest too.
        paths: The files, of one face each; a batch of them is in memory at a time.
        timeout_s: How long each try may wait for its answer.
        retries: How often a request is repeated.
        batch_size: Faces a request.
        headers: What goes with each request.

    Returns:
        float64[n], P(fake), in the order of the files; NaN where one is no image.

    Raises:
        OSError: As `score_faces`, and if a file cannot be read.
        ValueError: As `score_faces`.
    """
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"Expected image files of face crops; got {path}, which is none. Check its name."
            )
    with connect(
        url, timeout_s=timeout_s, retries=retries, batch_size=batch_size, headers=headers
    ) as client:
        parts = [
            client.score([Path(path).read_bytes() for path in paths[start : start + batch_size]])
            for start in range(0, len(paths), batch_size)
        ]
    return np.concatenate([np.empty(0), *parts])
