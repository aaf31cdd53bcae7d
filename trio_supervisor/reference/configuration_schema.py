"""Generate the JSON schema of ``supervisor.toml``, for editors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from trio_supervisor.application import Application, Command, Group, Listen, Service
from trio_supervisor.application.autoscale import Autoscale
from trio_supervisor.application.event_hooks import Exec, Webhook
from trio_supervisor.application.timetable import Timetable
from trio_supervisor.config.application_file import APPLICATION_OPTIONS
from trio_supervisor.config.groups import GROUP_OPTIONS
from trio_supervisor.config.services import DERIVED, KINDS
from trio_supervisor.policy.restart import Backoff
from trio_supervisor.reference.schema import Schema, object_schema, probe_schemas

_TEXT: Final[Schema] = {"type": "string"}
_WORDS: Final[Schema] = {
    "anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]
}
_ENV_FILE: Final[Schema] = {
    "anyOf": [_TEXT, {"type": "array", "items": _TEXT}],
    "description": "Files of `NAME=value` lines, relative to this file.",
}
_VARIABLES: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"$ref": "#/$defs/variable"},
    "description": "Environment variables; `${VAR}` and `${VAR:-default}` are replaced "
    "in them.",
}
_VARIABLE: Final[Schema] = {
    "anyOf": [
        _TEXT,
        {"type": "integer"},
        *(
            {
                "type": "object",
                "properties": {key: {"type": "string", "description": meaning}},
                "required": [key],
                "additionalProperties": False,
            }
            for key, meaning in (
                ("file", "File with a secret."),
                ("credential", "Name of a credential of the systemd unit."),
            )
        ),
    ]
}
_TARGET: Final[Schema] = {"type": "string", "pattern": "^[^:]+:[^:]+$"}
_APPLICATION: Final[Schema] = {"type": "string", "pattern": "^[^:]+:[^:]+$"}
_WEB: Final = {
    "bind": "addresses, by default `tcp://127.0.0.1:8000`",
    "server": "`uvicorn` or `hypercorn`; of `asgi` only",
    "lifespan": "whether the application has one; of `asgi` only",
    "max_requests": "requests after which a worker is replaced",
    "max_requests_jitter": "at most how many more, drawn for each process",
    "server_options": "options of the server",
    "threads": "requests that a worker handles at the same time; of `wsgi` only",
}


def page() -> str:
    """Return trio_supervisor/config/supervisor.schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def schema() -> Schema:
    """Return the schema of the whole document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "supervisor.toml of trio_supervisor",
        "type": "object",
        "properties": {
            "include": {
                "type": "array",
                "items": _TEXT,
                "description": "Patterns of further files with services, groups, "
                "monitors and variables, relative to this file.",
            },
            "env": _VARIABLES,
            "env_file": _ENV_FILE,
            "services": _tables("service", "Services and commands by name."),
            "groups": _tables("group", "Groups of services by name."),
            "monitors": {"type": "array", "items": {"$ref": "#/$defs/monitor"}},
            **_options(Application, APPLICATION_OPTIONS),
            "on_event": {"type": "array", "items": {"$ref": "#/$defs/hook"}},
        },
        "additionalProperties": False,
        "$defs": {
            "variable": _VARIABLE,
            "service": _service(),
            "group": _group(),
            "monitor": {
                "type": "object",
                "properties": {"target": _TARGET},
                "required": ["target"],
                "description": "`target` names a class; the other keys are its "
                "arguments.",
            },
            "listen": _plain(object_schema(Listen)),
            "backoff": _plain(object_schema(Backoff)),
            "autoscale": _plain(object_schema(Autoscale)),
            "timetable": _plain(object_schema(Timetable)),
            "hook": {"oneOf": [_hook(Exec, "exec"), _hook(Webhook, "webhook")]},
            "probe": {"oneOf": [_probe(each) for each in probe_schemas()]},
        },
    }


def _tables(kind: str, description: str) -> Schema:
    return {
        "type": "object",
        "additionalProperties": {"$ref": f"#/$defs/{kind}"},
        "description": description,
    }


def _options(kind: type[Any], known: Mapping[str, object]) -> Schema:
    properties = _plain(object_schema(kind))["properties"]
    return {name: each for name, each in properties.items() if name in known}


def _service() -> Schema:
    properties: Schema = {}
    for kind in (Command, Service):
        properties |= _plain(object_schema(kind))["properties"]
    for name in DERIVED:
        del properties[name]
    properties["environment"] = {
        **_VARIABLES,
        "description": properties["environment"]["description"],
    }
    listen = {"anyOf": [_TEXT, {"$ref": "#/$defs/listen"}]}
    properties["sockets"] = {
        "type": "object",
        "additionalProperties": listen,
        "description": properties["sockets"]["description"],
    }
    properties["pre_stop"] = {**properties["pre_stop"], **_WORDS}
    return {
        "type": "object",
        "properties": {
            "command": {
                **_WORDS,
                "description": "Program and arguments, started without a shell.",
            },
            "target": {
                **_TARGET,
                "description": "Python function, as `package.module:function`.",
            },
            "asgi": {
                **_APPLICATION,
                "description": "ASGI application to serve, as "
                "`package.module:application`, or `package.module:factory()`.",
            },
            "wsgi": {
                **_APPLICATION,
                "description": "The same of a WSGI application.",
            },
            **_web_keys(),
            "env_file": _ENV_FILE,
            **properties,
        },
        "oneOf": [{"required": [kind]} for kind in KINDS],
        "additionalProperties": False,
    }


def _web_keys() -> Schema:
    """Return the keys of a web service beside those of `Service`."""
    listen = {"anyOf": [_TEXT, {"$ref": "#/$defs/listen"}]}
    count = {"type": "integer", "minimum": 0}
    found: Schema = {
        "bind": {"anyOf": [*listen["anyOf"], {"type": "array", "items": listen}]},
        "server": {"enum": ["uvicorn", "hypercorn"]},
        "lifespan": {"enum": ["auto", "on", "off"]},
        "max_requests": {"type": "integer", "minimum": 1},
        "max_requests_jitter": count,
        "server_options": {"type": "object"},
        "threads": {"type": "integer", "minimum": 1},
    }
    for name, each in found.items():
        each["description"] = f"Of a web service (`asgi`, `wsgi`): {_WEB[name]}."
    return found


def _group() -> Schema:
    properties = _options(Group, GROUP_OPTIONS)
    properties["children"] = {
        "type": "array",
        "items": _TEXT,
        "description": "Names of services and groups, in order.",
    }
    return {
        "type": "object",
        "properties": properties,
        "required": ["children"],
        "additionalProperties": False,
    }


def _hook(type_: type[Exec | Webhook], kind: str) -> Schema:
    """Return the schema of an event hook: its kind is the key of what is told."""
    schema = _plain(object_schema(type_))
    (asked,) = schema["required"]
    properties = {kind: schema["properties"].pop(asked), **schema["properties"]}
    if kind == "exec":
        properties[kind] = _WORDS
    return {**schema, "properties": properties, "required": [kind]}


def _probe(schema: Schema) -> Schema:
    """Return the schema of a probe whose kind is the key of what it asks."""
    properties = dict(schema["properties"])
    kind = properties.pop("kind")["const"]
    asked = next(name for name in schema["required"] if name != "kind")
    properties = {kind: properties.pop(asked), **properties}
    if kind == "command":
        properties[kind] = _WORDS
    plain: Schema = _plain({**schema, "properties": properties, "required": [kind]})
    return plain


def _plain(schema: Any) -> Any:
    """Return *schema* for TOML: without null, and with references to variables."""
    match schema:
        case {"type": "null"}:
            return {"const": False}
        case {"type": "integer" | "number"}:
            number = {key: schema[key] for key in schema if key != "description"}
            rest = (
                {"description": schema["description"]}
                if len(schema) > len(number)
                else {}
            )
            return {"anyOf": [number, {"type": "string", "pattern": r"\$\{"}], **rest}
        case dict():
            return {
                key: _text(each) if key == "description" else _plain(each)
                for key, each in schema.items()
                if not (key == "default" and each is None)
            }
        case list():
            return [_plain(each) for each in schema]
    return schema


def _text(description: str) -> str:
    return description.replace("`null`", "`false`")
