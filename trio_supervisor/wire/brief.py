"""Shorten values of peers for messages and logs, in bounded time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final

_LENGTH: Final = 80
_ITEMS: Final = 8
_LEVELS: Final = 3
# By default, Python refuses to convert longer integers to decimal.
_BITS: Final = 4096
_TEXT: Final = 4000


def brief(value: object, levels: int = _LEVELS) -> str:
    """Return the first 80 characters of ``repr(value)`` of a JSON value.

    Reads only the part of *value* that it shows: ``repr`` itself would take 0.2 s for
    a megabyte of short arrays.
    """
    match value:
        case str() | bytes():
            text = repr(value[:_LENGTH])
        case list() if levels:
            items = [brief(item, levels - 1) for item in islice(value, _ITEMS)]
            text = f"[{', '.join(items)}{_rest(len(value))}]"
        case Mapping() if levels:
            pairs = [
                f"{brief(key)}: {brief(item, levels - 1)}"
                for key, item in islice(value.items(), _ITEMS)
            ]
            text = f"{{{', '.join(pairs)}{_rest(len(value))}}}"
        case list() | Mapping():
            text = "..."
        case int() if value.bit_length() > _BITS:
            text = f"a number of {value.bit_length()} bits"
        case _:
            text = repr(value)
    return text[:_LENGTH]


def cut(text: str, length: int = _TEXT) -> str:
    """Return *text*, or its beginning and the number of characters omitted."""
    if len(text) <= length:
        return text
    return f"{text[:length]}… ({len(text) - length} more characters)"


def _rest(length: int) -> str:
    return ", ..." if length > _ITEMS else ""
