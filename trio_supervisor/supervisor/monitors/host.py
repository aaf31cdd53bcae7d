"""Watch the host: memory, load, pressure and the disk."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import attrs
import psutil
import trio

from trio_supervisor.errors import SpecError
from trio_supervisor.policy.host import (
    HostFigures,
    HostLimits,
    parse_pressure,
    problems_of,
)
from trio_supervisor.supervisor.monitors.arguments import positive
from trio_supervisor.supervisor.monitors.base import Monitor

logger = logging.getLogger(__name__)

_RESOURCES: Final = ("cpu", "memory", "io")


class HostMonitor(Monitor):
    """Logs when the host runs out of memory, processor time or disk, and when no more.

    It restarts nothing: `MemoryMonitor` does so with ``free_size_minimum``. Its figures
    are in ``status --json``.

    Args:
        interval: Time between two samples [s].
        memory_minimum: Minimum available memory [bytes].
        load_maximum: Maximum load average over one minute, for each processor.
        pressure_maximum: Maximum share of ten seconds in which some task waited for
            processor, memory or io, where the kernel tells (Linux, PSI) [%].
        disk_minimum: Minimum free space on the disk of *path* [bytes].
        path: A file or directory on the disk to watch; relative to the directory that
            ``serve`` was started in.

    Raises:
        SpecError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        *,
        interval: float = 10.0,
        memory_minimum: int | None = None,
        load_maximum: float | None = None,
        pressure_maximum: float | None = None,
        disk_minimum: int | None = None,
        path: str = ".",
    ) -> None:
        super().__init__(interval=interval)
        limits = {
            "memory_minimum": memory_minimum,
            "load_maximum": load_maximum,
            "pressure_maximum": pressure_maximum,
            "disk_minimum": disk_minimum,
        }
        for name, limit in limits.items():
            if limit is not None:
                positive(name, limit)
        if not isinstance(path, str) or not path:
            raise SpecError("path", f"expected a path, got {path!r:.80}")
        self.limits = HostLimits(
            memory_minimum=memory_minimum,
            load_maximum=load_maximum,
            pressure_maximum=pressure_maximum,
            disk_minimum=disk_minimum,
        )
        self.path = path
        self._figures = HostFigures()
        self._problems: dict[str, str] = {}

    async def run_once(self) -> None:
        """Sample the host; log what has become a problem, and what is none any more."""
        # A disk on the network may take long to answer.
        self._figures = await trio.to_thread.run_sync(
            read_host, self.path, abandon_on_cancel=True
        )
        problems = problems_of(self._figures, self.limits)
        for name, text in problems.items():
            if name not in self._problems:
                logger.warning("host: %s", text)
        for name in self._problems.keys() - problems.keys():
            logger.warning("host: recovered (%s)", name)
        self._problems = problems

    def status(self) -> Mapping[str, object]:
        """Return the last figures, and the problems."""
        figures = attrs.asdict(self._figures)
        return {**figures, "problems": list(self._problems.values())}


def read_host(path: str) -> HostFigures:
    """Return the figures of this host; blocks while the disk of *path* does."""
    memory = psutil.virtual_memory()
    load: float | None = None
    with suppress(OSError, AttributeError):
        load = os.getloadavg()[0]
    pressure = {}
    for name in _RESOURCES:
        with suppress(OSError), open(f"/proc/pressure/{name}", "rb") as file:
            if (share := parse_pressure(file.read())) is not None:
                pressure[name] = share
    disk_free: int | None = None
    with suppress(OSError):
        disk_free = shutil.disk_usage(path).free
    return HostFigures(
        memory_available=memory.available,
        memory_total=memory.total,
        load=load,
        cpu_count=os.cpu_count() or 1,
        pressure=pressure,
        disk_free=disk_free,
    )
