"""Import the web application that a name such as ``shop.web:app`` refers to."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterable
from typing import Any

from trio_supervisor.application import checks
from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.errors import SpecError, TargetError
from trio_supervisor.process.spawn.code_source import is_path
from trio_supervisor.process.spawn.importing import import_module


def find_app(name: str) -> Any:
    """Import the application *name*, ``MODULE:ATTRIBUTE`` or ``MODULE:FACTORY()``.

    A factory is returned, not called: each worker calls its own.

    Raises:
        SpecError: it cannot be imported, or cannot be called. The message has the
            nearest name, or the line of the application that failed.
    """
    module, attribute, _ = split_name(name)
    try:
        found: Any = import_module(module)
    except TargetError as exc:
        raise SpecError("app", f"{exc}{_near_module(module)}") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            hint = did_you_mean(part, getattr(found, "__dict__", ()))
            raise SpecError("app", f"{module} has no {part!r}{hint}")
        found = getattr(found, part)
    if not callable(found):
        problem = f"{module}:{attribute} is of type {type(found).__name__}"
        raise SpecError("app", f"{problem}, expected an application to call")
    return found


def make_app(name: str) -> Any:
    """Return the application *name*, from its factory if it names one.

    Raises:
        SpecError: as for `find_app`.
    """
    found = find_app(name)
    _, _, is_factory = split_name(name)
    return found() if is_factory else found


def split_name(name: str) -> tuple[str, str, bool]:
    """Return the module, the attribute, and whether it is a factory.

    Raises:
        SpecError: *name* has another form.
    """
    expected = "expected 'package.module:attribute' or 'package.module:factory()'"
    if not isinstance(name, str):
        raise SpecError("app", f"{expected}, got {checks.shown(name)}")
    module, _, attribute = name.partition(":")
    is_factory = attribute.endswith("()")
    attribute = attribute.removesuffix("()")
    parts = (*module.split("."), *attribute.split("."))
    if is_path(module) or not all(part.isidentifier() for part in parts):
        raise SpecError("app", f"{expected}, got {checks.shown(name)}")
    return module, attribute, is_factory


def _near_module(module: str) -> str:
    """Return a question about the nearest module, if *module* does not exist."""
    where: Iterable[str] | None = None
    parent = ""
    for part in module.split("."):
        known = [found.name for found in pkgutil.iter_modules(where)]
        if part not in known and f"{parent}{part}" not in sys.modules:
            return did_you_mean(part, known)
        parent = f"{parent}{part}."
        where = getattr(sys.modules.get(parent[:-1]), "__path__", ())
    return ""
