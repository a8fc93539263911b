import hashlib
import io
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from jdfd_keras.model.imagenet_weights import (
    RESNET50,
    VGG19,
    XCEPTION,
    PublishedWeights,
    fetch_imagenet_weights,
)

SMALL = PublishedWeights("Small", "small/small.h5", hashlib.md5(b"weights").hexdigest(), 7)


class Response(io.BytesIO):
    headers = {"Content-Length": "7"}


def test_weights_are_downloaded_once_and_checked(monkeypatch, tmp_path, capsys):
    responses = [Response(b"garbage"), Response(b"weights and more"), Response(b"weights")]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: responses.pop(0))
    for _ in range(2):
        with pytest.raises(OSError, match="of Small.*another size or with another checksum"):
            fetch_imagenet_weights(SMALL)
    assert not (tmp_path / "models" / "small.h5").exists()
    assert Path(fetch_imagenet_weights(SMALL)).read_bytes() == b"weights"
    assert fetch_imagenet_weights(SMALL)  # no fourth request
    assert capsys.readouterr().out == ""


def test_weights_in_the_cache_of_keras_need_no_network(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise AssertionError("the network was used")

    (tmp_path / "models").mkdir()
    (tmp_path / "models/small.h5").write_bytes(b"weights")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", fail)
    assert fetch_imagenet_weights(SMALL) == str(tmp_path / "models/small.h5")


def test_an_unreachable_server_is_an_error_with_advice(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(OSError, match="weights of Xception at .*no route to host.*'none'"):
        fetch_imagenet_weights()


def test_the_files_are_those_that_keras_states():
    import inspect

    from keras.src.applications import resnet, vgg19, xception

    assert f'file_hash="{VGG19.md5}"' in inspect.getsource(vgg19)
    assert vgg19.WEIGHTS_PATH_NO_TOP.endswith(f"/keras-applications/{VGG19.path}")
    assert f'file_hash="{XCEPTION.md5}"' in inspect.getsource(xception)
    assert xception.WEIGHTS_PATH_NO_TOP.endswith(f"/keras-applications/{XCEPTION.path}")
    assert resnet.WEIGHTS_HASHES["resnet50"][1] == RESNET50.md5
    folder, name = RESNET50.path.split("/")
    assert resnet.BASE_WEIGHTS_PATH.endswith(f"/keras-applications/{folder}/")
    assert name == "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
