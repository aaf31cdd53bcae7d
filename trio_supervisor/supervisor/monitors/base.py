"""The base of all monitors, and what a monitor gets to see of a worker."""

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
        """What the worker said of itself when it registered."""
        ...

    @property
    def is_ready(self) -> bool: ...

    @property
    def is_managed(self) -> bool:
        """Whether it is the controller's, and so can be restarted."""
        ...

    @property
    def uptime(self) -> float | None:
        """Since its process was started [s]; None: not known."""
        ...

    async def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Run an operation in the worker; raises `SupervisorError`."""
        ...

    async def restart(self, reason: str) -> None:
        """Have the controller replace the worker gracefully; wait for the new one.

        Does nothing where it was replaced already. Raises `SupervisorError`.
        """
        ...


class Monitor:
    """Watches workers and has unhealthy ones replaced. Subclass it.

    Runs in the supervisor process, so a subclass has to be importable there. The
    supervisor calls `register` and `remove` as workers come and go, and `run_once`
    every `interval` seconds; whatever these raise is logged, and never ends the
    supervisor or another monitor.

    Args:
        interval: Time between two runs [s].

    Raises:
        SpecError: *interval* is no positive number.
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
        """The key of its status: the class's name, as ``memory_monitor``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def register(self, worker: MonitoredWorker) -> None:
        """A worker connected."""

    def remove(self, worker: MonitoredWorker) -> None:
        """Its connection ended."""

    async def run_once(self) -> None:
        """Look at the workers, and act."""

    def status(self) -> Mapping[str, object]:
        """Return what ``status`` is to show; JSON values only."""
        return {}
