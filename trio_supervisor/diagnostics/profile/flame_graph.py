"""A flame graph as SVG: width is time, the innermost call lies on top.

Whole in itself: no script, no font, nothing from elsewhere. Pointing at a box tells all
of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final

from attrs import define, field

_WIDTH: Final = 1200.0
_ROW: Final = 17
_LETTER: Final = 6.6
"""Width of one [pixels]."""
_NARROWEST: Final = 0.3
"""A box below it is left out [pixels]."""
_TOP: Final = 34
_COLOURS: Final = {"waiting": (205, 20), "tasks": (130, 25), "running": (30, 30)}
"""Hue and its spread, by the first name of a stack."""


@define(eq=False)
class _Box:
    name: str
    time: float = 0.0
    inner: dict[str, _Box] = field(factory=dict)


def svg(stacks: Iterable[tuple[Sequence[str], float]], title: str) -> str:
    """Return the picture of *stacks*: their names, outermost first, and a time [s]."""
    root = _Box("all")
    for names, spent in stacks:
        box = root
        box.time += spent
        for name in names:
            box = box.inner.setdefault(name, _Box(name))
            box.time += spent
    boxes = list(_place(root))
    height = _TOP + _ROW * (1 + max((level for _, level, *_ in boxes), default=0)) + 8
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" version="1.1"'
        f' viewBox="0 0 {_WIDTH:.0f} {height}" width="100%"'
        ' font-family="monospace" font-size="11">',
        f"<title>{_text(title)}</title>",
        f'<rect width="{_WIDTH:.0f}" height="{height}" fill="#fffdf8"/>',
        f'<text x="8" y="20" font-size="13">{_text(title)}</text>',
    ]
    for box, level, left, width, kind in boxes:
        top = height - 8 - _ROW * (level + 1)
        parts.append(_drawn(box, left, top, width, kind, root.time))
    parts.append("</svg>\n")
    return "\n".join(parts)


def _place(root: _Box) -> Iterator[tuple[_Box, int, float, float, str]]:
    """Each box with its level, left edge, width [pixels] and kind."""
    if not root.time:
        return
    scale = _WIDTH / root.time
    todo: list[tuple[_Box, int, float, str]] = [(root, 0, 0.0, "")]
    while todo:
        box, level, left, kind = todo.pop()
        width = box.time * scale
        if width < _NARROWEST:
            continue
        yield box, level, left, width, kind
        for inner in sorted(box.inner.values(), key=lambda inner: inner.name):
            todo.append((inner, level + 1, left, kind or inner.name))
            left += inner.time * scale


def _drawn(
    box: _Box, left: float, top: int, width: float, kind: str, total: float
) -> str:
    name = _text(box.name)
    told = f"{name}: {box.time:.3g} s, {box.time / total:.1%}"
    letters = int((width - 4) / _LETTER)
    label = box.name if len(box.name) <= letters else f"{box.name[: letters - 2]}.."
    shown = (
        f'<text x="{left + 3:.1f}" y="{top + 12}">{_text(label)}</text>'
        if letters >= 4
        else ""
    )
    return (
        f'<g><title>{told}</title><rect x="{left:.1f}" y="{top}"'
        f' width="{max(0.2, width - 0.5):.1f}" height="{_ROW - 1}" rx="2"'
        f' fill="{_colour(box.name, kind)}"/>{shown}</g>'
    )


def _colour(name: str, kind: str) -> str:
    hue, spread = _COLOURS.get(kind, (45, 5))
    # The same function has the same colour in every picture.
    number = zlib.crc32(name.encode("utf-8", "replace"))
    return f"hsl({hue + number % spread},{60 + number % 25}%,{68 + number % 12}%)"


def _text(text: str) -> str:
    # XML has no way to write most control characters.
    return escape("".join(c if c.isprintable() else " " for c in text))
