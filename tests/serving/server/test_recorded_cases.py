"""Responses compared with those recorded from TensorFlow Serving 2.20.0.

The recordings are not part of the repository; without them these tests are skipped, and
test_rest_codec.py and test_model_server.py cover the same behaviour with their own cases. Status,
content type and parsed JSON must be equal; an error must contain the recorded text; a parse error
must only be one, since parsers differ in their messages.
"""

import base64
import gzip
import http.client
import json
import runpy
import sys
from pathlib import Path

import pytest

from jdfd_keras.serving.model_config import ModelConfig

RECORDINGS = Path(__file__).parents[3] / ".." / "shared" / "tfserving"

DIFFERENT = {
    "inf_Inf": "Python's JSON knows Infinity, not Inf",
    "deep": "20,000 nested lists are rejected, even in a key that is ignored",
    "bytes_plain_out_nonutf8": "TensorFlow Serving sends invalid JSON; here U+FFFD",
    "fixed_wrong_rank": "400 with another text: the shape is checked before the graph runs",
}


def recorded_cases():
    file = RECORDINGS / "rest_cases.jsonl"
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        reason = DIFFERENT.get(case["id"])
        # Strict: a case that becomes equal must be removed from the list.
        marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
        yield pytest.param(case, id=case["id"], marks=marks)


@pytest.fixture(scope="module")
def recorded_server(start_server, tmp_path_factory):
    directory = tmp_path_factory.mktemp("recorded_models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["make_models.py", str(directory)])
        runpy.run_path(str(RECORDINGS / "make_models.py"))
    labels = {"stable": 1, "canary": 2}
    return start_server(
        [
            ModelConfig("half", directory / "half", latest=0, labels=labels),
            ModelConfig("half_nomethod", directory / "half_nomethod"),
            ModelConfig("echo", directory / "echo"),
        ]
    )


@pytest.mark.parametrize("case", list(recorded_cases()))
def test_response_equals_tensorflow_servings(recorded_server, case):
    if "body_base64" in case:
        body = base64.b64decode(case["body_base64"])
    else:
        body = (case["body"] or "").encode()
    connection = http.client.HTTPConnection(recorded_server.url.split("/")[2], timeout=30)
    connection.request(case["method"], case["path"], body, case["headers"])
    response = connection.getresponse()
    text = response.read()
    if response.headers.get("Content-Encoding") == "gzip":
        text = gzip.decompress(text)
    text = text.decode()
    connection.close()

    assert response.status == case["status"], text
    assert response.headers["Content-Type"] == case["content_type"]
    if case.get("error"):
        assert shared_text(case["error"]) in json.loads(text)["error"]
    elif is_complete_json(case):
        assert json.loads(text) == approximately(json.loads(case["response_text"]))


def shared_text(error):
    if error.startswith("JSON Parse error"):
        return "JSON Parse error"
    return error.split(" goo.gle/debugstr")[0]  # before a dump of the signature


def is_complete_json(case):
    return (
        case["content_type"] == "application/json"
        and case.get("response_text")
        and not case.get("response_truncated")
    )


def approximately(document):
    if isinstance(document, dict):
        return {key: approximately(value) for key, value in document.items()}
    if isinstance(document, list):
        return [approximately(value) for value in document]
    if isinstance(document, float):  # printed with nine digits
        return pytest.approx(document, rel=1e-7, nan_ok=True)
    return document
