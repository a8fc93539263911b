import hashlib
import io
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from jdfd_keras.model import network as weights


def test_an_unreachable_server_is_an_error_with_advice(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(OSError, match="no route to host.*'none'"):
        weights.fetch_imagenet_weights()


class Response(io.BytesIO):
    headers = {"Content-Length": "7"}


def test_weights_are_downloaded_once_and_checked(monkeypatch, tmp_path, capsys):
    responses = [Response(b"garbage"), Response(b"weights and more"), Response(b"weights")]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "MD5", hashlib.md5(b"weights").hexdigest())
    monkeypatch.setattr(weights, "SIZE_BYTES", 7)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: responses.pop(0))
    for _ in range(2):
        with pytest.raises(OSError, match="another size or with another checksum"):
            weights.fetch_imagenet_weights()
    assert not (tmp_path / "models" / weights.NAME).exists()
    assert Path(weights.fetch_imagenet_weights()).read_bytes() == b"weights"
    assert weights.fetch_imagenet_weights()  # no fourth request
    assert capsys.readouterr().out == ""


def test_weights_in_the_cache_of_keras_need_no_network(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise AssertionError("the network was used")

    content = b"weights"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / weights.NAME).write_bytes(content)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "MD5", hashlib.md5(content).hexdigest())
    monkeypatch.setattr(weights, "SIZE_BYTES", len(content))
    monkeypatch.setattr(urllib.request, "urlopen", fail)
    assert weights.fetch_imagenet_weights() == str(tmp_path / "models" / weights.NAME)
