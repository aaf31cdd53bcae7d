"""Declare options of a class, each in one place. Pure.

An option is one attrs field, the only place that knows its type, default, check, unit
and meaning::

    stop_timeout: float = attrs.field(
        default=10.0,
        converter=checks.seconds,
        metadata=option("Time from the stop signal to SIGKILL.", unit="s", least=0),
    )

Constructors, what a reload compares, the plain form, the documentation and the JSON
schema are derived from it. Type checkers read the type of the constructor's parameter
off the check that stands as converter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from trio_supervisor.application import checks

OptionField: TypeAlias = "attrs.Attribute[Any]"
_Class = TypeVar("_Class", bound=type[Any])

_DOC: Final = "doc"
_UNIT: Final = "unit"
_CHECK: Final = "check"
_LIMITS: Final = "limits"


def option(doc: str, *, unit: str = "", **limits: Any) -> Mapping[str, Any]:
    """Return the metadata of an option.

    Args:
        doc: What it means: sentences in Markdown, for the documentation.
        unit: Of its value, such as ``"s"``.
        limits: Keyword arguments of its check: *least* and *most* of a number, or its
            *choices*. An option that has no converter but choices is one of these.
    """
    metadata = {_DOC: doc, _UNIT: unit, _LIMITS: limits}
    return metadata | {_CHECK: checks.one_of} if "choices" in limits else metadata


def checked_later(_: type[Any], fields: Sequence[OptionField]) -> list[OptionField]:
    """Leave the checks to `Checked`, which knows their limits and the option's name.

    The ``field_transformer`` of classes that declare options.
    """
    return [_checked_later(field) for field in fields]


def _checked_later(field: OptionField) -> OptionField:
    check: Any = field.converter
    if check is None or _DOC not in field.metadata:
        return field
    parameter_type = next(iter(check.__annotations__.values()))
    metadata = {**field.metadata, _CHECK: check}
    return field.evolve(converter=None, type=parameter_type, metadata=metadata)


class Checked:
    """Base of classes whose constructors check the options that they declare."""

    def __attrs_post_init__(self) -> None:
        """Replace the value of each option by what its check returns."""
        for field in options_of(type(self)):
            if (check := check_of(field)) is not None:
                value = getattr(self, field.name)
                kept = check(value, field.name, **limits_of(field))
                object.__setattr__(self, field.name, kept)


def options_of(kind: type[Any]) -> list[OptionField]:
    """Return the options of *kind*: the positional ones, then by declaration."""
    fields: tuple[OptionField, ...] = attrs.fields(kind)
    found = [field for field in fields if _DOC in field.metadata]
    return sorted(found, key=lambda field: field.kw_only)


def doc_of(field: OptionField) -> str:
    """Return what the option means and the limits of its value, in Markdown."""
    return f"{field.metadata[_DOC]}{_limits_text(field)}"


def _limits_text(field: OptionField) -> str:
    limits = limits_of(field)
    least, most, choices = map(limits.get, ("least", "most", "choices"))
    if choices and str(field.type).startswith("Sequence"):
        words = (f'`"{getattr(each, "name", each)}"`' for each in choices)
        return f" Any of {', '.join(words)}."
    if most is not None:
        return f" From {least} to {most}."
    return "" if not least else f" At least {least}."


def unit_of(field: OptionField) -> str:
    """Return the unit of the option's value; empty if it has none."""
    return str(field.metadata.get(_UNIT, ""))


def limits_of(field: OptionField) -> Mapping[str, Any]:
    """Return the limits that the option's check is given, by parameter."""
    limits: Mapping[str, Any] = field.metadata.get(_LIMITS, {})
    return limits


def documented(kind: _Class) -> _Class:
    """Add the options of *kind* to its docstring, for ``help()``."""
    if kind.__doc__ is not None:  # python -OO
        lines = [
            f"    {field.name}: {doc_of(field)}{_in_brackets(unit_of(field))}\n"
            for field in options_of(kind)
        ]
        kind.__doc__ = (
            f"{kind.__doc__.rstrip()}\n\n    Options:\n    {'    '.join(lines)}"
        )
    return kind


def check_of(field: OptionField) -> Callable[..., Any] | None:
    """Return the check of the option; None: its class checks it."""
    check: Callable[..., Any] | None = field.metadata.get(_CHECK)
    return check


def _in_brackets(unit: str) -> str:
    return f" [{unit}]" if unit else ""
