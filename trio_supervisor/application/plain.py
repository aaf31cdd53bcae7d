"""An application as plain data, and back: it travels without any of its code. Pure.

The process that imports an application sends what it declares to the controller, which
runs no application code. What comes back is built by the same constructors as in a
service file, so every check is made again; functions and monitors are only names.
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Any, Final, TypeAlias

from trio_supervisor.application import checks
from trio_supervisor.application.application import Application, MonitorLike
from trio_supervisor.application.code_names import MonitorName, TargetName
from trio_supervisor.application.command import Command
from trio_supervisor.application.facts import target_text
from trio_supervisor.application.group import Group
from trio_supervisor.application.listen import Listen
from trio_supervisor.application.probe import Probe
from trio_supervisor.application.service import Service
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.restart import Backoff

Plain: TypeAlias = dict[str, Any]

_KINDS: Final[Mapping[str, type[Service | Command | Group]]] = {
    "service": Service,
    "command": Command,
    "group": Group,
}
# Each level of groups is two of JSON, and Group itself allows 32.
_MAX_DEPTH: Final = 40


def application_to_plain(application: Application) -> Plain:
    """Return *application* as objects of JSON."""
    root = application.root
    fields = _fields(application, Application)
    fields |= {name: getattr(root, name) for name in _OF_ROOT}
    fields["services"] = [_child_to_plain(child) for child in root.children]
    fields["monitors"] = [_monitor_text(each) for each in application.monitors]
    return fields


def application_from_plain(value: object) -> Application:
    """Return the application that *value* describes, checked from top to bottom.

    Raises:
        SpecError: it describes none.
    """
    fields = checks.dictionary("application", value)
    fields["services"] = _children("services", fields.get("services"), 0)
    monitors = checks.items("monitors", fields.get("monitors", ()))
    fields["monitors"] = [MonitorName(str(text)) for text in monitors]
    application: Application = _build("application", Application, fields)
    return application


_OF_ROOT: Final = ("strategy", "intensity", "period")


def _child_to_plain(child: Service | Command | Group) -> Plain:
    match child:
        case Group():
            inner = [_child_to_plain(each) for each in child.children]
            fields = _fields(child, Group, skip=("children",))
            return {"kind": "group", **fields, "children": inner}
        case Command():
            return {"kind": "command", **_supervised(child, Command)}
    fields = _supervised(child, Service)
    return {"kind": "service", **fields, "target": target_text(child.target)}


def _supervised(service: Service | Command, kind: type[Any]) -> Plain:
    rules = service.rules
    return {
        **_fields(service, kind, skip=("target", *_OF_RULES)),
        "restart": rules.policy.value,
        "backoff": _value(rules.backoff),
        "intensity": rules.intensity,
        "period": rules.period,
        "give_up_on": [_returncode(code) for code in sorted(service.give_up_on)],
    }


_OF_RULES: Final = ("restart", "backoff", "intensity", "period", "give_up_on")


@cache
def _parameters_of(kind: Any) -> frozenset[str]:
    return frozenset(inspect.signature(kind).parameters)


def _fields(
    owner: object, kind: Callable[..., Any], skip: tuple[str, ...] = ()
) -> Plain:
    """Return what *kind* is constructed from, as far as *owner* has it."""
    return {
        name: _value(getattr(owner, name))
        for name in sorted(_parameters_of(kind))
        if name not in skip and hasattr(owner, name)
    }


def _value(value: Any) -> Any:
    match value:
        case signal.Signals():
            return value.name
        case Enum():
            return value.value
        case Listen():
            return {"url": str(value), **_fields(value, Listen)}
        case Probe():
            return dict(_probe_fields(value))
        case Backoff():
            return _fields(value, Backoff)
        case Mapping():
            return {str(key): _value(item) for key, item in value.items()}
        case frozenset() | set():
            return [_value(item) for item in sorted(value)]
        case list() | tuple():
            return [_value(item) for item in value]
    return value


def _probe_fields(probe: Probe) -> Iterator[tuple[str, Any]]:
    make = getattr(Probe, probe.kind)
    yield "kind", probe.kind
    yield _PROBED[probe.kind], _asked(probe)
    yield from _fields(probe, make, skip=(_PROBED[probe.kind],)).items()


_PROBED: Final = {"http": "url", "tcp": "address", "command": "arguments"}


def _asked(probe: Probe) -> str | list[str]:
    if probe.kind == "command":
        return list(probe.arguments)
    text = str(probe)
    return text if probe.kind == "http" else text.removeprefix("tcp://")


def _returncode(code: int) -> int | str:
    return code if code >= 0 else signal.Signals(-code).name


def _monitor_text(monitor: MonitorLike) -> str:
    if isinstance(monitor, MonitorName):
        return monitor.text
    kind = type(monitor)
    return f"{kind.__module__}:{kind.__qualname__}"


def _children(field: str, value: object, depth: int) -> list[Any]:
    if depth > _MAX_DEPTH:
        raise SpecError(field, f"groups nested deeper than {_MAX_DEPTH} levels")
    return [
        _child(f"{field}[{index}]", each, depth)
        for index, each in enumerate(checks.items(field, value))
    ]


def _child(field: str, value: object, depth: int) -> Service | Command | Group:
    fields = checks.dictionary(field, value)
    kind = checks.one_of(f"{field}.kind", fields.pop("kind", None), tuple(_KINDS))
    if kind == "group":
        inner = fields.get("children")
        fields["children"] = _children(f"{field}.children", inner, depth + 1)
        group: Group = _build(field, Group, fields)
        return group
    _revive(field, fields, "sockets", _sockets)
    _revive(field, fields, "backoff", lambda at, it: _build(at, Backoff, it))
    for name in ("startup", "readiness", "liveness"):
        _revive(field, fields, name, _probe)
    if kind == "service":
        text = fields.get("target")
        if not isinstance(text, str):
            problem = f"expected a name, got {checks.shown(text)}"
            raise SpecError(f"{field}.target", problem)
        fields["target"] = TargetName(text)
    built: Service | Command = _build(field, _KINDS[kind], fields)
    return built


def _revive(
    field: str, fields: Plain, name: str, revive: Callable[[str, Any], Any]
) -> None:
    if fields.get(name) is not None:
        fields[name] = revive(f"{field}.{name}", fields[name])


def _sockets(field: str, value: object) -> dict[str, Listen]:
    return {
        name: _build(f"{field}[{name!r}]", Listen, listen)
        for name, listen in checks.dictionary(field, value).items()
    }


def _probe(field: str, value: object) -> Probe:
    fields = checks.dictionary(field, value)
    kind = checks.one_of(f"{field}.kind", fields.pop("kind", None), tuple(_PROBED))
    probe: Probe = _build(field, getattr(Probe, kind), fields)
    return probe


def _build(field: str, kind: Callable[..., Any], value: object) -> Any:
    """Construct one with the checks of its constructor, whose errors name *field*."""
    fields = checks.dictionary(field, value)
    known = _parameters_of(kind)
    if unknown := [name for name in fields if name not in known]:
        raise SpecError(field, f"unknown field {checks.shown(unknown[0])}")
    try:
        return kind(**fields)
    except SpecError as exc:
        raise SpecError(f"{field}.{exc.field}", exc.problem) from None
    except (TypeError, ValueError) as exc:
        raise SpecError(field, f"{exc}") from None
