"""Format values as short text, without running code of the application."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

_LENGTH: Final = 120
"""Text of one value [characters]."""
_ITEMS: Final = 6
"""Items shown of a container."""
_DEPTH: Final = 2
_BITS: Final = 256
"""Size of the largest int whose digits are shown: conversion is quadratic."""
_SECRET: Final = re.compile(
    r"passw|secret|token|credential|authorization|cookie|api_?key|private_?key", re.I
)
_BRACKETS: Final = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    dict: ("{", "}"),
}

# A metaclass may override these names; the descriptors of type cannot be.
_name_of: Final[Callable[[type], str]] = type.__dict__["__qualname__"].__get__
_module_of: Final[Callable[[type], object]] = type.__dict__["__module__"].__get__


def short(value: object) -> str:
    """Return *value* as text of at most 120 characters.

    The time is bounded for any value: only builtin containers are entered, up to a few
    items; of any other object, return the type and address. A ``__repr__`` of the
    application could raise, hang, or see a half-finished update.
    """
    text = _short(value, _DEPTH)
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."


def short_locals(variables: Mapping[str, object], limit: int) -> dict[str, str]:
    """Return at most *limit* variables as text; likely secrets are hidden."""
    found = {
        name: "<hidden>" if _SECRET.search(name) else short(value)
        for name, value in islice(variables.items(), limit)
        if not issubclass(type(value), ModuleType)
    }
    if (more := len(variables) - limit) > 0:
        found["..."] = f"{more} more"
    return found


def type_name(type_: type) -> str:
    """Return the name of a type, with its module."""
    module = _module_of(type_)
    if module == "builtins" or type(module) is not str:
        return _name_of(type_)
    return f"{module}.{_name_of(type_)}"


def _short(value: object, depth: int) -> str:
    # Only "is": "==" and "in" could call a metaclass of the application.
    type_: type = type(value)
    if value is None or type_ is bool or type_ is float or type_ is complex:
        return repr(value)
    if type_ is int:
        return _integer(value)  # type: ignore[arg-type]  # its type was checked
    if type_ is str or type_ is bytes:
        return _text(value)  # type: ignore[arg-type]  # its type was checked
    for container, brackets in _BRACKETS.items():
        if type_ is container:
            return _container(value, brackets, depth)
    return _named(value, type_)


def _integer(value: int) -> str:
    bits = value.bit_length()
    return repr(value) if bits <= _BITS else f"<int of {bits} bits>"


def _text(value: str | bytes) -> str:
    if len(value) <= _LENGTH:
        return repr(value)
    return f"{value[: _LENGTH // 2]!r}... ({len(value)} in total)"


def _container(value: Any, brackets: tuple[str, str], depth: int) -> str:
    length = len(value)
    if length and not depth:
        return f"<{type(value).__name__} of {length}>"
    try:
        items: list[Any] = list(islice(_entries(value), _ITEMS))
    except RuntimeError:  # another thread is changing it
        return f"<{type(value).__name__} of {length}>"
    if type(value) is dict:
        parts = [_item(key, item, depth - 1) for key, item in items]
    else:
        parts = [_short(item, depth - 1) for item in items]
    if length > _ITEMS:
        parts.append(f"... {length} in total")
    comma = "," if type(value) is tuple and length == 1 else ""
    return f"{brackets[0]}{', '.join(parts)}{comma}{brackets[1]}"


def _entries(value: Any) -> Any:
    return value.items() if type(value) is dict else value


def _item(key: object, value: object, depth: int) -> str:
    is_secret = type(key) is str and _SECRET.search(key)
    return f"{_short(key, depth)}: {'<hidden>' if is_secret else _short(value, depth)}"


def _named(value: Any, type_: type) -> str:
    if issubclass(type_, type):
        return f"<class {type_name(value)}>"
    if type_ is FunctionType or type_ is BuiltinFunctionType:
        return f"<function {value.__name__}>"
    if type_ is MethodType:
        return f"<method of {type_name(type(value.__self__))}>"
    return f"<{type_name(type_)} at 0x{id(value):x}>"
