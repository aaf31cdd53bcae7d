"""Write lines as entries of journald, in its native protocol.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

from __future__ import annotations

from collections.abc import Iterator

from trio_supervisor.process.output.blocks import Block
from trio_supervisor.process.output.levels import FACILITY, WARNING, levelled
from trio_supervisor.process.output.records import packed
from trio_supervisor.process.output.rendering import dropped_text, in_steps


def render_journal(block: Block) -> Iterator[bytes]:
    """Return the entries of the lines of *block*, as items of records."""
    head = _head_of(block)
    return in_steps(
        packed(
            b"%bPRIORITY=%d\n%bMESSAGE=%b\n"
            % (
                head,
                level,
                b"TRIO_SUPERVISOR_TRUNCATED=1\n" if piece.is_cut else b"",
                line,
            )
        )
        for level, piece, line in levelled(block)
    )


def _head_of(block: Block) -> bytes:
    """Return the fields that all lines of *block* share."""
    origin = block.origin
    fields = {
        "SYSLOG_IDENTIFIER": origin.name,
        "SYSLOG_PID": origin.process_id,
        "SYSLOG_FACILITY": FACILITY,
        "TRIO_SUPERVISOR_WORKER": origin.name,
        "TRIO_SUPERVISOR_SERVICE": origin.service,
        "TRIO_SUPERVISOR_GENERATION": origin.generation,
        "TRIO_SUPERVISOR_INCARNATION": origin.incarnation,
        "TRIO_SUPERVISOR_STREAM": block.stream,
    }
    return "".join(f"{name}={value}\n" for name, value in fields.items()).encode()


def journal_notice(count: int) -> bytes:
    """Return the entry that reports dropped lines."""
    return packed(
        f"SYSLOG_IDENTIFIER=trio_supervisor\nSYSLOG_FACILITY={FACILITY}\n"
        f"PRIORITY={WARNING}\nMESSAGE={dropped_text(count)}\n".encode()
    )
