import hashlib
import io
import urllib.request
from pathlib import Path

import pytest

from jdfd_keras.model.imagenet_weights import VGG19, PublishedWeights, fetch_published_weights

SMALL = PublishedWeights("Small", "small/small.h5", hashlib.md5(b"weights").hexdigest(), 7)


class Response(io.BytesIO):
    headers = {"Content-Length": "7"}


def test_weights_are_downloaded_once_and_checked(monkeypatch, tmp_path, capsys):
    responses = [Response(b"garbage"), Response(b"weights and more"), Response(b"weights")]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: responses.pop(0))
    for _ in range(2):
        with pytest.raises(OSError, match="of Small.*another size or with another checksum"):
            fetch_published_weights(SMALL)
    assert not (tmp_path / "models" / "small.h5").exists()
    assert Path(fetch_published_weights(SMALL)).read_bytes() == b"weights"
    assert fetch_published_weights(SMALL)  # no fourth request
    assert capsys.readouterr().out == ""


def test_vgg19_is_the_file_that_keras_states():
    import inspect

    import keras.src.applications.vgg19 as source

    assert f'file_hash="{VGG19.md5}"' in inspect.getsource(source)
    assert source.WEIGHTS_PATH_NO_TOP.endswith(f"/keras-applications/{VGG19.path}")
