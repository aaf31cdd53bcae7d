"""Check arguments of monitors; an error names the argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from trio_supervisor.errors import SpecError

T = TypeVar("T")


def one_of(field: str, value: T, allowed: Sequence[T]) -> T:
    """Return *value* if it is one of *allowed*."""
    if value not in allowed:
        names = ", ".join(map(repr, allowed))
        raise SpecError(field, f"expected one of {names}, got {value!r:.80}")
    return value


def flag(field: str, value: object) -> bool:
    """Return *value* if it is True or False."""
    if not isinstance(value, bool):
        raise SpecError(field, f"expected True or False, got {value!r:.80}")
    return value


def positive(field: str, value: object) -> float:
    """Return *value* if it is a finite number above 0."""
    number = _number(field, value)
    if not 0 < number < float("inf"):
        raise SpecError(field, f"expected more than 0, got {value}")
    return number


def not_negative(field: str, value: object) -> float:
    """Return *value* if it is a finite number, 0 or more."""
    number = _number(field, value)
    if not 0 <= number < float("inf"):
        raise SpecError(field, f"expected 0 or more, got {value}")
    return number


def _number(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(field, f"expected a number, got {value!r:.80}")
    return float(value)


def whole(field: str, value: object, least: int = 0) -> int:
    """Return *value* if it is a whole number, *least* or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(field, f"expected a whole number, got {value!r:.80}")
    if value < least:
        raise SpecError(field, f"expected {least} or more, got {value}")
    return value
