"""Generate the JSON schema of an application's plain form.

The plain form is what `application_to_plain` writes and `application_from_plain` reads.
"""

from __future__ import annotations

import inspect
import json
import signal
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, Union, get_args, get_origin

import attrs

from trio_supervisor.application import (
    Application,
    Command,
    Group,
    Listen,
    MonitorLike,
    Probe,
    Service,
)
from trio_supervisor.application.autoscale import Autoscale
from trio_supervisor.application.checks import LONGEST
from trio_supervisor.application.event_hooks import Exec, Webhook
from trio_supervisor.application.fields import (
    OptionField,
    check_of,
    doc_of,
    limits_of,
    options_of,
)
from trio_supervisor.application.timetable import Timetable
from trio_supervisor.application.worker_policy import HOOKS, Policy, PolicyName
from trio_supervisor.policy.metrics import Metrics
from trio_supervisor.policy.restart import Backoff

Schema: TypeAlias = dict[str, Any]

_DEFINED: Final = {
    Service: "service",
    Command: "command",
    Group: "group",
    Listen: "listen",
    Probe: "probe",
    Backoff: "backoff",
    Timetable: "timetable",
    Autoscale: "autoscale",
    Exec: "exec",
    Webhook: "webhook",
}
_VALUES: Final = (Listen, Backoff, Timetable, Autoscale)
_POLICY: Final[Schema] = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "pattern": ":"},
        "hooks": {"type": "array", "items": {"enum": list(HOOKS)}},
    },
    "required": ["text", "hooks"],
    "additionalProperties": False,
}
_SIMPLE: Final[Mapping[Any, Schema]] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    str: {"type": "string"},
    type(None): {"type": "null"},
    Any: {},
    # Names: of a function, and of a class.
    Callable: {"type": "string", "pattern": ":"},
    MonitorLike: {"type": "string", "pattern": ":"},
    Policy: _POLICY,
    PolicyName: _POLICY,
    Metrics: {
        "type": "object",
        "additionalProperties": {
            "anyOf": [
                {"enum": ["counter", "gauge", "histogram"]},
                {
                    "type": "object",
                    "properties": {
                        "type": {"enum": ["counter", "gauge", "histogram"]},
                        "help": {"type": "string"},
                        "labels": {
                            "type": "object",
                            "additionalProperties": {
                                "type": "array",
                                "items": {"type": "string"},
                            },
                        },
                        "buckets": {"type": "array", "items": {"type": "number"}},
                    },
                    "required": ["type"],
                    "additionalProperties": False,
                },
            ]
        },
    },
    # Which signals there are depends on the platform.
    signal.Signals: {"type": "string", "pattern": "^(SIG)?[A-Z0-9]+$"},
}
# What the classmethods of `Probe` take in addition to its options.
_ASKED: Final[Mapping[str, Schema]] = {
    "http": {"url": {"type": "string", "pattern": "^http://"}},
    "tcp": {"address": {"type": "string", "pattern": ":[^:]+$"}},
    "command": {
        "arguments": {"type": "array", "items": {"type": "string"}, "minItems": 1}
    },
}


def page() -> str:
    """Return docs/schema/application.schema.json."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Application of trio_supervisor",
        **object_schema(Application),
        "$defs": {
            **{_DEFINED[kind]: object_schema(kind) for kind in _VALUES},
            **{
                name: _kind(name, kind)
                for kind, name in _DEFINED.items()
                if name in _KINDS
            },
            "probe": {"oneOf": probe_schemas()},
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


_KINDS: Final = ("service", "command", "group", "exec", "webhook")


def object_schema(kind: type[Any]) -> Schema:
    """Return the schema of *kind* as an object of its options."""
    options = options_of(kind)
    return {
        "type": "object",
        "properties": {option.name: _property(option, kind) for option in options},
        "required": [
            option.name for option in options if option.default is attrs.NOTHING
        ],
        "additionalProperties": False,
    }


def _kind(name: str, kind: type[Any]) -> Schema:
    """Return the schema of a child of a group, which says what it is."""
    schema = object_schema(kind)
    schema["properties"] = {"kind": {"const": name}, **schema["properties"]}
    schema["required"] = ["kind", *schema["required"]]
    return schema


def probe_schemas() -> list[Schema]:
    """Return the schema of each kind of probe."""
    return [_probe(kind) for kind in _ASKED]


def _probe(kind: str) -> Schema:
    schema = object_schema(Probe)
    if kind == "command":
        del schema["properties"]["answered_by"]
    schema["properties"] = {
        "kind": {"const": kind},
        **_ASKED[kind],
        **schema["properties"],
    }
    schema["required"] = ["kind", *_ASKED[kind]]
    return schema


def _property(option: OptionField, owner: type[Any]) -> Schema:
    schema = _value(option, owner)
    schema["description"] = doc_of(option).replace("`None`", "`null`")
    if option.default is not attrs.NOTHING:
        schema["default"] = _json(option.default)
    return schema


def _value(option: OptionField, owner: type[Any]) -> Schema:
    type_, limits = _type_of(option, owner), _limits(option)
    if (choices := limits.get("choices")) and get_origin(type_) is not Sequence:
        return {"enum": list(choices)}
    return {**_schema_of(type_, limits)}


def _type_of(option: OptionField, owner: type[Any]) -> Any:
    """Return the type of the constructor's parameter."""
    if not isinstance(option.type, str):
        return option.type
    # The annotation is from the check that stands as converter, if there is one.
    check = check_of(option)
    names = vars(sys.modules[owner.__module__])
    for base in reversed(owner.__mro__[:-1]):
        names = {**names, **vars(sys.modules[base.__module__])}
    return eval(option.type, {**names, **getattr(check, "__globals__", {})})


def _limits(option: OptionField) -> Mapping[str, Any]:
    """Return the limits of the option, with those that are defaults of its check."""
    check = check_of(option)
    parameters = inspect.signature(check).parameters if check is not None else {}
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return {**defaults, **limits_of(option)}


def _schema_of(type_: Any, limits: Mapping[str, Any]) -> Schema:
    origin, arguments = get_origin(type_), get_args(type_)
    if origin in (Union, types.UnionType):
        return _union([_schema_of(each, limits) for each in arguments])
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is Sequence:
        if choices := limits.get("choices"):
            return {"type": "array", "items": {"enum": list(map(_json, choices))}}
        return {"type": "array", "items": _schema_of(arguments[0], {})}
    if origin is Mapping:
        return {
            "type": "object",
            "additionalProperties": _schema_of(arguments[1], {}),
        }
    if type_ in _DEFINED:
        return {"$ref": f"#/$defs/{_DEFINED[type_]}"}
    schema = _SIMPLE[origin or type_]
    return {**schema, **_range(type_, limits)}


def _range(type_: Any, limits: Mapping[str, Any]) -> Schema:
    if type_ not in (int, float):
        return {}
    most = LONGEST if type_ is float else None
    bounds = {"minimum": limits.get("least"), "maximum": limits.get("most", most)}
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _union(schemas: list[Schema]) -> Schema:
    """Return a schema for one of *schemas*, the shortest way to say so."""
    unique = [each for n, each in enumerate(schemas) if each not in schemas[:n]]
    if _SIMPLE[signal.Signals] in unique:  # the other strings name signals as well
        unique.remove(_SIMPLE[str])
    return unique[0] if len(unique) == 1 else {"anyOf": unique}


def _json(value: Any) -> Any:
    """Return the default *value* in its plain form."""
    match value:
        case signal.Signals():
            return value.name
        case Enum():
            return value.value
        case Backoff():
            return attrs.asdict(value)
        case tuple():
            return [_json(item) for item in value]
    return value
