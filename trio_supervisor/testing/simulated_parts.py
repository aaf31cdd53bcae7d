"""Stand for what a controller meets at the edge of the operating system.

Everything else of it is real: its supervisors are real servers, at the other end of a
stream in memory.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Protocol

import trio
from attrs import define, evolve, field, frozen
from trio.testing import memory_stream_pair

from trio_supervisor.application import AnyService, Application
from trio_supervisor.controller.aftermath import ProcessAftermath
from trio_supervisor.controller.calls import answer
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ChildPlan, Spawn
from trio_supervisor.controller.core import ControllerCore, OnEvent
from trio_supervisor.controller.fleet.generation import Generation
from trio_supervisor.controller.fleet.make_generation import (
    GenerationFactory,
    MakeChild,
    worker_maker,
)
from trio_supervisor.controller.launch.context import LaunchContext
from trio_supervisor.controller.launch.factory import Forkers, Launchers
from trio_supervisor.controller.launch.launchers import SupervisorLauncher
from trio_supervisor.controller.post_mortem.collect import PostMortemCollector
from trio_supervisor.controller.post_mortem.store import PostMortemStore
from trio_supervisor.policy.reload import ServiceFacts
from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.guardian_client import GuardianClient
from trio_supervisor.process.cleanup.stopping import StopDeadline
from trio_supervisor.process.inspection.inspection import FROZEN
from trio_supervisor.process.sockets.sockets import SocketSet
from trio_supervisor.process.spawn.fork_server_protocol import StartedServer
from trio_supervisor.supervisor.monitoring import Monitoring
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.supervisor.server import Server
from trio_supervisor.tasks import ProtectedNursery
from trio_supervisor.testing.fakes import FakeProcess
from trio_supervisor.testing.simulated_network import CONTROLLER_PID, SimulatedSocket
from trio_supervisor.wire.json_tree import Object


class Stage(Protocol):
    """A simulation, as seen by the parts of its controller."""

    nursery: trio.Nursery
    servers: list[Server]
    """The supervisors that were started; the last one is in charge."""
    socket: SimulatedSocket
    """Where these accept connections."""
    pids: Iterator[int]

    async def spawn(
        self, service: AnyService, index: int, plan: ChildPlan, incarnation: int
    ) -> Process:
        """Start a process of a worker."""
        ...

    async def before_generation(self, application: Application) -> None:
        """Called before a generation is made: to check it, delay it or have it fail."""
        ...


class AftermathWithoutEvidence(ProcessAftermath):
    """Looks at nothing of the host to explain an exit."""

    async def dump_stacks(self, child: Child, process: Process, cause: str) -> None:
        """Do nothing: the process has no stacks of its own."""
        await trio.lowlevel.checkpoint()

    async def find_cause(self, child: Child, process: Process) -> str:
        """Find nothing."""
        await trio.lowlevel.checkpoint()
        return ""


class CollectorWithoutThreads(PostMortemCollector):
    """Looks at nothing of the host to explain a process that does not answer."""

    async def look_from_outside(self, process: Process) -> tuple[str, str]:
        """Return whether it is stopped, as the kernel tells of a real one."""
        await trio.lowlevel.checkpoint()
        is_stopped = isinstance(process, FakeProcess) and process.is_paused
        return ("kernel", FROZEN["T"]) if is_stopped else ("", "")


class CoreWithoutThreads(ControllerCore):
    """A controller without threads, during which virtual time would run on."""

    aftermath_type: ClassVar[type[ProcessAftermath]] = AftermathWithoutEvidence
    collector_type: ClassVar[type[PostMortemCollector]] = CollectorWithoutThreads

    async def learn_facts(self) -> None:
        """Learn what a reload compares, in this thread."""
        await trio.lowlevel.checkpoint()
        self.generation.learn_facts()

    async def ask(self, do: str, arguments: Object) -> Object:
        """Answer for workers, which share one process: they have loaded nothing."""
        if arguments.get("operation") == {"do": "loaded_code"}:
            await trio.lowlevel.checkpoint()
            return {"data": "", "files": []}
        return await super().ask(do, arguments)


@frozen(kw_only=True)
class SimulatedLaunchers(Launchers):
    """Starts the processes of a stage."""

    stage: Stage

    def worker(self, service: AnyService, index: int, plan: ChildPlan) -> Spawn:
        """Return what starts the worker's next process."""
        return partial(self.stage.spawn, service, index, plan)


@define(eq=False)
class SimulatedSupervisors(SupervisorLauncher):
    """Starts servers, each with a process that is none."""

    _stage: Stage = field(kw_only=True)
    _core: ControllerCore = field(kw_only=True)
    _streams: list[trio.abc.Stream] = field(factory=list, init=False)

    async def __call__(self, incarnation: int) -> Any:
        """Start one."""
        stage = self._stage
        process = FakeProcess(pid=next(stage.pids))
        server = Server(
            registry=Registry(),
            monitoring=Monitoring(()),
            process_id=process.pid,
            incarnation=incarnation,
            controller_pid=CONTROLLER_PID,
            version="0",
        )
        server._share.clock = trio.current_time  # how long it works is no matter
        stage.servers.append(server)
        ours, theirs = memory_stream_pair()
        self._streams.append(ours)
        stage.nursery.start_soon(self._serve, server, theirs, process)
        return process

    async def _serve(
        self, server: Server, stream: trio.abc.Stream, process: FakeProcess
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_controller, stream)
            nursery.start_soon(server.watch.run)
            nursery.start_soon(self._accept, server)
            self._core.supervisor.notified(process.says("READY=1"))
            await process.wait()
            nursery.cancel_scope.cancel()

    async def _accept(self, server: Server) -> None:
        async with trio.open_nursery() as nursery:
            with server.accepting:
                while True:
                    made = await self._stage.socket.accept()
                    nursery.start_soon(
                        server.serve_connection,
                        made.accepted,
                        made.credentials,
                        made.origin,
                    )

    def take_control(self) -> Any:
        """Return our end of the stream to the last one, once."""
        return self._streams.pop() if self._streams else None


@define(eq=False)
class SimulatedGenerations(GenerationFactory):
    """Makes generations whose processes are a stage's."""

    _stage: Stage = field(kw_only=True)
    core: ControllerCore = field(init=False)

    async def check_startable(
        self,
        application: Application,
        names: Collection[str],
        *,
        were_started: bool = False,
    ) -> None:
        """Accept everything: no program is started."""
        await trio.lowlevel.checkpoint()

    async def make(
        self,
        number: int,
        application: Application,
        facts: Mapping[str, ServiceFacts] | None,
        make_child: MakeChild,
        sockets: SocketSet,
        server: StartedServer | None = None,
        files: Mapping[str, str] | None = None,
    ) -> tuple[Generation, SupervisorLauncher]:
        """Make a generation without workers."""
        assert server is None, "nothing is imported in a simulation"
        await trio.lowlevel.checkpoint()
        await self._stage.before_generation(application)
        launchers = SimulatedLaunchers(
            number=number,
            sources={},
            context=self.context,
            forkers=Forkers(),
            sockets=sockets,
            socket_keys={},
            needs=application.needs(),
            stage=self._stage,
        )
        make_worker = worker_maker(launchers, make_child)
        generation = Generation(number, application, make_worker, launchers, facts)
        unused: Any = None
        supervisors = SimulatedSupervisors(
            unused, self.context, unused, stage=self._stage, core=self.core
        )
        return generation, supervisors


async def make_core(
    application: Application,
    stage: Stage,
    on_event: OnEvent,
    *,
    seed: int,
    store: PostMortemStore | None = None,
) -> ControllerCore:
    """Make the parts of a controller on *stage*, ready to `ControllerCore.run`."""
    factory = SimulatedGenerations(
        _context(),
        SocketSet({}),
        None,
        False,
        ProtectedNursery(stage.nursery),
        stage=stage,
    )
    core = CoreWithoutThreads(
        "/nowhere",
        factory,
        GuardianClient("", ""),
        StopDeadline(),
        on_event,
        answer,
        store,
        owns_process=False,
    )
    factory.core = core
    core.rng.seed(seed)
    core.reloader.measure = _measure
    made = await factory.make(1, application, None, core.make_child, factory.sockets)
    core.begin(*made)
    plan = core.supervisor.plan  # its heart does not beat
    core.supervisor.plan = evolve(plan, health_check_timeout=None)
    return core


async def _measure(_: Sequence[int]) -> dict[int, int]:
    """Measure nothing: there are no processes."""
    await trio.lowlevel.checkpoint()
    return {}


def _context() -> LaunchContext:
    with socket.socket() as unused:
        return LaunchContext(
            socket_path="/nowhere",
            listener=unused,
            directory="",
            lifeline=-1,
            marker="",
            log_format="text",
            title="test",
        )
