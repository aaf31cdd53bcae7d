"""Read the fields of a message's class: types, defaults, limits and docstrings."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
import types
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen

_NAMES: Final = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    Any: "any",
}


@frozen(kw_only=True)
class MessageField:
    """One field of a message."""

    name: str
    type: Any
    default: Any
    """`attrs.NOTHING` if the field is required."""
    bounds: dict[str, Any]
    """Keywords of JSON schema for its value, or for the items of an array."""
    meaning: str
    """Its docstring on one line."""

    @property
    def is_required(self) -> bool:
        return self.default is attrs.NOTHING


@cache
def message_fields(type_: type[attrs.AttrsInstance]) -> tuple[MessageField, ...]:
    """Return the fields of the attrs class *type_* in the order of the wire."""
    hints, meanings = get_type_hints(type_), _meanings(type_)
    return tuple(
        MessageField(
            name=each.name,
            type=hints[each.name],
            default=_default(each.default),
            bounds=dict(_bounds(each.validator)),
            meaning=meanings.get(each.name, ""),
        )
        for each in attrs.fields(type_)
    )


def type_name(type_: Any) -> str:
    """Return *type_* as JSON names it, such as ``array of string | null``."""
    origin, arguments = get_origin(type_), get_args(type_)
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(each) for each in arguments)
    if origin is tuple:
        return f"array of {type_name(arguments[0])}"
    if origin is dict:
        of = arguments[1]
        return "object" if of is Any else f"object of {type_name(of)}"
    if isinstance(type_, type) and issubclass(type_, Enum):
        return " | ".join(f'"{each.value}"' for each in type_)
    found: str = _NAMES.get(type_) or type_.__name__
    return found


def bounds_text(bounds: dict[str, Any]) -> str:
    """Return *bounds* for people, such as ``> 0, ≤ 3600``."""
    marks = {
        "minimum": "≥ {}",
        "exclusiveMinimum": "> {}",
        "maximum": "≤ {}",
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "minItems": "at least {} items",
        "pattern": "matches `{}`",
    }
    parts = [marks[key].format(value) for key, value in bounds.items() if key in marks]
    if choices := bounds.get("enum"):
        parts.append("one of " + ", ".join(f'`"{choice}"`' for choice in choices))
    return ", ".join(parts)


def one_line(text: str) -> str:
    """Return a docstring on one line, with Markdown's backticks."""
    return re.sub(r"\s+", " ", text.strip()).replace("``", "`")


def _default(default: Any) -> Any:
    factory = getattr(default, "factory", None)
    return default if factory is None else factory()


def _meanings(type_: type) -> dict[str, str]:
    """Return the docstrings below the fields of *type_* and its bases."""
    found: dict[str, str] = {}
    for base in reversed(type_.__mro__):
        if attrs.has(base):
            source = textwrap.dedent(inspect.getsource(base))
            found |= dict(_docstrings(ast.parse(source)))
    return found


def _docstrings(tree: ast.AST) -> Iterator[tuple[str, str]]:
    (body,) = (node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    for node, after in itertools.pairwise(body):
        match node, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, one_line(text)


def _bounds(validator: Any) -> Iterator[tuple[str, Any]]:
    """Yield keywords of JSON schema for a validator of attrs, or of `sized`."""
    for inner in getattr(validator, "_validators", ()):
        yield from _bounds(inner)
    for name in ("validator", "member_validator"):
        if (inner := getattr(validator, name, None)) is not None:
            yield from _bounds(inner)
    keywords = {">=": "minimum", ">": "exclusiveMinimum", "<=": "maximum"}
    if (operator := getattr(validator, "compare_op", None)) in keywords:
        yield keywords[operator], validator.bound
    if (options := getattr(validator, "options", None)) is not None:
        yield "enum", list(options)
    if (pattern := getattr(validator, "pattern", None)) is not None:
        yield "pattern", pattern.pattern
    if (least := getattr(validator, "min_length", None)) is not None:
        yield "minItems", least
    if (lengths := getattr(validator, "lengths", None)) is not None:
        if lengths[0]:
            yield "minLength", lengths[0]
        yield "maxLength", lengths[1]
