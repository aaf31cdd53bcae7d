"""Sample the processes of this machine: by /proc with kept descriptors, or by psutil.

A kept descriptor makes a sample of 1,000 processes two to four times faster than
opening the file each time, and cannot show another process of the same id: reading the
file of a process that has exited fails.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Protocol

import psutil
from attrs import define, field

from trio_supervisor.diagnostics.memory_usage import read_full_memory
from trio_supervisor.policy.process_usage import (
    UsageSample,
    parse_io,
    parse_stat,
    parse_switches,
)

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_SIZE: Final = 4096
"""A line of stat, and the whole of status and io, are shorter [bytes]."""


class ProcessReader(Protocol):
    """A way to sample processes."""

    def process_ids(self) -> list[int]:
        """Return the ids of all processes."""
        ...

    def read(self, process_id: int) -> UsageSample | None:
        """Return the figures that are cheap; None: the process has exited."""
        ...

    def complete(self, sample: UsageSample) -> None:
        """Add descriptors, context switches and io, where they are readable."""
        ...

    def forget_others(self, process_ids: Iterable[int]) -> None:
        """Close what was kept of processes that are not in *process_ids*."""
        ...


def add_memory(sample: UsageSample) -> None:
    """Add uss and pss; may block for as long as the process maps memory."""
    if (found := read_full_memory(sample.process_id)) is not None:
        sample.uss, sample.pss = found.uss, found.pss


@define(eq=False)
class ProcReader:
    """Samples by /proc; Linux."""

    root: str = "/proc"
    most: int = field(
        factory=lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
    )
    """Descriptors kept at most: the others are for the connections of the workers."""
    _kept: dict[tuple[int, str], int] = field(factory=dict, init=False)

    def process_ids(self) -> list[int]:
        """Return the ids of all processes."""
        return [int(name) for name in os.listdir(self.root) if name.isdecimal()]

    def read(self, process_id: int) -> UsageSample | None:
        """Return the figures of ``stat``; None: the process has exited."""
        line = self._read(process_id, "stat")
        return parse_stat(process_id, line, ticks=_TICKS, page=_PAGE) if line else None

    def complete(self, sample: UsageSample) -> None:
        """Add descriptors, context switches and io, where they are readable."""
        pid = sample.process_id
        with suppress(OSError):
            # Its size is the number of open descriptors since Linux 6.2.
            directory = f"{self.root}/{pid}/fd"
            sample.descriptors = os.stat(directory).st_size or len(
                os.listdir(directory)
            )
        if (switches := parse_switches(self._read(pid, "status"))) is not None:
            sample.voluntary_switches, sample.involuntary_switches = switches
        if (used := parse_io(self._read(pid, "io"))) is not None:
            sample.read_bytes, sample.written_bytes = used

    def forget_others(self, process_ids: Iterable[int]) -> None:
        """Close the descriptors of processes that are not in *process_ids*."""
        known = set(process_ids)
        for key in [key for key in self._kept if key[0] not in known]:
            os.close(self._kept.pop(key))

    def _read(self, process_id: int, name: str) -> bytes:
        """Return the content of a file of the process; empty: it is not readable."""
        key = process_id, name
        if (kept := self._kept.get(key)) is not None:
            try:
                return os.pread(kept, _SIZE, 0)
            except OSError:  # it has exited; a new process may have its id
                os.close(self._kept.pop(key))
        try:
            opened = os.open(
                f"{self.root}/{process_id}/{name}", os.O_RDONLY | os.O_CLOEXEC
            )
        except OSError:
            return b""
        is_kept = len(self._kept) < self.most
        try:
            content = os.pread(opened, _SIZE, 0)
        except OSError:
            is_kept, content = False, b""
        if is_kept:
            self._kept[key] = opened
        else:
            os.close(opened)
        return content


class PsutilReader:
    """Samples by psutil, where /proc is not."""

    def process_ids(self) -> list[int]:
        """Return the ids of all processes."""
        return psutil.pids()

    def read(self, process_id: int) -> UsageSample | None:
        """Return the figures that are cheap; None: it has exited, or is protected."""
        with suppress(psutil.Error, ProcessLookupError):
            process = psutil.Process(process_id)
            with process.oneshot():
                times = process.cpu_times()
                return UsageSample(
                    process_id=process_id,
                    parent_id=process.ppid(),
                    state=process.status(),
                    started_at=process.create_time(),
                    cpu_time=times.user + times.system,
                    rss=process.memory_info().rss,
                    threads=process.num_threads(),
                )
        return None

    def complete(self, sample: UsageSample) -> None:
        """Add descriptors and context switches, where they are readable."""
        with suppress(psutil.Error, ProcessLookupError):
            process = psutil.Process(sample.process_id)
            sample.descriptors = process.num_fds()
            switches = process.num_ctx_switches()
            sample.voluntary_switches = switches.voluntary
            sample.involuntary_switches = switches.involuntary

    def forget_others(self, process_ids: Iterable[int]) -> None:
        """Do nothing: nothing is kept."""


def default_reader() -> ProcessReader:
    """Return the faster reader that works here."""
    return ProcReader() if os.path.exists("/proc/self/stat") else PsutilReader()
