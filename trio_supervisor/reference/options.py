"""Generate the page of all options: a table for each class that takes some."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Final, NamedTuple

from trio_supervisor.application import Application, Command, Group, Listen, Service
from trio_supervisor.reference import markdown

_CLASSES: Final = (Application, Group, Service, Command, Listen)


class Option(NamedTuple):
    """One option as the documentation shows it."""

    name: str
    type: str
    default: str
    unit: str
    doc: str


def page() -> str:
    """Return docs/reference/options.md."""
    parts = [
        markdown.GENERATED,
        "# Options\n",
        "Every option of the classes that a service file is made of.\n",
    ]
    for kind in _CLASSES:
        rows = [
            (
                markdown.code(each.name),
                markdown.code(each.type),
                markdown.code(each.default),
                each.unit,
                markdown.from_docstring(each.doc),
            )
            for each in options_of(kind)
        ]
        head = ("Option", "Type", "Default", "Unit", "Meaning")
        parts += [f"## {kind.__name__}\n", markdown.table(head, rows)]
    return "\n".join(parts)


def options_of(make: Callable[..., Any]) -> Iterator[Option]:
    """Yield the parameters of *make* with what its docstring says about them."""
    docs = _arguments_in(inspect.getdoc(make) or "")
    for parameter in inspect.signature(make).parameters.values():
        doc = docs.get(parameter.name, "")
        unit = "s" if "[s]" in doc else ""
        yield Option(
            name=parameter.name,
            type=str(parameter.annotation),
            default=_default(parameter.default),
            unit=unit,
            doc=doc.replace(" [s]", ""),
        )


def _default(value: object) -> str:
    if value is inspect.Parameter.empty:
        return ""
    return repr(value.value) if isinstance(value, Enum) else repr(value)


def _arguments_in(docstring: str) -> dict[str, str]:
    """Return the entries below ``Args:``, by name."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", docstring, re.MULTILINE)
    if section is None:
        return {}
    entries = re.split(r"^    (\w+): ", section[1], flags=re.MULTILINE)
    return {
        name: " ".join(text.split())
        for name, text in zip(entries[1::2], entries[2::2], strict=True)
    }
