"""Measure the load of the machine, and how long a process has waited for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Protocol

from trio_supervisor.policy.overload import Pressure
from trio_supervisor.process.groups import IS_LINUX, read_stat

# Stopped by a signal, or by a debugger: proc_pid_stat(5).
_STOPPED: Final = ("T", "t")


class Machine(Protocol):
    """The measurements that a controller needs."""

    cores: int

    def queued(self, process_id: int) -> Mapping[int, float]:
        """Return the time that each thread has waited for a CPU so far [s]."""
        ...

    def busy(self, process_id: int) -> float:
        """Return the time its main thread has run or waited for a CPU so far [s]."""
        ...

    def stalled(self, process_id: int) -> float:
        """Return the time the process's cgroup has stalled on memory so far [s]."""
        ...

    def is_stopped(self, process_id: int) -> bool:
        """Return whether the process is stopped, by SIGSTOP or a debugger."""
        ...

    def pressure(self) -> Pressure:
        """Return the kernel's pressure averages of the last ten seconds."""
        ...


class IdleMachine:
    """A machine without load: for tests, and for systems without measurements."""

    cores = 1

    def queued(self, process_id: int) -> Mapping[int, float]:
        """Return nothing."""
        return {}

    def busy(self, process_id: int) -> float:
        """Return no time."""
        return 0.0

    def stalled(self, process_id: int) -> float:
        """Return no time."""
        return 0.0

    def is_stopped(self, process_id: int) -> bool:
        """Return False."""
        return False

    def pressure(self) -> Pressure:
        """Return no pressure."""
        return Pressure()


class LinuxMachine:
    """Measurements from /proc and the cgroup file system; 0 where they are missing."""

    def __init__(self) -> None:
        self.cores = len(os.sched_getaffinity(0)) if IS_LINUX else os.cpu_count() or 1

    def queued(self, process_id: int) -> Mapping[int, float]:
        """Return the second number of each thread's schedstat.

        Source: the kernel's sched-stats.rst.
        """
        found = {}
        directory = f"/proc/{process_id}/task"
        with suppress(OSError):
            for thread in os.listdir(directory):
                with suppress(OSError, ValueError, IndexError):
                    text = _read(f"{directory}/{thread}/schedstat")
                    found[int(thread)] = int(text.split()[1]) / 1e9
        return found

    def busy(self, process_id: int) -> float:
        """Return the sum of the first two numbers of its schedstat."""
        with suppress(OSError, ValueError):
            ran, queued, *_ = map(int, _read(f"/proc/{process_id}/schedstat").split())
            return (ran + queued) / 1e9
        return 0.0

    def stalled(self, process_id: int) -> float:
        """Return the ``full`` total of its cgroup's memory.pressure, or the system's.

        Source: the kernel's psi.rst.
        """
        group = ""
        with suppress(OSError):
            for line in _read(f"/proc/{process_id}/cgroup").splitlines():
                if line.startswith("0::"):
                    group = line[3:]
        own = f"/sys/fs/cgroup{group}/memory.pressure"
        for path in (own, "/proc/pressure/memory"):
            with suppress(OSError):
                return _psi(_read(path), "full", "total") / 1e6
        return 0.0

    def is_stopped(self, process_id: int) -> bool:
        """Return whether its state is T or t."""
        stat = read_stat(process_id)
        return stat is not None and stat[0] in _STOPPED

    def pressure(self) -> Pressure:
        """Return avg10 of /proc/pressure."""
        return Pressure(
            cpu=_average("cpu", "some"),
            memory=_average("memory", "full"),
            io=_average("io", "full"),
        )


def _average(resource: str, line: str) -> float:
    with suppress(OSError):
        return _psi(_read(f"/proc/pressure/{resource}"), line, "avg10")
    return 0.0


def _psi(text: str, line: str, name: str) -> float:
    """Return a value of a pressure file: ``some avg10=0.00 … total=0``."""
    for words in map(str.split, text.splitlines()):
        if words and words[0] == line:
            for word in words[1:]:
                key, _, value = word.partition("=")
                if key == name:
                    with suppress(ValueError):
                        return float(value)
    return 0.0


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
