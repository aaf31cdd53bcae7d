"""Define the base class of monitors, and a worker as monitors see it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Protocol

from trio_supervisor.errors import SpecError

logger = logging.getLogger(__name__)


class MonitoredWorker(Protocol):
    """A connected worker, as its monitors see it."""

    @property
    def connection_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def process_id(self) -> int: ...
    @property
    def state(self) -> Mapping[str, Any]:
        """The state that the worker registered with."""
        ...

    @property
    def is_ready(self) -> bool: ...

    @property
    def is_managed(self) -> bool:
        """Whether the controller started it, and so can restart it."""
        ...

    @property
    def uptime(self) -> float | None:
        """Time since its process was started [s]; None: unknown."""
        ...

    async def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Run an operation in the worker; return its answer.

        Raises:
            SupervisorError: the worker could not answer.
        """
        ...

    async def restart(self, reason: str) -> None:
        """Restart the worker gracefully; return when its replacement is ready.

        Does nothing if it was already replaced.

        Raises:
            SupervisorError: the restart failed.
        """
        ...


class Monitor:
    """Base class of monitors, which watch workers and restart unhealthy ones.

    A monitor runs in the supervisor process, where its class must be importable. The
    supervisor calls `register` and `remove` when workers connect and disconnect, and
    `run_once` every *interval* seconds. It logs exceptions of these methods; they stop
    neither the supervisor nor other monitors.

    Example::

        class AgeMonitor(Monitor):
            async def run_once(self) -> None:
                for worker in self.workers:
                    if worker.is_ready and (worker.uptime or 0) > 3600:
                        await worker.restart("older than an hour")

    Args:
        interval: Time between two runs [s].

    Raises:
        SpecError: *interval* is not a positive number.
    """

    def __init__(self, *, interval: float = 10.0) -> None:
        if isinstance(interval, bool) or not isinstance(interval, int | float):
            problem = f"expected a number of seconds, got {interval!r:.80}"
            raise SpecError("interval", problem)
        if not 0 < interval < float("inf"):
            raise SpecError("interval", f"expected more than 0 s, got {interval}")
        self.interval = float(interval)

    @property
    def name(self) -> str:
        """Key of its status: the class name, such as ``memory_monitor``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def register(self, worker: MonitoredWorker) -> None:
        """Called when *worker* has connected."""

    def remove(self, worker: MonitoredWorker) -> None:
        """Called when the connection of *worker* has ended."""

    async def run_once(self) -> None:
        """Check the workers once, and act."""

    def status(self) -> Mapping[str, object]:
        """Return what ``status --json`` shows: JSON values only."""
        return {}
