"""What goes wrong in a simulation, and when: as data, so that a test can print it."""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from typing import TypeAlias

import trio
from attrs import frozen

from trio_supervisor.errors import SupervisorError
from trio_supervisor.testing.simulated_network import FaultyStream
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
class ConnectionFails:
    """The connection of a worker to the supervisor is lost, or works badly."""

    worker: int
    kind: str = "lost"
    """``lost``; ``half line``: lost in the middle of the next line that the worker
    sends; ``half open``: nothing arrives any more at either end, then it is lost;
    ``refused``: lost, and new ones are refused; ``twice``: the next line is sent twice,
    such as an answer; ``late``: the next lines arrive late."""
    duration: float = 1.0
    """Of ``half open``, ``refused`` and ``late`` [s]."""

    async def strike(self, simulation: Simulation) -> None:
        """Have it fail; return when that is over."""
        await trio.lowlevel.checkpoint()
        name = _name(simulation, self.worker)
        if self.kind == "refused":
            simulation.refuse_connections(name, self.duration)
        streams = simulation.connections(name)
        for stream in streams:
            _spoil(stream, self.kind, self.duration)
        if self.kind in ("half open", "refused", "late"):
            await trio.sleep(self.duration)
        if self.kind == "half open":
            for stream in streams:
                stream.lose()


@frozen
class DiskFull:
    """Nothing can be written to the disk: ENOSPC."""

    duration: float
    """[s]"""

    async def strike(self, simulation: Simulation) -> None:
        """Fill it; return when there is room again."""
        simulation.disk.fill()
        try:
            await trio.sleep(self.duration)
        finally:
            simulation.disk.free()


@frozen
class ClockSet:
    """The system's clock is set, by a person or by NTP."""

    seconds: float
    """How far forward [s]; negative: back."""

    async def strike(self, simulation: Simulation) -> None:
        """Set it."""
        await trio.lowlevel.checkpoint()
        simulation.set_clock(self.seconds)


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
    | ConnectionFails
    | DiskFull
    | ClockSet
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


def _spoil(stream: FaultyStream, kind: str, duration: float) -> None:
    match kind:
        case "lost" | "refused":
            stream.lose()
        case "half line":
            stream.cut_line()
        case "half open":
            stream.fall_silent()
        case "twice":
            stream.repeat()
        case "late":
            stream.delay(duration)


def _name(simulation: Simulation, number: int) -> str:
    names = simulation.names
    return names[number % len(names)]


async def _strike(fault: Fault, simulation: Simulation) -> None:
    try:
        await fault.strike(simulation)
    except SupervisorError:
        await trio.lowlevel.checkpoint()
