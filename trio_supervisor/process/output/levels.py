"""Levels of syslog, and ``<N>`` before a line that says which one it has.

As ``SyslogLevelPrefix=`` of systemd has it: sd-daemon(3).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Final

from trio_supervisor.process.output.blocks import Block, Piece, pieces_of, shown_of

FACILITY: Final = 3
"""``daemon``, as for a unit of systemd."""
WARNING: Final = 4
INFO: Final = 6
"""The level of lines without a prefix, as for a unit of systemd."""

_PREFIX: Final = re.compile(rb"<0{0,2}([0-7])>")
_LEVELS: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, WARNING),
    (logging.INFO, INFO),
)
_DEBUG: Final = 7


def split_level(line: bytes) -> tuple[int, bytes]:
    """Return the level of *line*, and the line without the prefix that says so."""
    if line[:1] != b"<" or (match := _PREFIX.match(line)) is None:
        return INFO, line
    return int(match[1]), line[match.end() :]


def levelled(block: Block) -> Iterator[tuple[int, Piece, bytes]]:
    """Yield each line of *block*: its level, the piece, and its text without a prefix.

    The rest of a line that was cut has no prefix of its own.
    """
    is_begin = not block.is_continued
    for piece in pieces_of(block):
        line = shown_of(piece)
        level, line = split_level(line) if is_begin else (INFO, line)
        yield level, piece, line
        is_begin = not piece.is_cut


def level_of(number: int) -> int:
    """Return the level of syslog for a level of `logging`."""
    return next((level for least, level in _LEVELS if number >= least), _DEBUG)
