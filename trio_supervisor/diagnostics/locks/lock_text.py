"""Format a lock report as text."""

from __future__ import annotations

from collections.abc import Sequence

from trio_supervisor.diagnostics.stacks.frames import short_path
from trio_supervisor.wire.reports import Deadlock, LockHolder, LockWait


def format_locks(waits: Sequence[LockWait], deadlocks: Sequence[Deadlock]) -> str:
    """Return the deadlocks, then each waiting thread with the lock and its owner."""
    lines = []
    for deadlock in deadlocks:
        word = "deadlock" if deadlock.is_sure else "probably a deadlock"
        first, *others = deadlock.threads
        cycle = ", which waits for ".join((*others, first))
        lines.append(f"{word}: {first} waits for {cycle}")
    for wait in waits:
        place = f"{short_path(wait.file)}:{wait.line} in {wait.function}"
        lines.append(f"{wait.thread} waits for {wait.waits_for} at {place}")
        lines += [f"    {wait.source}"] if wait.source else []
        lines += [f"  {_owner(h)}" for h in wait.holders]
        if not wait.holders:
            lines.append("  owner unknown")
    return "\n".join(lines) or "no thread waits for a lock"


def _owner(holder: LockHolder) -> str:
    word = "held by" if holder.is_sure else "probably held by"
    if not holder.line:
        return (
            f"{word} {holder.thread}"
            if holder.ident
            else "a thread that has not started"
        )
    place = f"{short_path(holder.file)}:{holder.line} in {holder.function}"
    return f"{word} {holder.thread}, acquired at {place}"
