"""What JavaScript makes of values: truth, text, operators. Pure."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define

ESCAPE: Final = re.compile(
    r"\\(u\{[0-9a-fA-F]+\}|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|\n|.)", re.DOTALL
)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}


@define
class Module:
    """What ``require`` returns; only some members of ``path`` can be used."""

    name: str


def is_true(value: Any) -> bool:
    """Return whether JavaScript takes *value* as true: also an empty object."""
    return isinstance(value, dict | list | Module) or bool(value)


def _add(one: Any, other: Any) -> Any:
    kinds = (one, other)
    if all(map(is_number, kinds)):
        return one + other
    return "".join(map(text_of, kinds))


def text_of(value: Any) -> str:
    """Return *value* as JavaScript writes it into a string."""
    match value:
        case None:
            return "undefined"
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
    return str(value)


def is_number(value: Any) -> bool:
    """Return whether *value* is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_comparable(one: Any, other: Any) -> bool:
    """Return whether ``==`` means the same as ``===``, and converts nothing."""
    are_numbers = is_number(one) and is_number(other)
    return are_numbers or None in (one, other) or type(one) is type(other)


def _is_same(one: Any, other: Any) -> bool:
    if is_number(one) and is_number(other):
        return bool(one == other)
    return type(one) is type(other) and bool(one == other)


_Binary = Callable[[Any, Any], Any]
OPERATORS: Final[tuple[Mapping[str, _Binary], ...]] = (
    {
        "||": lambda a, b: a if is_true(a) else b,
        "??": lambda a, b: b if a is None else a,
    },
    {"&&": lambda a, b: b if is_true(a) else a},
    {
        "===": _is_same,
        "!==": lambda a, b: not _is_same(a, b),
        "==": _is_same,
        "!=": lambda a, b: not _is_same(a, b),
    },
    {"+": _add},
)
"""Those that bind least first."""


def size_of(value: Any) -> int:
    """Return how many values and letters *value* has."""
    match value:
        case dict():
            return 1 + sum(len(key) + size_of(each) for key, each in value.items())
        case list():
            return 1 + sum(map(size_of, value))
        case str():
            return 1 + len(value)
    return 1


def number_of(text: str) -> int | float:
    """Return the number *text*.

    Raises:
        ValueError: it is out of range.
    """
    if "x" in text.lower():
        return int(text, 16)
    number = float(text) if re.search(r"[.eE]", text) else int(text)
    if number in (math.inf, -math.inf):
        raise ValueError("out of range")
    return number


def unescaped_letter(match: re.Match[str]) -> str:
    """Return the letter that an escape sequence means."""
    what = match[1]
    if what[0] in "ux" and len(what) > 1:
        code = int(what[1:].strip("{}"), 16)
        return chr(code) if code <= sys.maxunicode else "\ufffd"
    return _ESCAPES.get(what, what)


def joined(text: str) -> str:
    """Return *text* with pairs of surrogates as the letters that they mean."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
