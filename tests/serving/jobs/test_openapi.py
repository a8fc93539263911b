"""The OpenAPI description: valid, complete, and true of real responses."""

import json
import re

import jsonschema
import pytest
from openapi_spec_validator import validate

from jdfd_keras.serving.jobs import file_routes
from jdfd_keras.serving.jobs.job_types import JobError
from jdfd_keras.serving.jobs.openapi import DOWNLOADS, ROUTES, describe_api, schema_of
from jdfd_keras.serving.jobs.request_errors import REQUEST_CODES
from tests.serving.jobs.fake_service import TOKEN, serve_fake


def check(document, route, response):
    """Check a response against the description of its route; returns the document."""
    status, body, headers = response
    method, path = route
    described = document["paths"][path][method]["responses"]
    assert str(status) in described, (route, status)
    content = described[str(status)].get("content", {})
    media_type = headers.get("content-type", "").split(";")[0]
    if not content:
        assert not body
        return body
    assert media_type in content, (route, media_type)
    if schema := content[media_type].get("schema"):
        whole = {**schema, "components": document["components"]}
        jsonschema.validate(body, whole, cls=jsonschema.Draft202012Validator)
    return body


def test_the_description_is_valid():
    validate(json.loads(json.dumps(describe_api())))


def test_every_route_and_every_code_is_described():
    document = describe_api()
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    assert described == {(route.method, route.path) for route in ROUTES}
    texts = {
        code
        for item in document["paths"].values()
        for operation in item.values()
        for status, answer in operation["responses"].items()
        if int(status) >= 400
        for code in answer["description"].split(", ")
    }
    assert texts == set(REQUEST_CODES) - {"method_not_allowed"}  # of no operation


def test_the_server_answers_as_described(server, monkeypatch):
    monkeypatch.setattr(file_routes, "find_chromium", lambda: "chromium")
    _, document, _ = server.request("GET", "/v1/openapi.json")
    assert document == json.loads(json.dumps(describe_api()))
    files, one, download = "/v1/files", "/v1/files/{id}", "/v1/files/{id}/{download}"
    # The result is checked with a real one in test_file_service.py.
    document["components"]["schemas"]["Predictions"] = {"type": "object"}
    job = check(document, ("post", files), server.upload())
    check(document, ("post", files), server.upload())
    check(document, ("post", files), server.upload(every="x"))
    check(document, ("post", files), server.upload(callback="https://evil.example"))
    check(document, ("get", files), server.request("GET", files))
    path = job["links"]["self"]
    check(document, ("get", one), server.request("GET", path))
    check(document, ("get", download), server.request("GET", f"{path}/report.html"))
    server.service.finish()
    check(document, ("get", one), server.request("GET", path))
    for name in DOWNLOADS:
        check(document, ("get", download), server.request("GET", f"{path}/{name}"))
    headers = {"Range": "bytes=0-1"}
    partial = server.request("GET", f"{path}/report-player.mp4", None, headers)
    assert str(partial[0]) in document["paths"][download]["get"]["responses"]
    failed = server.upload("b.mp4", b"b")[1]
    server.service.finish(JobError("too_long", "Expected less; got more."))
    check(document, ("get", one), server.request("GET", failed["links"]["self"]))
    check(document, ("get", files), server.request("GET", files))
    check(document, ("delete", one), server.request("DELETE", path))
    check(document, ("delete", one), server.request("DELETE", path))
    check(document, ("get", one), server.request("GET", path))
    check(document, ("get", files), server.request("GET", f"{files}?limit=x"))
    foreign = server.request("POST", files, b"", {"Origin": "https://evil.example"})
    check(document, ("post", files), foreign)


def test_a_refusal_without_a_token_is_described(tmp_path):
    with serve_fake(tmp_path, token=TOKEN) as server:
        document = describe_api()
        for method, path in [("get", "/v1/files"), ("get", "/v1/openapi.json")]:
            check(document, (method, path), server.request(method.upper(), path))


def test_the_parameters_are_those_of_a_submission(server):
    operation = describe_api()["paths"]["/v1/files"]["post"]
    values = {"threshold": "0.5", "callback": "https://good.example/x", "name": "a.mp4"}
    query = []
    for parameter in operation["parameters"]:
        schema = parameter["schema"]
        default = schema.get("default", (schema.get("enum") or [""])[0])
        default = str(default).lower() if isinstance(default, bool) else default
        query.append(f"{parameter['name']}={values.get(parameter['name'], default)}")
    assert len(query) == 8
    assert server.request("POST", f"/v1/files?{'&'.join(query)}", b"clip")[0] == 202


def test_a_type_that_json_does_not_have_is_an_error():
    with pytest.raises(TypeError, match="Expected a type of JSON"):
        schema_of(re.Pattern, {})
