"""What goes wrong in a simulation, and when: as data, so that a test can print it."""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from typing import TypeAlias

import trio
from attrs import frozen

from trio_supervisor.errors import SupervisorError
from trio_supervisor.testing.simulated_process import StartFault
from trio_supervisor.testing.simulation import Simulation


@frozen
class Killed:
    """A worker gets a signal: SIGKILL as by the OOM killer, SIGTERM by a person."""

    worker: int
    """The worker's number; it counts round, so that every number means one."""
    signal: signal.Signals = signal.SIGKILL

    async def strike(self, simulation: Simulation) -> None:
        """Send it."""
        simulation.kill(_name(simulation, self.worker), self.signal)


@frozen
class Exits:
    """A worker exits at once, in the middle of what it does."""

    worker: int
    code: int = 1

    async def strike(self, simulation: Simulation) -> None:
        """Have it exit."""
        simulation.crash(_name(simulation, self.worker), self.code)


@frozen
class Hangs:
    """The event loop of a worker is blocked."""

    worker: int
    duration: float | None = None
    """[s]; None: for good."""

    async def strike(self, simulation: Simulation) -> None:
        """Block it; return when that is over, or at once if it is for good."""
        process = simulation.process(_name(simulation, self.worker))
        if process is None:
            return
        process.hang()
        if self.duration is not None:
            await trio.sleep(self.duration)
            process.wake()


@frozen
class Stopped:
    """A worker is stopped (SIGSTOP) for a while."""

    worker: int
    duration: float
    """[s]"""

    async def strike(self, simulation: Simulation) -> None:
        """Stop it, and let it go on."""
        process = simulation.process(_name(simulation, self.worker))
        if process is not None:
            process.signal(signal.SIGSTOP)
            await trio.sleep(self.duration)
            process.signal(signal.SIGCONT)


@frozen
class StartsBadly:
    """The next start of a worker goes wrong."""

    worker: int
    kind: str = "slow"
    """``slow``, ``never ready``, ``stubborn``, or the name of an error of fork():
    ``EAGAIN``, ``ENOMEM``, ``EMFILE``."""

    async def strike(self, simulation: Simulation) -> None:
        """Have the next start go wrong, and provoke it."""
        name = _name(simulation, self.worker)
        simulation.fail_start(name, start_fault(self.kind))
        simulation.kill(name)


@frozen
class SupervisorKilled:
    """The supervisor process is killed."""

    async def strike(self, simulation: Simulation) -> None:
        """Kill it."""
        simulation.kill_supervisor()


@frozen
class Restarted:
    """An operator restarts all workers."""

    async def strike(self, simulation: Simulation) -> None:
        """Restart them, and wait for it."""
        await simulation.controller.restart()


@frozen
class Reloaded:
    """An operator reloads the application."""

    is_bad: bool = False
    """Whether the new code fails."""

    async def strike(self, simulation: Simulation) -> None:
        """Reload it, and wait for the end."""
        if self.is_bad:
            simulation.fail_reload()
        await simulation.controller.reload(simulation.controller.application)


@frozen
class Suspended:
    """The host is suspended: time passes, and nothing runs."""

    duration: float
    """[s]"""

    async def strike(self, simulation: Simulation) -> None:
        """Suspend it."""
        await trio.lowlevel.checkpoint()
        simulation.suspend(self.duration)


Fault: TypeAlias = (
    Killed
    | Exits
    | Hangs
    | Stopped
    | StartsBadly
    | SupervisorKilled
    | Restarted
    | Reloaded
    | Suspended
)


@frozen
class FaultPlan:
    """Faults, each with its moment: see `faults`."""

    steps: tuple[tuple[float, Fault], ...] = ()
    """When [s] since the start of the plan, in order, and what."""

    async def run(self, simulation: Simulation) -> None:
        """Have all faults strike at their moments; return when the last one is over.

        That an operation is refused, or fails, is part of the plan. A cancellation
        leaves what has struck as it is.
        """
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for moment, fault in self.steps:
                await trio.sleep_until(began + moment)
                nursery.start_soon(_strike, fault, simulation)

    @property
    def duration(self) -> float:
        """The moment of the last fault [s]."""
        return self.steps[-1][0] if self.steps else 0.0

    @classmethod
    def of(cls, steps: Sequence[tuple[float, Fault]]) -> FaultPlan:
        """Return a plan of *steps* in any order."""
        return cls(tuple(sorted(steps, key=lambda step: step[0])))


def start_fault(kind: str) -> StartFault:
    """Return the fault of that `StartsBadly.kind`."""
    match kind:
        case "slow":
            return StartFault(delay=20.0)
        case "never ready":
            return StartFault(is_never_ready=True)
        case "stubborn":
            return StartFault(ignores_stop=True)
    return StartFault(error=OSError(getattr(errno, kind), f"{kind} in this simulation"))


def _name(simulation: Simulation, number: int) -> str:
    names = simulation.names
    return names[number % len(names)]


async def _strike(fault: Fault, simulation: Simulation) -> None:
    try:
        await fault.strike(simulation)
    except SupervisorError:
        await trio.lowlevel.checkpoint()
