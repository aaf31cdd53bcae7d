"""Run a whole application in one process and in virtual time, and hurt it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Final

import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_supervisor.application import AnyService, Application, Service
from trio_supervisor.controller.child.child_spec import ChildPlan
from trio_supervisor.controller.controller import Controller, core_of
from trio_supervisor.controller.core import ControllerCore
from trio_supervisor.controller.events import Event
from trio_supervisor.controller.scheduled_runs import ScheduledRuns
from trio_supervisor.errors import NoSuchWorkerError, SpecError, SupervisorError
from trio_supervisor.link.client import Client
from trio_supervisor.link.peer import open_peer
from trio_supervisor.process.notify.sd_notify import Notification
from trio_supervisor.process.spawn.boot import WorkerBoot
from trio_supervisor.process.spawn.code_source import Pickled
from trio_supervisor.supervisor.server import Server
from trio_supervisor.testing.process_tasks import wrapping_tasks
from trio_supervisor.testing.simulated_disk import (
    SimulatedDisk,
    SimulatedDueTimes,
    SimulatedPostMortems,
)
from trio_supervisor.testing.simulated_network import FaultyStream, SimulatedSocket
from trio_supervisor.testing.simulated_parts import make_core
from trio_supervisor.testing.simulated_process import (
    SimulatedProcess,
    StartFault,
    Target,
)
from trio_supervisor.testing.virtual_time import sleep_through
from trio_supervisor.wire.session import Session

_FIRST_PID: Final = 10_000_000
"""No process of the system has such a number."""
_BEATS: Final = 3
"""Heartbeats within ``health_check_timeout``, as of real workers."""
_BEGAN_AT: Final = 1_767_225_600.0
_STOP_LIMIT: Final = 86_400.0
"""Time in which the application must have stopped at the end [s]."""


@define(eq=False)
class Simulation:
    """An application that runs in virtual time; made by `simulated`."""

    nursery: trio.Nursery
    stand_ins: Mapping[str, Target]
    servers: list[Server] = field(factory=list, init=False)
    socket: SimulatedSocket = field(factory=SimulatedSocket, init=False)
    """Where the supervisor accepts connections."""
    disk: SimulatedDisk = field(factory=SimulatedDisk, init=False)
    """Where the controller keeps post-mortems, and when scheduled runs are due."""
    pids: Iterator[int] = field(factory=lambda: count(_FIRST_PID), init=False)
    events: list[tuple[float, Event]] = field(factory=list, init=False)
    """What has happened, and when [s]; see `trio_supervisor.events`."""
    suspended: float = field(default=0.0, init=False)
    """How long the host was suspended, all times together [s]."""
    failure: SupervisorError | None = field(default=None, init=False)
    """Why the application failed for good, such as a `RestartLimitError`."""
    controller: Controller = field(init=False)
    """The controller, with the methods that it always has."""
    _processes: list[SimulatedProcess] = field(factory=list, init=False)
    _faults: dict[str, list[StartFault]] = field(factory=dict, init=False)
    _bad_reloads: int = field(default=0, init=False)
    _is_over: trio.Event = field(factory=trio.Event, init=False)
    _clock_error: float = field(default=0.0, init=False)

    @property
    def processes(self) -> tuple[SimulatedProcess, ...]:
        """The processes of workers that run now."""
        return tuple(process for process in self._processes if process.is_running)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all workers, in the order of declaration."""
        return tuple(record.name for record in self.controller.workers)

    @property
    def states(self) -> dict[str, str]:
        """The state of each worker, such as ``"ready"`` or ``"backoff"``."""
        return {record.name: record.state for record in self.controller.workers}

    def process(self, name: str) -> SimulatedProcess | None:
        """Return the newest running process of a worker; None: it has none now.

        Raises:
            NoSuchWorkerError: there is no such worker.
        """
        if name not in self.names:
            raise NoSuchWorkerError(
                f"no worker {name}; there are {', '.join(self.names)}"
            )
        found = [process for process in self.processes if process.name == name]
        return found[-1] if found else None

    # Faults. What has no process now is left as it is.

    def kill(self, name: str, sig: int = signal.SIGKILL) -> None:
        """Send a signal to a worker. After SIGKILL it runs not even ``finally``."""
        if (process := self.process(name)) is not None:
            process.signal(sig)

    def crash(self, name: str, code: int = 1) -> None:
        """Have a worker exit at once with *code*, in the middle of what it does."""
        if (process := self.process(name)) is not None:
            process.exit(code)

    def hang(self, name: str) -> None:
        """Block the event loop of a worker for good: no step, no heartbeat."""
        if (process := self.process(name)) is not None:
            process.hang()

    def wake(self, name: str) -> None:
        """Have a worker go on after `hang`."""
        if (process := self.process(name)) is not None:
            process.wake()

    def fail_start(self, name: str, fault: StartFault) -> None:
        """Have something go wrong with the next process of the worker *name*.

        Called again, it is the one after that.
        """
        self._faults.setdefault(name, []).append(fault)

    def fail_reload(self) -> None:
        """Have the next reload fail, as if the import had."""
        self._bad_reloads += 1

    def kill_supervisor(self) -> None:
        """Kill the supervisor process. Workers and controller go on."""
        process = core_of(self.controller).supervisor.process
        if process is not None:
            process.signal(signal.SIGKILL)

    def suspend(self, seconds: float) -> None:
        """Suspend the host: time passes, and nothing runs in it."""
        self.suspended += seconds
        sleep_through(seconds)

    def set_clock(self, seconds: float) -> None:
        """Set the system's clock forward by *seconds* [s]; negative: back.

        As on a real host, no timeout and no delay depends on this clock; the moments of
        scheduled runs do.
        """
        self._clock_error += seconds

    def connections(self, name: str) -> list[FaultyStream]:
        """Return the connections of a worker to the supervisor, to have them fail."""
        process = self.process(name)
        return [] if process is None else self.socket.of(process.pid)

    def refuse_connections(self, name: str, seconds: float) -> None:
        """Refuse new connections of a worker for *seconds* [s]."""
        if (process := self.process(name)) is not None:
            self.socket.refuse(process.pid, seconds)

    # What tests look at.

    def wall_time(self) -> float:
        """Return what the system's clock shows [s since the epoch].

        A simulation begins at midnight, UTC, on 1 January 2026.
        """
        return _BEGAN_AT + trio.current_time() + self._clock_error

    @asynccontextmanager
    async def open_client(self) -> AsyncIterator[Client]:
        """Connect a client to the supervisor for the length of the block."""
        stream = await self.socket.connect(None)
        async with open_peer(stream, Session(is_connecting=True)) as peer:
            yield Client._create(peer)

    # The stage of the controller's parts.

    async def spawn(
        self, service: AnyService, index: int, plan: ChildPlan, incarnation: int
    ) -> SimulatedProcess:
        """Start a process of a worker."""
        faults = self._faults.get(plan.name)
        fault = faults.pop(0) if faults else StartFault()
        await trio.lowlevel.checkpoint()
        if fault.error is not None:
            raise fault.error
        process = SimulatedProcess(
            pid=next(self.pids),
            boot=_boot(service, index, plan, incarnation),
            hear=lambda notification: self._hear(plan, notification),
            target=self._target_of(service),
            socket=self.socket,
            fault=fault,
            ignores=(service.stop_signal,) if fault.ignores_stop else (),
        )
        self._processes = [*self.processes, process]
        self.nursery.start_soon(process.live)
        return process

    async def before_generation(self, application: Application) -> None:
        """Check that each service can be simulated."""
        await trio.lowlevel.checkpoint()
        for service in application.services:
            self._target_of(service)
        if self._bad_reloads:
            self._bad_reloads -= 1
            raise SpecError("application", "the reload fails in this simulation")

    def _target_of(self, service: AnyService) -> Target | None:
        if (stand_in := self.stand_ins.get(service.name)) is not None:
            return stand_in
        if not isinstance(service, Service):
            return None
        if service.backend != "trio":
            raise SpecError(
                f"services[{service.name}].backend",
                f'a simulation runs trio targets, and this is "{service.backend}"; '
                f"give stand_ins={{{service.name!r}: an async function}}",
            )
        target: Target = service.target
        return target

    def _hear(self, plan: ChildPlan, notification: Notification) -> None:
        for child in core_of(self.controller).everyone():
            if child.plan is plan:
                child.notified(notification)

    def _on_event(self, event: Event) -> None:
        self.events.append((trio.current_time(), event))

    async def _begin(self, application: Application, seed: int) -> None:
        store = SimulatedPostMortems.on(self.disk, self.wall_time)
        core = await make_core(
            application, self, self._on_event, seed=seed, store=store
        )
        self.controller = Controller._create(core)
        self.nursery.start_soon(self._run, core)
        await wait_all_tasks_blocked()

    async def _run(self, core: ControllerCore) -> None:
        async with trio.open_nursery() as nursery:
            due_times = SimulatedDueTimes.on(self.disk)
            runs = ScheduledRuns(core, due_times, self.wall_time)
            nursery.start_soon(runs.run)
            await core.run()
            nursery.cancel_scope.cancel()
        try:
            core.shutdown.raise_failure()
        except SupervisorError as exc:
            self.failure = exc
        self._is_over.set()

    async def _end(self) -> None:
        self.controller.shutdown("the simulated() block was left")
        with trio.fail_after(_STOP_LIMIT):
            await self._is_over.wait()
        left = ", ".join(process.name for process in self.processes)
        assert not left, f"processes are left after the shutdown: {left}"

    def _kill_all(self) -> None:
        for process in self._processes:
            process.exit(-signal.SIGKILL)


@asynccontextmanager
async def simulated(
    application: Application,
    *,
    seed: int = 0,
    stand_ins: Mapping[str, Target] | None = None,
) -> AsyncIterator[Simulation]:
    """Run *application* for the length of the block, in this process.

    The controller and the supervisor are the real ones. Each worker's trio target runs
    as a task, with a `Worker`, that can be killed as a process is: none of its lines
    runs any more. A `Command` is a program that runs until a signal ends it. Each
    worker with a target is connected to the supervisor by a real agent, and
    `Simulation.open_client` connects clients. Nothing touches the system: there are no
    processes, sockets, probes, monitors or files.

    Needs virtual time: see `in_virtual_time`. Workers share this process, so an object
    that each process would have its own of is shared, too. Leaving the block stops
    everything, as a real shutdown does; that takes virtual time. Example::

        @in_virtual_time
        async def test_worker_is_back_after_kill() -> None:
            async with simulated(application) as simulation:
                await simulation.controller.wait_ready()
                simulation.kill("web.0")
                await trio.sleep(60)
                assert simulation.states["web.0"] == "ready"

    Args:
        application: What to run.
        seed: Seed of the controller's jitter: the same seed, the same history.
        stand_ins: Async functions that run instead of the targets or programs of the
            services of these names.

    Raises:
        SpecError: a service has another backend than trio, and no stand-in.
        RuntimeError: the clock is not virtual.
    """
    if not isinstance(trio.lowlevel.current_clock(), MockClock):
        raise RuntimeError("simulated() needs virtual time: use @in_virtual_time")
    error: Exception | None = None
    with wrapping_tasks():
        async with trio.open_nursery() as nursery:
            simulation = Simulation(nursery, dict(stand_ins or {}))
            try:
                await simulation._begin(application, seed)
                yield simulation
                await simulation._end()
            except Exception as exc:
                error = exc  # raised outside of the nursery, which would wrap it
            finally:
                simulation._kill_all()
                nursery.cancel_scope.cancel()
    if error is not None:
        raise error


def _boot(
    service: AnyService, index: int, plan: ChildPlan, incarnation: int
) -> WorkerBoot:
    timeout = plan.health_check_timeout
    return WorkerBoot(
        source=Pickled({}, b""),
        name=plan.name,
        service=service.name,
        index=index,
        incarnation=incarnation,
        generation=plan.generation,
        backend="trio",
        state={},
        directory=None,
        socket_path="",
        notify_path="",
        stop_signal=service.stop_signal,
        stop_timeout=service.stop_timeout,
        heartbeat=None if timeout is None else timeout / _BEATS,
        switch_interval=None,
        metrics=service.metrics if isinstance(service, Service) else None,
    )
