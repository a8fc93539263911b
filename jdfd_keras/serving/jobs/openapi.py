"""The description of the file service in OpenAPI 3.1.

Made from the table of the routes, from the dataclasses of `job_documents`, and from the options of
a job; also served, at /v1/openapi.json. Independent of the server.
"""

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Sequence
from typing import Any

import jdfd_keras
from jdfd_keras.io.results import Result
from jdfd_keras.serving.jobs.api_routes import (
    ALWAYS,
    FILES,
    LIST_QUERY,
    PATTERN_SCHEMAS,
    ROUTES,
    Route,
)
from jdfd_keras.serving.jobs.api_routes import DOWNLOADS as DOWNLOADS
from jdfd_keras.serving.jobs.job_documents import ErrorDocument, JobOptions
from jdfd_keras.serving.jobs.job_types import JOB_CODES, STATES
from jdfd_keras.serving.jobs.request_errors import REQUEST_CODES

TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
VERDICT_HELP = (
    "Verdict of the file; of several models the verdict if they agree or only one has any, else "
    "`partial` or `disagree`. Empty before the end, and without one."
)


@functools.cache
def describe_api() -> dict[str, Any]:
    """Return the OpenAPI document of the file service, JSON-ready.

    Example:
        >>> document = describe_api()
        >>> document["openapi"], sorted(document["paths"])[0]
        ('3.1.0', '/v1/files')
    """
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for route in ROUTES:
        operation = _describe_route(route, schemas)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    schemas["JobSummary"]["properties"]["state"]["enum"] = list(STATES)
    schemas["JobDocument"]["properties"]["state"]["enum"] = list(STATES)
    for kind in ("JobSummary", "JobDocument"):
        schemas[kind]["properties"]["verdict"]["description"] = VERDICT_HELP
    codes = schemas["JobError"]["properties"]["code"]
    codes["enum"] = [*REQUEST_CODES, *(code for code in JOB_CODES if code not in REQUEST_CODES)]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jdfd-keras: verdicts on videos and images",
            "version": jdfd_keras.__version__,
            "summary": "Submit a file, ask for its state, and read its verdict.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],  # none without --token, on this machine only
    }


def schema_of(hint: Any, schemas: dict[str, Any], is_result: bool = False) -> dict[str, Any]:
    """Return the JSON schema of a type; dataclasses are added to `schemas` and referred to.

    Args:
        hint: str, int, float, bool, None, a tuple, list, sequence or dict of them, a union, or a
            dataclass.
        schemas: Schemas of dataclasses by name.
        is_result: Whether a float can be null, as NaN is in a result.

    Raises:
        TypeError: If it is another type.

    Example:
        >>> schema_of(tuple[int, ...], {})
        {'type': 'array', 'items': {'type': 'integer'}}
        >>> schema_of(str | None, {})
        {'anyOf': [{'type': 'string'}, {'type': 'null'}]}
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    nested = functools.partial(schema_of, schemas=schemas, is_result=is_result)
    if hint is types.NoneType:
        return {"type": "null"}
    if hint is float and is_result:
        return {"type": ["number", "null"]}
    if hint in TYPES:
        return {"type": TYPES[hint]}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [nested(kind) for kind in arguments]}
    if origin is tuple and arguments[1:] != (Ellipsis,):
        items = {"prefixItems": [nested(kind) for kind in arguments], "items": False}
        return {"type": "array", **items, "minItems": len(arguments)}
    if origin in (tuple, list, Sequence):
        return {"type": "array", "items": nested(arguments[0])}
    if hint is dict or hint is Any:
        return {"type": "object"} if hint is dict else {}
    if origin is dict:
        return {"type": "object", "additionalProperties": nested(arguments[1])}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in schemas:
            schemas[hint.__name__] = {}  # before its fields, which may refer to it
            schemas[hint.__name__] = _schema_of_fields(hint, schemas)
        return {"$ref": f"#/components/schemas/{hint.__name__}"}
    raise TypeError(f"Expected a type of JSON; got {hint}. Add it to schema_of.")


def _schema_of_fields(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    hints, properties = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        if not field.metadata.get("json", True):
            continue
        schema = schema_of(hints[field.name], schemas, is_result=issubclass(kind, Result))
        if help := field.metadata.get("help"):
            schema = {**schema, "description": help}
        properties[field.name] = schema
    return {
        "type": "object",
        "description": (kind.__doc__ or "").split("\n")[0],
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _describe_route(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", route.path)
    parameters = [_parameter(name, "path", PATTERN_SCHEMAS[name]) for name in names]
    operation: dict[str, Any] = {"operationId": route.operation, "summary": route.summary}
    if route.operation == "list":
        parameters += [
            _parameter(name, "query", schema, help) for name, (schema, help) in LIST_QUERY.items()
        ]
    if route.operation == "submit":
        options = _option_schemas()
        name = _parameter("name", "query", {"type": "string"}, "file name of a raw body")
        parameters += [name, *(_parameter(key, "query", options[key]) for key in options)]
        operation["requestBody"] = _request_body(options)
    responses = {
        str(status): _describe_answer(route, status, kind, schemas)
        for status, kind in route.answers.items()
    }
    if route.operation in FILES:
        responses["206"] = {"description": "A part of the file."}
    by_status: dict[int, list[str]] = {}
    for code in (*ALWAYS, *route.codes):
        by_status.setdefault(REQUEST_CODES[code], []).append(code)
    error = {"application/json": {"schema": schema_of(ErrorDocument, schemas)}}
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = {"description": ", ".join(codes), "content": error}
    return operation | {"parameters": parameters, "responses": responses}


def _parameter(name: str, place: str, schema: dict[str, Any], help: str = "") -> dict[str, Any]:
    schema = dict(schema)
    help = help or schema.pop("description", "")
    described = {"description": help} if help else {}
    return {"name": name, "in": place, "required": place == "path", "schema": schema, **described}


def _option_schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas of the options of a job by name."""
    hints, schemas = typing.get_type_hints(JobOptions), {}
    for field in dataclasses.fields(JobOptions):
        kinds = set(typing.get_args(hints[field.name])) - {types.NoneType} or {hints[field.name]}
        schema = schema_of(kinds.pop(), {})
        if field.metadata["choices"]:
            schema["enum"] = list(field.metadata["choices"])
        if field.default is not None:
            schema["default"] = field.default
        schemas[field.name] = schema | {"description": field.metadata["help"]}
    help = "URL that is told of the end, signed; its host must be one of --callback-hosts"
    return schemas | {"callback": {"type": "string", "description": help}}


def _request_body(options: dict[str, Any]) -> dict[str, Any]:
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    path = {"type": "string", "description": "path below the --root of the server"}
    return {
        "required": True,
        "description": "A form with one file and options, the bytes of a file, or a path.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": file, **options},
                    "required": ["file"],
                }
            },
            "application/octet-stream": {"schema": {}},
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"path": path, **options},
                    "required": ["path"],
                }
            },
        },
    }


def _describe_answer(
    route: Route, status: int, kind: type | None, schemas: dict[str, Any]
) -> dict[str, Any]:
    description = {202: "The job is new.", 204: "It is deleted."}.get(status, "Success.")
    if route.operation in FILES:
        # HTML, PDF and video have no schema of their own.
        return {
            "description": description,
            "content": {media_type: {} for media_type in FILES[route.operation].values()},
        }
    if kind is None:
        return {"description": description}
    return {
        "description": description,
        "content": {"application/json": {"schema": schema_of(kind, schemas)}},
    }
