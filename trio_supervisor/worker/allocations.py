"""Trace every allocation by memray, if it is installed, to find allocation sites.

Tracing makes the worker about four times slower. `memory_sample` does not trace, but
cannot tell the line that allocated an object.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from attrs import define, field

from trio_supervisor.diagnostics.memory.memory_text import size
from trio_supervisor.errors import BusyError, UnavailableError
from trio_supervisor.wire.allocations import AllocationReport, AllocationSite
from trio_supervisor.wire.memory_reports import Amount
from trio_supervisor.wire.reports import Frame

_SITES: Final = 50
"""Allocation sites in a report."""
_MAX_FRAMES: Final = 30
"""Frames per site."""
_SHOWN: Final = 10
"""Sites shown as text."""


@define(eq=False)
class AllocationTrace:
    """A trace from `start` to `stop`; there can be one per process."""

    _tracker: Any
    _path: str
    _began: float = field(factory=time.monotonic, init=False)
    _is_over: bool = field(default=False, init=False)

    @classmethod
    def start(cls) -> AllocationTrace:
        """Begin to trace all threads.

        Raises:
            UnavailableError: memray is not installed in the worker's environment.
            BusyError: another tracer is active.
        """
        try:
            import memray
        except ImportError:
            raise UnavailableError(
                "memray is not installed in this worker's environment: "
                "pip install 'trio_supervisor[memray]'"
            ) from None
        if (other := _other_tracer()) is not None:
            raise BusyError(f"{other} is already tracing allocations in this worker")
        directory = tempfile.mkdtemp(prefix="trio_supervisor-")
        path = os.path.join(directory, "allocations")
        try:
            tracker = memray.Tracker(path, trace_python_allocators=True)
            tracker.__enter__()
        except RuntimeError as exc:
            shutil.rmtree(directory, ignore_errors=True)
            raise BusyError(f"memray cannot start tracing: {exc}") from None
        return cls(tracker, path)

    def stop(self) -> AllocationReport:
        """End the trace and return the report. This blocks: call it in a thread."""
        import memray

        duration = time.monotonic() - self._began
        self._end()
        try:
            with memray.FileReader(self._path) as reader:
                total = reader.metadata.total_allocations
                records = list(reader.get_leaked_allocation_records(merge_threads=True))
        finally:
            self._remove()
        records.sort(key=lambda record: record.size, reverse=True)
        retained = Amount(
            memory=sum(record.size for record in records),
            count=sum(record.n_allocations for record in records),
        )
        sites = tuple(_site(record) for record in records[:_SITES])
        return AllocationReport(
            data=_describe(duration, total, retained, sites),
            duration=duration,
            total_allocated=total,
            total_retained=retained,
            sites=sites,
        )

    def abort(self) -> None:
        """End the trace and remove its file. Calling it twice is harmless."""
        self._end()
        self._remove()

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._tracker.__exit__(None, None, None)

    def _remove(self) -> None:
        shutil.rmtree(os.path.dirname(self._path), ignore_errors=True)


def _other_tracer() -> str | None:
    # Checked only if already imported.
    tracemalloc = sys.modules.get("tracemalloc")
    if tracemalloc is not None and tracemalloc.is_tracing():
        return "tracemalloc"
    return None


def _site(record: Any) -> AllocationSite:
    frames = tuple(
        Frame(file=file, line=line, function=function)
        for function, file, line in record.stack_trace()[:_MAX_FRAMES]
    )
    return AllocationSite(memory=record.size, count=record.n_allocations, frames=frames)


def _describe(
    duration: float, total: int, retained: Amount, sites: Sequence[AllocationSite]
) -> str:
    return "\n".join(
        [
            f"{total} allocations in {duration:.1f} s, traced by memray",
            f"Not freed: {size(retained.memory)} in {retained.count} allocations",
            "",
            *_lines(sites[:_SHOWN]),
        ]
    )


def _lines(sites: Sequence[AllocationSite]) -> Iterator[str]:
    for site in sites:
        yield f"  {size(site.memory):>10} {site.count:>9}"
        for frame in site.frames[:4]:
            yield f"{'':25}{frame.file}:{frame.line} in {frame.function}"
