"""Who waits for whom, in several pictures: what is in all of them is there to stay."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field

from trio_supervisor.diagnostics.locks.locks import lock_report
from trio_supervisor.diagnostics.stacks.frames import short_path
from trio_supervisor.policy.doctor.facts import DeadlockFacts, Lines
from trio_supervisor.wire.reports import LockHolder, LockReport, LockWait


@define(eq=False)
class LockSamples:
    """Call `take` a few times, with some time in between."""

    _reports: list[LockReport] = field(factory=list, init=False)

    def take(self) -> None:
        """Take one."""
        self._reports.append(lock_report())

    def deadlocks(self, main: int) -> tuple[DeadlockFacts, ...]:
        """Return those that last; two threads that time out do not stay in one.

        Args:
            main: The main thread's ident.
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
        """Return what a thread waits for all the time; empty: nothing known."""
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
        yield f"  {_held_by(holder)}"


def _held_by(holder: LockHolder) -> str:
    word = "held by" if holder.is_sure else "probably held by"
    if not holder.line:
        return f"{word} {holder.thread}"
    place = f"{short_path(holder.file)}:{holder.line} in {holder.function}"
    return f"{word} {holder.thread}, which took it at {place}"
