"""Convert an application to plain data and back, without any of its code. Pure.

The process that imports an application sends the declaration to the controller, which
runs no application code. The controller calls the same constructors as a service file,
so that every check is made again; functions and monitors are only names there.
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from typing import Any, Final, TypeAlias

import attrs

from trio_supervisor.application import checks
from trio_supervisor.application.application import Application, MonitorLike
from trio_supervisor.application.autoscale import Autoscale
from trio_supervisor.application.code_names import MonitorName, TargetName
from trio_supervisor.application.command import Command
from trio_supervisor.application.event_hooks import Exec, Webhook
from trio_supervisor.application.facts import target_text
from trio_supervisor.application.fields import options_of
from trio_supervisor.application.group import Group
from trio_supervisor.application.listen import Listen
from trio_supervisor.application.metric_tables import (
    metrics_from_tables,
    metrics_to_tables,
)
from trio_supervisor.application.probe import Probe
from trio_supervisor.application.service import Service
from trio_supervisor.application.timetable import Timetable
from trio_supervisor.application.worker_policy import policy_from_plain, policy_name
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.metrics import Metrics
from trio_supervisor.policy.restart import Backoff

Plain: TypeAlias = dict[str, Any]

_KINDS: Final[Mapping[str, type[Service | Command | Group]]] = {
    "service": Service,
    "command": Command,
    "group": Group,
}
_HOOKS: Final[Mapping[str, type[Exec | Webhook]]] = {"exec": Exec, "webhook": Webhook}
# The option of each kind of probe that says what to ask.
_ASKED: Final = {"http": "url", "tcp": "address", "command": "arguments"}
# Each level of groups is two levels of JSON, and Group itself allows 32.
_MAX_DEPTH: Final = 40


def application_to_plain(application: Application) -> Plain:
    """Return *application* as JSON values."""
    fields = _options(application)
    fields["services"] = [child_to_plain(child) for child in application.root.children]
    fields["monitors"] = [_monitor_text(each) for each in application.monitors]
    if application.policy is not None:
        fields["policy"] = attrs.asdict(policy_name(application.policy))
    fields["on_event"] = [_hook_to_plain(each) for each in application.on_event]
    return fields


def application_from_plain(value: Any) -> Application:
    """Return the application that *value* describes, with every check made again.

    Raises:
        SpecError: *value* does not describe an application; the message has the path
            of the field.
    """
    fields = checks.dictionary(value, "application")
    fields["services"] = _children("services", fields.get("services"), 0)
    monitors = checks.items(fields.get("monitors", ()), "monitors")
    fields["monitors"] = [MonitorName(str(text)) for text in monitors]
    fields["policy"] = policy_from_plain(fields.get("policy"))
    hooks = checks.items(fields.get("on_event", ()), "on_event")
    fields["on_event"] = [
        _hook(f"on_event[{index}]", each) for index, each in enumerate(hooks)
    ]
    application: Application = _build("application", Application, fields)
    return application


def child_to_plain(child: Service | Command | Group) -> Plain:
    """Return *child* of a group as JSON values."""
    match child:
        case Group():
            children = [child_to_plain(each) for each in child.children]
            return {"kind": "group", **_options(child), "children": children}
        case Command():
            return {"kind": "command", **_options(child)}
    target = target_text(child.target)
    options = _options(child)
    if child.autoscale is not None:
        options["count"] = _options(child.autoscale)
    return {"kind": "service", **options, "target": target}


def _options(owner: Any) -> Plain:
    """Return the options of *owner* as JSON values."""
    return {
        option.name: _value(getattr(owner, option.name))
        for option in options_of(type(owner))
    }


def _value(value: Any) -> Any:
    match value:
        case signal.Signals():
            return value.name
        case Enum():
            return value.value
        case Listen():
            return _options(value)
        case Probe():
            return _probe_to_plain(value)
        case Timetable():
            return _options(value)
        case Backoff():
            return attrs.asdict(value)
        case Metrics():
            return metrics_to_tables(value)
        case Mapping():
            return {str(key): _value(item) for key, item in value.items()}
        case frozenset() | set():
            return [_returncode(item) for item in sorted(value)]
        case list() | tuple():
            return [_value(item) for item in value]
    return value


def _probe_to_plain(probe: Probe) -> Plain:
    fields = {"kind": probe.kind, _ASKED[probe.kind]: _asked(probe), **_options(probe)}
    if probe.kind == "command":
        del fields["answered_by"]
    return fields


def _asked(probe: Probe) -> str | list[str]:
    if probe.kind == "command":
        return list(probe.arguments)
    if probe.template:
        return probe.template
    text = str(probe)
    return text if probe.kind == "http" else text.removeprefix("tcp://")


def _returncode(code: int) -> int | str:
    return code if code >= 0 else signal.Signals(-code).name


def _monitor_text(monitor: MonitorLike) -> str:
    if isinstance(monitor, MonitorName):
        return monitor.text
    kind = type(monitor)
    return f"{kind.__module__}:{kind.__qualname__}"


def _children(field: str, value: Any, depth: int) -> list[Any]:
    if depth > _MAX_DEPTH:
        raise SpecError(field, f"groups nested deeper than {_MAX_DEPTH} levels")
    return [
        _child(f"{field}[{index}]", each, depth)
        for index, each in enumerate(checks.items(value, field))
    ]


def _child(field: str, value: Any, depth: int) -> Service | Command | Group:
    fields = checks.dictionary(value, field)
    kinds = tuple(_KINDS)
    kind = checks.one_of(fields.pop("kind", None), f"{field}.kind", choices=kinds)
    if kind == "group":
        inner = fields.get("children")
        fields["children"] = _children(f"{field}.children", inner, depth + 1)
        group: Group = _build(field, Group, fields)
        return group
    _revive(field, fields, "sockets", _sockets)
    _revive(field, fields, "schedule", lambda at, it: _build(at, Timetable, it))
    if isinstance(fields.get("count"), dict):
        _revive(field, fields, "count", lambda at, it: _build(at, Autoscale, it))
    _revive(field, fields, "backoff", lambda at, it: _build(at, Backoff, it))
    for name in ("startup", "readiness", "liveness"):
        _revive(field, fields, name, _probe)
    if kind == "service":
        _revive(field, fields, "metrics", lambda at, it: metrics_from_tables(it, at))
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


def _sockets(field: str, value: Any) -> dict[str, Listen]:
    return {
        name: _build(f"{field}[{name!r}]", Listen, listen)
        for name, listen in checks.dictionary(value, field).items()
    }


def _hook_to_plain(hook: Exec | Webhook) -> Plain:
    kind = next(name for name, type_ in _HOOKS.items() if isinstance(hook, type_))
    return {"kind": kind, **_options(hook)}


def _hook(field: str, value: Any) -> Exec | Webhook:
    fields = checks.dictionary(value, field)
    kinds = tuple(_HOOKS)
    kind = checks.one_of(fields.pop("kind", None), f"{field}.kind", choices=kinds)
    hook: Exec | Webhook = _build(field, _HOOKS[kind], fields)
    return hook


def _probe(field: str, value: Any) -> Probe:
    fields = checks.dictionary(value, field)
    kinds = tuple(_ASKED)
    kind = checks.one_of(fields.pop("kind", None), f"{field}.kind", choices=kinds)
    probe: Probe = _build(field, getattr(Probe, kind), fields)
    return probe


def _build(field: str, make: Callable[..., Any], value: Any) -> Any:
    """Call *make* with the fields in *value*; its errors get the path *field*."""
    fields = checks.dictionary(value, field)
    known = _parameters_of(make)
    if unknown := [name for name in fields if name not in known]:
        raise SpecError(field, f"unknown field {checks.shown(unknown[0])}")
    try:
        return make(**fields)
    except SpecError as exc:
        raise SpecError(f"{field}.{exc.field}", exc.problem) from None
    except (TypeError, ValueError) as exc:
        raise SpecError(field, f"{exc}") from None


@cache
def _parameters_of(make: Any) -> frozenset[str]:
    return frozenset(inspect.signature(make).parameters)
