"""Make monitors from their tables."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from trio_supervisor.config.positions import KeyPath
from trio_supervisor.config.problems import ConfigFile, Problems
from trio_supervisor.config.services import FindTarget
from trio_supervisor.errors import SpecError, TargetError


def read_monitors(
    file: ConfigFile, value: Any, find_target: FindTarget, problems: Problems
) -> list[Any]:
    """Return the monitors of ``[[monitors]]`` that have no mistake."""
    if not isinstance(value, list):
        problems.add(file, ("monitors",), "expected tables [[monitors]]")
        return []
    found = []
    for number, table in enumerate(value):
        path: KeyPath = ("monitors", number)
        found += read_object(file, path, table, find_target, problems)
    return found


def read_object(
    file: ConfigFile,
    path: KeyPath,
    value: Any,
    find_target: FindTarget,
    problems: Problems,
) -> list[Any]:
    """Return what *value*, a table with a target, makes; empty: it has a mistake."""
    if not isinstance(value, dict) or not isinstance(value.get("target"), str):
        problem = 'expected a table with target = "module:Class"'
        problems.add(file, path, problem)
        return []
    table = dict(value)
    try:
        make = find_target(table.pop("target"))
    except (TargetError, SpecError) as exc:
        problems.add(file, (*path, "target"), str(exc))
        return []
    known = _parameters_of(make)
    for key in table:
        if known is not None and key not in known:
            problems.unknown(file, (*path, key), [*known, "target"])
            return []
    try:
        return [make(**table)]
    except SpecError as exc:
        problems.add_error(file, path, exc)
    except Exception as exc:  # a constructor of the application
        problems.add(file, path, f"{type(exc).__name__}: {exc}")
    return []


def _parameters_of(make: Callable[..., Any]) -> list[str] | None:
    """Return the names of the parameters of *make*; None: unknown, or any."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return [each.name for each in parameters]
