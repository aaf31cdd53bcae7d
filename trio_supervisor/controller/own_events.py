"""Events of the controller itself, each as fields and as one line for the log."""

from __future__ import annotations

import logging
from typing import ClassVar

from attrs import frozen


@frozen(kw_only=True)
class ShutdownTimedOut:
    """Workers are killed to finish the shutdown within ``stop_timeout``."""

    kind: ClassVar[str] = "stop_timeout"
    level: ClassVar[int] = logging.WARNING
    name: str
    timeout: float
    """``stop_timeout`` of the application [s]."""
    left: tuple[str, ...]
    """Workers that still run."""

    def __str__(self) -> str:
        left = ", ".join(self.left) or "remaining processes"
        return (
            f"shutdown not finished in time (stop_timeout={self.timeout:g} s of the "
            f"application); killing {left}"
        )


@frozen(kw_only=True)
class ServingStarted:
    """The control socket listens, and all services are being started."""

    kind: ClassVar[str] = "serving"
    level: ClassVar[int] = logging.INFO
    name: str
    process_id: int
    socket: str

    def __str__(self) -> str:
        return f"serving at {self.socket} (pid {self.process_id})"


@frozen(kw_only=True)
class AllWorkersReady:
    """All workers that should run are ready for the first time."""

    kind: ClassVar[str] = "all_ready"
    level: ClassVar[int] = logging.INFO
    name: str
    workers: int
    """Workers that are ready."""
    seconds: float
    absent: tuple[str, ...] = ()
    """The others, each with its state: finished or stopped."""

    def __str__(self) -> str:
        after = f"after {self.seconds * 1000:.0f} ms"
        if not self.absent:
            return f"all {self.workers} workers ready {after}"
        return f"{self.workers} workers ready {after}; {', '.join(self.absent)}"


@frozen(kw_only=True)
class SupervisorConnected:
    """The supervisor is connected to the controller, at first or again."""

    kind: ClassVar[str] = "supervisor_connected"
    level: ClassVar[int] = logging.INFO
    name: str
    is_back: bool
    """Whether an earlier connection was lost."""

    def __str__(self) -> str:
        return "supervisor reconnected" if self.is_back else "supervisor connected"


@frozen(kw_only=True)
class SupervisorResynchronized:
    """The supervisor's table of workers was out of date and was sent again."""

    kind: ClassVar[str] = "supervisor_picture_differed"
    level: ClassVar[int] = logging.WARNING
    name: str
    workers: int
    """Workers that exist."""
    known: int
    """Workers in the supervisor's table."""

    def __str__(self) -> str:
        return (
            f"the supervisor's status table was out of date ({self.known} workers "
            f"instead of {self.workers}, or old values); sent again"
        )


@frozen(kw_only=True)
class SupervisorLost:
    """The connection to the supervisor was lost; the workers keep running."""

    kind: ClassVar[str] = "supervisor_lost"
    level: ClassVar[int] = logging.WARNING
    name: str

    def __str__(self) -> str:
        return (
            "supervisor connection lost; workers keep running, restarting the "
            "supervisor"
        )


@frozen(kw_only=True)
class CallDenied:
    """A worker made a call to the supervisor that its service may not make."""

    kind: ClassVar[str] = "denied"
    level: ClassVar[int] = logging.WARNING
    name: str
    process_id: int | None
    operation: str
    needed: str
    """The permission that ``may`` of its service lacks."""
    count: int = 1
    """Denied calls so far; reported for the first and at each doubling."""

    def __str__(self) -> str:
        times = f", {self.count} times" if self.count > 1 else ""
        return (
            f"call of {self.operation!r} denied (pid {self.process_id}{times}): "
            f'may does not include "{self.needed}"'
        )


@frozen(kw_only=True)
class ShutdownStarted:
    """The controller shuts down."""

    kind: ClassVar[str] = "shutting_down"
    level: ClassVar[int] = logging.INFO
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.reason}; shutting down"


@frozen(kw_only=True)
class ShutdownFinished:
    """All processes have stopped."""

    kind: ClassVar[str] = "stopped"
    level: ClassVar[int] = logging.INFO
    name: str
    seconds: float

    def __str__(self) -> str:
        return f"everything stopped after {self.seconds * 1000:.0f} ms"
