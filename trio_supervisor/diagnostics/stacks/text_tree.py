"""Draw trees as text; identical siblings are drawn once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from attrs import define, field

_MAX_LEVELS: Final = 100
"""Levels that are drawn."""


@define(eq=False)
class Node:
    """A line, its detail lines, and its children."""

    text: str
    details: Sequence[str] = ()
    due: float | None = None
    """Deadline, drawn after the text and ignored when nodes are compared [s]."""
    children: list[Node] = field(factory=list)


def draw(nodes: Iterable[Node]) -> Iterator[str]:
    """Yield the lines of *nodes*; identical siblings are one line with their number."""
    for node, count in _merged(nodes):
        yield _line(node, count)
        yield from (f"  {detail}" for detail in node.details)
        yield from _draw_below(node.children, "", _MAX_LEVELS)


def _draw_below(nodes: Sequence[Node], indent: str, levels: int) -> Iterator[str]:
    if not levels:
        yield f"{indent}╰─ …"
        return
    merged = _merged(nodes)
    for number, (node, count) in enumerate(merged, start=1):
        is_last = number == len(merged)
        yield f"{indent}{'╰─' if is_last else '├─'} {_line(node, count)}"
        inner = indent + ("   " if is_last else "│  ")
        yield from (f"{inner}  {detail}" for detail in node.details)
        yield from _draw_below(node.children, inner, levels - 1)


def _line(node: Node, count: int) -> str:
    text = node.text
    if node.due is not None:
        word = "deadline" if count == 1 else "first deadline"
        text += f"  [{word} {_when(node.due)}]"
    return text if count == 1 else f"{text}  ×{count}"  # noqa: RUF001 (as people write it)


def _when(due: float) -> str:
    return f"in {due:.3g} s" if due >= 0 else f"{-due:.3g} s ago"


def _merged(nodes: Iterable[Node]) -> list[tuple[Node, int]]:
    found = dict[object, tuple[Node, int]]()
    for node in nodes:
        shape = _shape(node, _MAX_LEVELS)
        first, count = found.get(shape, (node, 0))
        if first is not node and node.due is not None and first.due is not None:
            first.due = min(first.due, node.due)
        found[shape] = (first, count + 1)
    return list(found.values())


def _shape(node: Node, levels: int) -> object:
    below = [_shape(child, levels - 1) for child in node.children] if levels else []
    return (node.text, tuple(node.details), node.due is None, tuple(below))
