"""Events of services and generations, each as fields and as one line for the log."""

from __future__ import annotations

import logging
from typing import ClassVar

from attrs import frozen


@frozen(kw_only=True)
class ShortageBegan:
    """Processes cannot be started for lack of descriptors, processes or memory."""

    kind: ClassVar[str] = "shortage"
    level: ClassVar[int] = logging.ERROR
    name: str
    worker: str
    """The first worker that could not be started."""
    problem: str

    def __str__(self) -> str:
        return (
            f"cannot start {self.worker}: {self.problem}; not counted as a crash, "
            f"retrying; running workers are not affected"
        )


@frozen(kw_only=True)
class ShortageEnded:
    """Processes can be started again."""

    kind: ClassVar[str] = "shortage_over"
    level: ClassVar[int] = logging.WARNING
    name: str
    failures: int
    """Starts that failed."""
    seconds: float
    """Duration of the shortage [s]."""

    def __str__(self) -> str:
        starts = "1 start" if self.failures == 1 else f"{self.failures} starts"
        return (
            f"processes can be started again after {self.seconds:.1f} s "
            f"({starts} failed)"
        )


@frozen(kw_only=True)
class GroupFailed:
    """A group reached its restart limit and is restarted as a whole."""

    kind: ClassVar[str] = "group_failed"
    level: ClassVar[int] = logging.ERROR
    name: str
    problem: str
    services: tuple[str, ...]
    """Services that are restarted."""

    def __str__(self) -> str:
        return f"{self.problem}; restarting {', '.join(self.services)}"


@frozen(kw_only=True)
class ServiceScaled:
    """The number of workers of a service was changed."""

    kind: ClassVar[str] = "scaled"
    level: ClassVar[int] = logging.INFO
    name: str
    before: int
    count: int

    def __str__(self) -> str:
        return f"scaled from {self.before} to {self.count}"


@frozen(kw_only=True)
class ReloadStarted:
    """A reload starts a new generation."""

    kind: ClassVar[str] = "reloading"
    level: ClassVar[int] = logging.INFO
    name: str
    generation: int
    plan: tuple[str, ...]
    """One line per service."""

    def __str__(self) -> str:
        return f"reloading, generation {self.generation}: {'; '.join(self.plan)}"


@frozen(kw_only=True)
class ReloadFinished:
    """The new generation is ready, and the previous one has stopped."""

    kind: ClassVar[str] = "reloaded"
    level: ClassVar[int] = logging.INFO
    name: str
    generation: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"reload finished: generation {self.generation} took over after "
            f"{self.seconds:.2f} s"
        )


@frozen(kw_only=True)
class CanaryStarted:
    """A few workers of a new generation are compared with the previous one."""

    kind: ClassVar[str] = "canary_started"
    level: ClassVar[int] = logging.INFO
    name: str
    generation: int
    workers: tuple[str, ...]
    """The new workers."""
    seconds: float
    """How long they are compared [s]."""

    def __str__(self) -> str:
        return (
            f"canary of generation {self.generation} is ready: "
            f"{', '.join(self.workers)}; comparing with generation "
            f"{self.generation - 1} for {self.seconds:g} s"
        )


@frozen(kw_only=True)
class CanaryPassed:
    """The canary did no worse than the previous generation; the reload continues."""

    kind: ClassVar[str] = "canary_passed"
    level: ClassVar[int] = logging.INFO
    name: str
    generation: int
    workers: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"canary of generation {self.generation} passed: "
            f"{', '.join(self.workers)}; reload continues"
        )


@frozen(kw_only=True)
class CanaryFailed:
    """The canary did worse than the previous generation; the reload is rolled back."""

    kind: ClassVar[str] = "canary_failed"
    level: ClassVar[int] = logging.ERROR
    name: str
    generation: int
    workers: tuple[str, ...]
    problem: str
    """What was worse."""

    def __str__(self) -> str:
        return (
            f"canary of generation {self.generation} failed; rolling back: "
            f"{self.problem}"
        )


@frozen(kw_only=True)
class WorkerStillFailing:
    """A worker fails in the new generation as in the previous one."""

    kind: ClassVar[str] = "still_failing"
    level: ClassVar[int] = logging.WARNING
    name: str
    problem: str

    def __str__(self) -> str:
        return (
            f"still failing, as in the previous generation: {self.problem}; "
            f"reload continues"
        )


@frozen(kw_only=True)
class ReloadFailed:
    """A reload failed; the previous generation keeps running."""

    kind: ClassVar[str] = "reload_failed"
    level: ClassVar[int] = logging.ERROR
    name: str
    generation: int
    """Number of the generation that failed."""
    problem: str

    def __str__(self) -> str:
        return (
            f"reload failed; generation {self.generation - 1} keeps running: "
            f"{self.problem}"
        )


@frozen(kw_only=True)
class RunLeftOut:
    """A scheduled run does not take place."""

    kind: ClassVar[str] = "run_left_out"
    level: ClassVar[int] = logging.WARNING
    name: str
    due: float
    """When it was due [s since the epoch]."""
    problem: str

    def __str__(self) -> str:
        return f"scheduled run left out: {self.problem}"


@frozen(kw_only=True)
class OverloadBegan:
    """Most workers are late at the same time, and the machine is under pressure."""

    kind: ClassVar[str] = "overloaded"
    level: ClassVar[int] = logging.WARNING
    name: str
    late: int
    watched: int
    causes: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"machine overloaded: {self.late} of {self.watched} workers are late "
            f"({', '.join(self.causes)}); suspending startup_timeout and "
            f"health_check_timeout"
        )


@frozen(kw_only=True)
class OverloadEnded:
    """Most workers are on time again, or the pressure is gone."""

    kind: ClassVar[str] = "recovered"
    level: ClassVar[int] = logging.INFO
    name: str
    late: int
    watched: int

    def __str__(self) -> str:
        return (
            f"machine no longer overloaded: {self.late} of {self.watched} workers are "
            f"late; startup_timeout and health_check_timeout apply again"
        )
