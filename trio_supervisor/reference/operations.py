"""Generate the page of all operations of protocol 1."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

import attrs

from trio_supervisor.reference import markdown
from trio_supervisor.reference.message_fields import (
    MessageField,
    bounds_text,
    message_fields,
    one_line,
    type_name,
)
from trio_supervisor.wire.operation import OPERATIONS, Operation, Side
from trio_supervisor.wire.protocol import MODULES

_TITLES: Final = ("The supervisor", "The controller", "A worker")

_INTRODUCTION: Final = """\
# Operations

The calls of protocol 1, by who answers them. A call is one line of JSON with `id`, `do`
and the arguments; unknown arguments are ignored. [Protocol](../protocol.md) describes
the rest of the messages, and [protocol.schema.json](../schema/protocol.schema.json) is
their JSON schema.

The supervisor passes operations of the controller on. Operations of a worker are made
with `forward`; with `"progress": true` among the arguments, the worker sends
intermediate answers. Where a report is said to be deliverable, the arguments `path`
(a new file) and `log` (a title in the worker's log) deliver its text there.
"""


def page() -> str:
    """Return docs/reference/operations.md."""
    return "\n".join([markdown.GENERATED, _INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    for title, module in zip(_TITLES, MODULES, strict=True):
        yield f"## {title}\n"
        for type_ in OPERATIONS.values():
            if type_.__module__ == module.__name__:
                yield from _operation(type_)


def _operation(type_: type[Operation]) -> Iterator[str]:
    spec = type_.spec
    yield f"### {spec.do}\n"
    yield f"{_paragraphs(inspect.getdoc(type_) or '')}\n"
    yield f"{_facts(type_)}\n"
    fields: Any = type_
    if rows := [_argument(field) for field in message_fields(fields)]:
        yield markdown.table(("Argument", "Type", "Default", "Limits", "Meaning"), rows)
    if (result := spec.result_type) is not None and attrs.has(result):
        yield f"Result: {_paragraphs(inspect.getdoc(result) or '')}\n"
        rows = [_result(field) for field in message_fields(result)]
        yield markdown.table(("Field", "Type", "Meaning"), rows)


def _facts(type_: type[Operation]) -> str:
    spec = type_.spec
    facts = ["Answered by " + " and ".join(_side(side) for side in spec.answered_by)]
    if spec.called_by is not Side.CLIENT:
        facts.append(f"called by {_side(spec.called_by)} only")
    elif Side.WORKER not in spec.answered_by:
        needed = f'needs `may=["{spec.may}"]`' if spec.may else "is always permitted"
        facts.append(f"from a worker it {needed}")
    if spec.is_stream:
        facts.append("intermediate answers are a stream")
    if spec.has_report:
        facts.append("its report is deliverable")
    return "; ".join(facts) + "."


def _side(side: Side) -> str:
    return (
        "either end of a connection" if side is Side.CONNECTION else f"the {side.value}"
    )


def _argument(field: MessageField) -> tuple[str, ...]:
    return (
        markdown.code(field.name),
        markdown.code(type_name(field.type)),
        "required" if field.is_required else markdown.code(_json(field.default)),
        _cell(bounds_text(field.bounds)),
        _cell(field.meaning),
    )


def _result(field: MessageField) -> tuple[str, ...]:
    return (
        markdown.code(field.name),
        markdown.code(type_name(field.type)),
        _cell(field.meaning),
    )


def _json(value: Any) -> str:
    return json.dumps(value.value if isinstance(value, Enum) else value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _paragraphs(text: str) -> str:
    """Return a docstring as Markdown: its paragraphs, and the items of its lists."""
    text = text.replace("``", "`")
    return "\n\n".join(
        part if part.startswith("- ") else one_line(part) for part in text.split("\n\n")
    )
