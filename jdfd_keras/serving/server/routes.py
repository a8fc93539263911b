"""What each path of the REST interface answers.

Takes a method, a path and a body; gives what to answer, ready for JSON. Knows nothing of sockets.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from jdfd_keras.inference.saved_model import serialize_example
from jdfd_keras.serving.server import inference_service as examples
from jdfd_keras.serving.server import rest_codec as rest
from jdfd_keras.serving.server.call_errors import CallError
from jdfd_keras.serving.server.inference_service import Calls, find_signature
from jdfd_keras.serving.server.repository import MAX_VERSION, ServedVersion

ROUTE = re.compile(
    r"/v1/models/(?P<name>[^/:]+)"
    r"(?:/versions/(?P<version>[0-9]{1,30})|/labels/(?P<label>[^/:]+))?"
    r"(?P<verb>/metadata|:predict|:classify|:regress)?"
)
APIS = {
    None: "GetModelStatus",
    "/metadata": "GetModelMetadata",
    ":predict": "Predict",
    ":classify": "Classify",
    ":regress": "Regress",
}


@dataclass(frozen=True)
class Route:
    """A path that means something.

    Attributes:
        api: What is asked, named as gRPC does.
        name: The model.
        version: Its version, if one is named.
        label: Or its label.
    """

    api: str
    name: str
    version: int | None
    label: str | None


def parse_route(method: str, path: str) -> Route:
    """Read a path.

    Args:
        method: `GET`, `POST` and so on.
        path: The path with its query, as it came: nothing in it is decoded or tidied.

    Returns:
        What it asks for.

    Raises:
        CallError: If it means nothing.
    """
    match = ROUTE.fullmatch(path)
    verb = match["verb"] if match else None
    if not match or method != ("POST" if (verb or "").startswith(":") else "GET"):
        if method == "GET" and path == "/v1/models":
            raise CallError("Missing model name in request.")
        raise CallError(f"Malformed request: {method} {path}")
    version = match["version"] and int(match["version"])
    if version and version > MAX_VERSION:
        raise CallError(f"Failed to convert version: {version} to numeric.")
    return Route(APIS[verb], match["name"], version, match["label"])


async def answer(calls: Calls, route: Route, body: bytes) -> Callable[[], dict]:
    """Answer one request as TensorFlow Serving does.

    Args:
        calls: The models.
        route: What is asked.
        body: As it came.

    Returns:
        A function that makes the document of status 200; with large outputs it takes a while.

    Raises:
        CallError: If it cannot be answered; the function may raise it as well.
    """
    if route.api == "GetModelStatus":  # which passes over a label, whatever it is
        return partial(_describe_states, calls.repository.states(route.name, route.version))
    with calls.repository.use(route.name, route.version, route.label) as served:
        if route.api == "GetModelMetadata":
            return partial(_describe_version, served.name, served.version, served.engine.describe())
        if route.api == "Predict":
            request, inputs = await calls.translate(_read_predict, served, body)
            outputs = await calls.run(served, request.signature_name, inputs)
            return partial(rest.encode_outputs, outputs, request.is_row)
        method = examples.CLASSIFY if route.api == "Classify" else examples.REGRESS
        limit = calls.max_body_bytes
        name, inputs = await calls.translate(_read_examples, served, body, method, limit)
        outputs = await calls.run(served, name, inputs)
        read = examples.read_classes if method == examples.CLASSIFY else examples.read_values
        return lambda: {"results": read(outputs)}


def _describe_states(states: list[ServedVersion]) -> dict:
    def describe(served: ServedVersion) -> dict:
        status = {
            "error_code": served.error_code,
            "error_message": served.error,
        }
        return {"version": str(served.version), "state": served.state, "status": status}

    return {"model_version_status": [describe(served) for served in states]}


def _describe_version(name: str, version: int, signatures: dict) -> dict:
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def _read_predict(
    served: ServedVersion, body: bytes
) -> tuple[rest.PredictRequest, dict[str, np.ndarray]]:
    request = rest.parse_predict(body)
    return request, rest.decode_inputs(request, find_signature(served, request.signature_name))


def _read_examples(
    served: ServedVersion, body: bytes, method: str, limit: int
) -> tuple[str, dict[str, np.ndarray]]:
    name, features = rest.parse_examples(body)
    examples.check_signature(name, served.engine.signatures.get(name), method)
    serialized = (serialize_example(feature) for feature in features)
    return name, {examples.INPUT: examples.gather_examples(serialized, limit)}
