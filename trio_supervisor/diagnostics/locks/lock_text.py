"""Who waits for whom, as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from trio_supervisor.diagnostics.stacks.frames import short_path
from trio_supervisor.wire.reports import Deadlock, LockHolder, LockWait


def format_locks(waits: Sequence[LockWait], deadlocks: Sequence[Deadlock]) -> str:
    """Return the circles, then every thread that waits with what it waits for."""
    lines = []
    for deadlock in deadlocks:
        word = "deadlock" if deadlock.is_sure else "probably a deadlock"
        first, *others = deadlock.threads
        rest = ", which waits for ".join((*others, first))
        lines.append(f"{word}: {first} waits for {rest}")
    for wait in waits:
        place = f"{short_path(wait.file)}:{wait.line} in {wait.function}"
        lines.append(f"{wait.thread} waits for {wait.waits_for} at {place}")
        lines += [f"    {wait.source}"] if wait.source else []
        lines += [f"  {_held_by(h)}" for h in wait.holders]
        if not wait.holders:
            lines.append("  held by an unknown holder")
    return "\n".join(lines) or "no thread waits for a lock"


def _held_by(holder: LockHolder) -> str:
    word = "held by" if holder.is_sure else "probably held by"
    if not holder.line:
        return f"{word} {holder.thread}" if holder.ident else "which has not begun"
    place = f"{short_path(holder.file)}:{holder.line} in {holder.function}"
    return f"{word} {holder.thread} since {place}"
