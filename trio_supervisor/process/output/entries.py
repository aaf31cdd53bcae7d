"""Convert lines to entries for programs: JSON lines, and answers over the socket."""

from __future__ import annotations

import time
from typing import TypeAlias

from trio_supervisor.process.output.blocks import Block, Piece, text_of

Entry: TypeAlias = dict[str, object]
"""JSON values: time, name, pid, generation, stream, message, optionally truncated."""


def timestamp(seconds: float) -> str:
    """Return a time as ISO 8601, in UTC and with milliseconds."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{moment}.{milliseconds:03}Z"


def header_of(block: Block) -> Entry:
    """Return the fields that all lines of *block* share."""
    return {
        "time": timestamp(block.time),
        "name": block.origin.name,
        "pid": block.origin.process_id,
        "generation": block.origin.generation,
        "stream": block.stream,
    }


def entry_of(block: Block, piece: Piece) -> Entry:
    """Return the entry of one line of *block*."""
    entry = {**header_of(block), "message": text_of(piece)}
    if piece.is_cut:
        entry["truncated"] = True
    return entry
