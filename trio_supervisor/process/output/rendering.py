"""Render lines of children: as text, as JSON, or unchanged."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, Literal, TypeAlias

import orjson

from trio_supervisor.process.output.blocks import (
    Block,
    Data,
    Piece,
    pieces_of,
    shown_of,
    text_of,
)
from trio_supervisor.process.output.entries import header_of, timestamp
from trio_supervisor.process.output.escaping import escape_json, escape_line
from trio_supervisor.process.output.levels import levelled

Form: TypeAlias = Literal["text", "json", "raw", "timed", "journal"]
"""``raw``: byte for byte, as in a file; ``timed``: each line with its time;
``journal``: text with levels, for a stream to journald."""
Renderer: TypeAlias = Callable[[Block], Iterable[Data]]
"""Returns whole lines in small parts, between which other tasks may run."""

COLUMN: Final = 12
"""Width of names, the same as in the log."""
# Without red and yellow, the log's colours of errors and warnings; readable on dark and
# light backgrounds.
_PALETTE: Final = (36, 32, 35, 34, 96, 92, 95, 94)
_CUT: Final = "…".encode()
_RESET: Final = "\x1b[0m"
# Rendered within half a millisecond.
_STEP_LINES: Final = 200
_STEP_SIZE: Final = 16 * 1024

_NOT_PLAIN: Final = re.compile(rb"[^\t\x20-\x7e]")
_SGR: Final = re.compile(r"\\x1b(\[[0-9;:]*m)")


def renderer_of(
    form: Form, name: str, *, is_terminal: bool = False, has_colours: bool = False
) -> Renderer:
    """Return the renderer for lines of the child *name*.

    Args:
        is_terminal: Whether to escape control sequences other than colours. Text only.
        has_colours: Whether to colour the name.
    """
    if form == "raw":
        return _render_raw
    if form == "json":
        return _render_json
    if form == "timed":
        return _render_timed
    prefix = f"{name:<{COLUMN}} |"
    if form == "journal":
        return partial(_render_levels, f"{prefix} ".encode())
    if has_colours:
        colour = _PALETTE[zlib.crc32(name.encode()) % len(_PALETTE)]
        prefix = f"\x1b[{colour}m{prefix}{_RESET}"
    show = _for_terminal if is_terminal else _unchanged
    return partial(_render_text, f"{prefix} ".encode(), show)


def _render_raw(block: Block) -> Iterable[Data]:
    return (block.data,)


def _render_timed(block: Block) -> Iterator[bytes]:
    time_of = f"{timestamp(block.time)} ".encode()
    return in_steps(b"%b%b\n" % (time_of, p.data) for p in pieces_of(block))


def _render_text(
    prefix: bytes, show: Callable[[bytes], bytes], block: Block
) -> Iterator[bytes]:
    def line(piece: Piece) -> bytes:
        mark = _CUT if piece.is_cut else b""
        return b"%b%b%b\n" % (prefix, show(shown_of(piece)), mark)

    return in_steps(map(line, pieces_of(block)))


def _render_levels(prefix: bytes, block: Block) -> Iterator[bytes]:
    return in_steps(
        b"<%d>%b%b%b\n" % (level, prefix, line, _CUT if piece.is_cut else b"")
        for level, piece, line in levelled(block)
    )


def _render_json(block: Block) -> Iterator[bytes]:
    start = orjson.dumps(header_of(block))[:-1] + b',"message":'

    def line(piece: Piece) -> bytes:
        end = b',"truncated":true}\n' if piece.is_cut else b"}\n"
        message = orjson.dumps(text_of(piece))
        if not message.isascii() or b"\x7f" in message:
            message = escape_json(message.decode()).encode()
        return b"%b%b%b" % (start, message, end)

    return in_steps(map(line, pieces_of(block)))


def in_steps(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield *lines* joined to small parts, between which other tasks may run."""
    step: list[bytes] = []
    size = 0
    for line in lines:
        step.append(line)
        size += len(line)
        if len(step) >= _STEP_LINES or size >= _STEP_SIZE:
            yield b"".join(step)
            step.clear()
            size = 0
    if step:
        yield b"".join(step)


def _unchanged(line: bytes) -> bytes:
    return line


def _for_terminal(line: bytes) -> bytes:
    r"""Escape control characters except colour sequences.

    A child that prints ``\x1b[1m`` literally gets bold text, which is harmless and
    allows doing both in two passes of C code.
    """
    if _NOT_PLAIN.search(line) is None:
        return line
    text = escape_line(line.decode("utf-8", "backslashreplace"))
    text, colours = _SGR.subn("\x1b\\1", text)
    if colours:
        text += _RESET
    return text.encode()


def notice_of(form: Form) -> Callable[[int], bytes]:
    """Return a function that renders a notice of dropped lines in that form."""
    if form == "json":
        return _json_notice
    return _raw_notice if form in ("raw", "timed") else _text_notice


def _text_notice(count: int) -> bytes:
    return f"{'output':<{COLUMN}} | {dropped_text(count)}\n".encode()


def _raw_notice(count: int) -> bytes:
    return f"trio_supervisor: {dropped_text(count)}\n".encode()


def _json_notice(count: int) -> bytes:
    fields = {
        "time": timestamp(time.time()),
        "level": "warning",
        "name": "output",
        "message": dropped_text(count),
        "dropped": count,
    }
    return orjson.dumps(fields) + b"\n"


def dropped_text(count: int) -> str:
    """Return the text of a notice of dropped lines."""
    return f"{count} line{'' if count == 1 else 's'} dropped"
