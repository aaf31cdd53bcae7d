"""Generate the JSON schema of the messages of protocol 1."""

from __future__ import annotations

import inspect
import json
import types
from enum import Enum
from typing import Any, Final, TypeAlias, Union, get_args, get_origin

import attrs

from trio_supervisor.reference.message_fields import message_fields, one_line
from trio_supervisor.wire.envelope import MAX_ID
from trio_supervisor.wire.operation import OPERATIONS, Operation

Schema: TypeAlias = dict[str, Any]

_SIMPLE: Final[dict[Any, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}
_ID: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": MAX_ID}
_FAILURE: Final[Schema] = {
    "description": "The last answer to a call that failed.",
    "type": "object",
    "properties": {
        "id": _ID,
        "finished": {"const": True},
        "failed": {"const": True},
        "error": {
            "type": ["object", "string"],
            "properties": {
                "class": {"type": "string"},
                "message": {"type": "string"},
            },
        },
    },
    "required": ["id", "finished", "failed", "error"],
}
_ANSWER: Final[Schema] = {
    "description": "The last answer to a call; beside these, the fields of its result.",
    "type": "object",
    "properties": {"id": _ID, "finished": {"const": True}},
    "required": ["id", "finished"],
}
_PROGRESS: Final[Schema] = {
    "description": "An intermediate answer; its fields depend on the operation.",
    "type": "object",
    "properties": {"id": _ID, "finished": {"const": False}},
    "required": ["id"],
}


def page() -> str:
    """Return docs/schema/protocol.schema.json."""
    definitions: dict[str, Schema] = {}
    calls = {do: _call(type_, definitions) for do, type_ in OPERATIONS.items()}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Messages of trio_supervisor's protocol 1",
        "description": "Each message is one line of JSON.",
        "anyOf": [
            {"$ref": f"#/$defs/{kind}"}
            for kind in ("call", "answer", "progress", "failure")
        ],
        "$defs": {
            "call": {"oneOf": [{"$ref": f"#/$defs/call.{do}"} for do in calls]},
            "answer": _ANSWER,
            "progress": _PROGRESS,
            "failure": _FAILURE,
            **{f"call.{do}": call for do, call in calls.items()},
            **dict(sorted(definitions.items())),
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _call(type_: type[Operation], definitions: dict[str, Schema]) -> Schema:
    """Return the schema of a call of *type_*; add those of classes that it uses."""
    spec, fields = type_.spec, type_
    schema = _object(fields, definitions)
    schema["properties"] = {"id": _ID, "do": {"const": spec.do}, **schema["properties"]}
    schema["required"] = ["id", "do", *schema["required"]]
    if (result := spec.result_type) is not None:
        schema["x-result"] = _schema_of(result, definitions)["$ref"]
    schema["x-answered-by"] = [side.value for side in spec.answered_by]
    if spec.may:
        schema["x-may"] = spec.may
    return schema


def _object(type_: Any, definitions: dict[str, Schema]) -> Schema:
    fields = message_fields(type_)
    properties = {}
    for field in fields:
        schema = _bounded(_schema_of(field.type, definitions), field.bounds)
        if field.meaning:
            schema["description"] = field.meaning
        if not field.is_required:
            schema["default"] = field.default
        properties[field.name] = schema
    return {
        "description": one_line((inspect.getdoc(type_) or "").partition("\n\n")[0]),
        "type": "object",
        "properties": properties,
        "required": [field.name for field in fields if field.is_required],
    }


def _bounded(schema: Schema, bounds: Schema) -> Schema:
    """Add *bounds* to the alternatives of *schema* that they are about."""
    if "anyOf" in schema:
        return {"anyOf": [_bounded(each, bounds) for each in schema["anyOf"]]}
    if schema.get("type") == "null":
        return schema
    if schema.get("type") == "array":
        items = {key: value for key, value in bounds.items() if key != "minItems"}
        least = {"minItems": bounds["minItems"]} if "minItems" in bounds else {}
        return {**schema, "items": {**schema["items"], **items}, **least}
    return {**schema, **bounds}


def _schema_of(type_: Any, definitions: dict[str, Schema]) -> Schema:
    origin, arguments = get_origin(type_), get_args(type_)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema_of(each, definitions) for each in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _schema_of(arguments[0], definitions)}
    if origin is dict:
        values = _schema_of(arguments[1], definitions)
        return {
            "type": "object",
            **({"additionalProperties": values} if values else {}),
        }
    if isinstance(type_, type) and issubclass(type_, Enum):
        return {"enum": [each.value for each in type_]}
    if attrs.has(type_):
        name: str = type_.__name__
        if name not in definitions:
            definitions[name] = {}  # in case it refers to itself
            definitions[name] = _object(type_, definitions)
        return {"$ref": f"#/$defs/{name}"}
    return {**_SIMPLE[type_]}
