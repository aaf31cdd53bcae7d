"""Convert values of TOML to those of options: paths, sockets, probes, delays."""

from __future__ import annotations

import inspect
import os
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final

from trio_supervisor.application import Listen, Probe, checks
from trio_supervisor.application.autoscale import Autoscale
from trio_supervisor.application.event_hooks import Exec, Webhook
from trio_supervisor.application.fields import OptionField, check_of, limits_of
from trio_supervisor.application.metric_tables import metrics_from_tables
from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.application.timetable import Timetable
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.restart import Backoff

_PROBES: Final[Mapping[str, Callable[..., Probe]]] = {
    "http": Probe.http,
    "tcp": Probe.tcp,
    "command": Probe.command,
}
_NEEDS_SHELL: Final = re.compile(r"[|&;<>]|\|\||&&|[0-9]?>.*|<.*")
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def option_value(option: OptionField, value: Any, directory: str) -> Any:
    """Return *value* as the constructor takes it, checked.

    Args:
        directory: What relative paths are relative to.

    Raises:
        SpecError: the value is not valid.
    """
    name = option.name
    if value is False and "None" in str(option.type):
        return None  # TOML has no null
    if check_of(option) is checks.path_or_none and isinstance(value, str):
        value = os.path.normpath(os.path.join(directory, value))
    elif name == "sockets":
        value = _sockets(value, directory)
    elif name in ("startup", "readiness", "liveness"):
        value = _probe(value, name)
    elif name == "backoff":
        value = _made(Backoff, value, name)
    elif name == "on_event":
        value = [
            _hook(each, f"on_event[{index}]")
            for index, each in enumerate(checks.items(value, name))
        ]
    elif name == "count" and isinstance(value, dict):
        value = _made(Autoscale, value, name)
    elif name == "schedule":
        value = _made(Timetable, value, name)
    elif name == "metrics":
        value = metrics_from_tables(value)
    elif name == "pre_stop":
        value = words_of(value, name)
    check = check_of(option)
    if check is not None:
        check(value, name, **limits_of(option))
    return value


def words_of(value: Any, field: str) -> Any:
    """Return a command line as a list; a string is split as a shell splits it.

    Raises:
        SpecError: the string needs a shell, or a quotation is not closed.
    """
    if not isinstance(value, str):
        return value
    try:
        words = shlex.split(value)
    except ValueError as exc:
        raise SpecError(field, f"{exc}".lower()) from None
    special = next((word for word in words if _NEEDS_SHELL.fullmatch(word)), None)
    if special is not None:
        problem = (
            f"{special!r} needs a shell, and a command is started without one; write "
            f'["sh", "-c", "..."]'
        )
        raise SpecError(field, problem)
    return words


def number_of(option: OptionField, text: str) -> Any:
    """Return *text*, in which a variable was replaced, as the option's type."""
    is_number = re.search(r"\b(int|float)\b", str(option.type)) is not None
    if not is_number or not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def _sockets(value: Any, directory: str) -> dict[str, Listen]:
    return {
        name: listen_value(listen, directory, f"sockets[{name!r}]")
        for name, listen in checks.dictionary(value, "sockets").items()
    }


def listen_value(value: Any, directory: str, field: str) -> Listen:
    """Return a listening socket; a path in *value* is relative to *directory*.

    Raises:
        SpecError: it is malformed.
    """
    fields = {"url": value} if isinstance(value, str) else value
    if isinstance(fields, dict) and isinstance(url := fields.get("url"), str):
        path = url.removeprefix("unix://")
        if path not in ("", url):
            fields = {**fields, "url": f"unix://{os.path.join(directory, path)}"}
    listen: Listen = _made(Listen, fields, field)
    return listen


def _probe(value: Any, field: str) -> Probe:
    fields = checks.dictionary(value, field)
    kinds = [kind for kind in _PROBES if kind in fields]
    if len(kinds) != 1:
        found = ", ".join(map(str, fields)) or "no key"
        problem = "expected one of http, tcp and command"
        raise SpecError(field, f"{problem}, got {found}")
    kind = kinds[0]
    asked = fields.pop(kind)
    if kind == "command":
        asked = words_of(asked, f"{field}.command")
    parameter = next(iter(inspect.signature(_PROBES[kind]).parameters))
    try:
        probe: Probe = _made(_PROBES[kind], {parameter: asked, **fields}, field)
    except SpecError as exc:
        own = exc.field.replace(f"{field}.{parameter}", f"{field}.{kind}", 1)
        problem = exc.problem.replace(f"expected {parameter},", f"expected {kind},")
        raise SpecError(own, problem) from None
    return probe


def _hook(value: Any, field: str) -> Exec | Webhook:
    fields = checks.dictionary(value, field)
    kinds = [kind for kind in ("exec", "webhook") if kind in fields]
    if len(kinds) != 1:
        found = ", ".join(map(str, fields)) or "no key"
        raise SpecError(field, f"expected one of exec and webhook, got {found}")
    if kinds == ["exec"]:
        words = words_of(fields.pop("exec"), f"{field}.exec")
        program: Exec = _made(Exec, {"arguments": words, **fields}, field)
        return program
    hook: Webhook = _made(Webhook, {"url": fields.pop("webhook"), **fields}, field)
    return hook


def _made(make: Callable[..., Any], value: Any, field: str) -> Any:
    """Call *make* with the keys of the table *value*, all of which it must know."""
    if not isinstance(value, dict):
        raise SpecError(field, f"expected a table, got {checks.shown(value)}")
    parameters = inspect.signature(make).parameters
    if unknown := [key for key in value if key not in parameters]:
        hint = did_you_mean(unknown[0], parameters)
        raise SpecError(
            f"{field}.{unknown[0]}",
            f"unknown key{hint}; expected {', '.join(parameters)}",
        )
    missing = [
        name
        for name, each in parameters.items()
        if each.default is each.empty and name not in value
    ]
    if missing:
        raise SpecError(field, f"has no {missing[0]}")
    try:
        return make(**value)
    except SpecError as exc:
        raise SpecError(f"{field}.{exc.field}", exc.problem) from None
    except (TypeError, ValueError) as exc:
        raise SpecError(field, f"{exc}") from None
