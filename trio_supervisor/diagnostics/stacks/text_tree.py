"""Trees as text, what is repeated told once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from attrs import define, field

_DEEPEST: Final = 100
"""Levels that are drawn."""


@define(eq=False)
class Node:
    """A line, lines that belong to it, and what is below it."""

    text: str
    details: Sequence[str] = ()
    due: float | None = None
    """A deadline, told after the text; nodes that differ only in it are alike [s]."""
    children: list[Node] = field(factory=list)


def draw(nodes: Iterable[Node]) -> Iterator[str]:
    """Return the lines of *nodes*, alike siblings as one with their number."""
    for node, count in _merged(nodes):
        yield _line(node, count)
        yield from (f"  {detail}" for detail in node.details)
        yield from _draw_below(node.children, "", _DEEPEST)


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
        shape = _shape(node, _DEEPEST)
        first, count = found.get(shape, (node, 0))
        if first is not node and node.due is not None and first.due is not None:
            first.due = min(first.due, node.due)
        found[shape] = (first, count + 1)
    return list(found.values())


def _shape(node: Node, levels: int) -> object:
    below = [_shape(child, levels - 1) for child in node.children] if levels else []
    return (node.text, tuple(node.details), node.due is None, tuple(below))
