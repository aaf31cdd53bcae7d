"""Take several lock reports: a deadlock that is in all of them is permanent."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field

from trio_supervisor.diagnostics.locks.locks import lock_report
from trio_supervisor.diagnostics.stacks.frames import short_path
from trio_supervisor.policy.doctor.facts import DeadlockFacts, Lines
from trio_supervisor.wire.reports import LockHolder, LockReport, LockWait


@define(eq=False)
class LockSamples:
    """A series of lock reports; call `take` a few times during the examination."""

    _reports: list[LockReport] = field(factory=list, init=False)

    def take(self) -> None:
        """Take one lock report."""
        self._reports.append(lock_report())

    def deadlocks(self, main: int) -> tuple[DeadlockFacts, ...]:
        """Return the deadlocks in all reports: waits with a timeout do not last.

        Args:
            main: Ident of the main thread.
        """
        return tuple(
            DeadlockFacts(
                threads=one.threads,
                has_main=main in one.idents,
                is_sure=one.is_sure,
                lines=tuple(
                    line
                    for wait in self._reports[-1].waits
                    if wait.ident in one.idents
                    for line in _lines(wait)
                ),
            )
            for one in (self._reports[-1].deadlocks if self._reports else ())
            if all(
                any(set(one.idents) == set(d.idents) for d in report.deadlocks)
                for report in self._reports
            )
        )

    def wait_of(self, ident: int) -> Lines:
        """Return the lock that a thread waits for in all reports; empty: none."""
        found = [
            next((wait for wait in report.waits if wait.ident == ident), None)
            for report in self._reports
        ]
        places = {None if w is None else (w.file, w.line, w.waits_for) for w in found}
        last = found[-1] if found else None
        if last is None or not last.holders or len(places) != 1:
            return ()
        return tuple(_lines(last))


def _lines(wait: LockWait) -> Iterator[str]:
    place = f"{short_path(wait.file)}:{wait.line} in {wait.function}"
    yield f"{wait.thread} waits for {wait.waits_for} at {place}"
    for holder in wait.holders:
        yield f"  {_owner(holder)}"


def _owner(holder: LockHolder) -> str:
    word = "held by" if holder.is_sure else "probably held by"
    if not holder.line:
        return f"{word} {holder.thread}"
    place = f"{short_path(holder.file)}:{holder.line} in {holder.function}"
    return f"{word} {holder.thread}, which acquired it at {place}"
