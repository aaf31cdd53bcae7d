"""Read CPU and memory of processes where the application has no `ProcessMonitor`."""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil

from trio_supervisor.wire.json_tree import Object


class LocalUsage:
    """Usage of processes on this machine, each without its children."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}
        self._last: dict[int, tuple[float, float]] = {}

    def read(self, process_ids: Iterable[int]) -> dict[int, Object]:
        """Return ``cpu_share`` and ``rss`` [bytes] of each process that exists.

        The share is that since the call before; None in the first call.
        """
        found: dict[int, Object] = {}
        wanted = set(process_ids)
        for process_id in wanted:
            try:
                found[process_id] = self._read(process_id)
            except (psutil.Error, OSError):
                self._forget(process_id)  # it has exited, or is not ours to see
        for process_id in self._processes.keys() - wanted:
            self._forget(process_id)
        return found

    def _read(self, process_id: int) -> Object:
        process = self._processes.get(process_id)
        if process is None or not process.is_running():  # also: its pid was reused
            self._forget(process_id)
            process = self._processes[process_id] = psutil.Process(process_id)
        with process.oneshot():
            times, size = process.cpu_times(), process.memory_info().rss
        now, used = time.monotonic(), times.user + times.system
        share = None
        if (last := self._last.get(process_id)) is not None and now > last[0]:
            share = max(0.0, (used - last[1]) / (now - last[0]))
        self._last[process_id] = now, used
        return {"cpu_share": share, "rss": size}

    def _forget(self, process_id: int) -> None:
        self._processes.pop(process_id, None)
        self._last.pop(process_id, None)
