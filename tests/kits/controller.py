"""A whole controller in virtual time: everything is real, but for the processes.

Its supervisors are real servers as well, at the other end of a stream in memory.
"""

from __future__ import annotations

import math
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final

import trio
from attrs import define, evolve, field, frozen
from trio.testing import wait_all_tasks_blocked

from trio_supervisor.application import AnyService, Application, Service
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ChildPlan
from trio_supervisor.controller.controller import Controller, core_of
from trio_supervisor.controller.events import Event, ProcessStopping
from trio_supervisor.controller.fleet.generation import Generation
from trio_supervisor.controller.supervisor_link import record_of
from trio_supervisor.errors import SupervisorError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.supervisor.server import Server
from trio_supervisor.testing import FakeProcess
from trio_supervisor.testing.simulated_network import SimulatedSocket
from trio_supervisor.testing.simulated_parts import make_core

NEVER: Final = math.inf
# No process of the system has such a number.
_FIRST_PID: Final = 10_000_000
MOVING: Final = frozenset({State.STARTING, State.STOPPING, State.BACKOFF})
# Within it everything that is under way comes to rest [s].
SETTLED: Final = 300.0


@frozen(kw_only=True)
class Life:
    """What one process is going to do, if it is let. Times in seconds."""

    can_spawn: bool = True
    spawn_error: Exception | None = None
    spawn_takes: float = 0.0
    ready_after: float = 0.25
    unready_after: float = NEVER
    """Since it was ready."""
    ready_again_after: float = NEVER
    """Since it was unready."""
    exits_after: float = NEVER
    returncode: int = 0
    stopping_takes: float = 0.0
    is_stubborn: bool = False


@frozen
class Part:
    """Which process of which worker is meant."""

    service: str
    index: int
    generation: int
    incarnation: int


Lives = Callable[[Part], Life]


@define(eq=False)
class Role:
    """What has become of one worker, as seen from its processes alone."""

    plan: ChildPlan
    process: FakeProcess | None = None
    is_ready: bool = False
    unready_since: float = -NEVER
    has_started: bool = False
    last_exit: int | None = None
    """The returncode of the last process that ended by itself."""


async def target(_: object) -> None:
    """Stands for what a service runs: nothing runs it here."""


def service(name: str, **fields: Any) -> Service:
    """Return a service whose workers are never checked for heartbeats."""
    quiet: dict[str, Any] = {"health_check_timeout": None, "backoff": None}
    return Service(name, target, **(quiet | fields))


@define(eq=False)
class Simulation:
    """A controller, its fake processes, and all that was seen of them."""

    nursery: trio.Nursery
    lives: Lives
    said: list[tuple[float, Event]] = field(factory=list)
    started: list[tuple[float, str]] = field(factory=list)
    """When, and which worker, as ``web.0`` or ``web.0/2`` in generation 2."""
    ended: list[tuple[float, str]] = field(factory=list)
    processes: list[FakeProcess] = field(factory=list)
    servers: list[Server] = field(factory=list)
    socket: SimulatedSocket = field(factory=SimulatedSocket)
    failure: SupervisorError | None = None
    roles: dict[int, Role] = field(factory=dict)
    """By the identity of their plans."""
    is_over: trio.Event = field(factory=trio.Event)
    makes: list[Callable[[], Awaitable[None]]] = field(factory=list)
    """Run when a generation is to be made, to have it fail, or take its time."""
    controller: OpenController = field(init=False)
    pids: Iterator[int] = field(factory=lambda: count(_FIRST_PID))

    def child(self, name: str) -> Child:
        """Return the worker of that name in the generation in charge."""
        return core_of(self.controller).children[name]

    def process(self, name: str) -> FakeProcess:
        """Return its process."""
        process = self.child(name).process
        assert isinstance(process, FakeProcess)
        return process

    def events(self, *kinds: type[Event]) -> list[tuple[float, str]]:
        """Return when what of *kinds* was said, in words."""
        return [
            (moment, f"{event.name}: {event}")
            for moment, event in self.said
            if isinstance(event, kinds)
        ]

    @property
    def running(self) -> list[str]:
        """The workers that have a process."""
        return sorted(
            _shown(role.plan)
            for role in self.roles.values()
            if role.process is not None
        )

    @property
    def states(self) -> dict[str, State]:
        """Of all workers in charge."""
        return {name: child.state for name, child in self.controller.children.items()}

    async def settle(self) -> None:
        """Let everything that is under way come to rest."""
        await trio.sleep(SETTLED)

    # What the controller tells.

    def on_event(self, event: Event) -> None:
        self.said.append((trio.current_time(), event))
        if isinstance(event, ProcessStopping):
            self._check_stop(event)

    # The processes.

    async def before_generation(self, application: Application) -> None:
        for make in self.makes:
            await make()

    async def spawn(
        self, service: AnyService, index: int, plan: ChildPlan, incarnation: int
    ) -> FakeProcess:
        role = self.roles.setdefault(id(plan), Role(plan))
        assert role.process is None, f"two processes of {plan.name} at once"
        self._check_start(plan)
        part = Part(service.name, index, plan.generation, incarnation)
        life = self.lives(part)
        await trio.sleep(life.spawn_takes)
        if life.spawn_error is not None:
            raise life.spawn_error
        if not life.can_spawn:
            raise FileNotFoundError("no such program")
        process = FakeProcess(
            pid=next(self.pids),
            ignores=(15,) if life.is_stubborn else (),
            stopping_takes=life.stopping_takes,
        )
        self.processes.append(process)
        self.started.append((trio.current_time(), _shown(plan)))
        role.process, role.has_started = process, True
        role.is_ready, role.last_exit = not plan.says_ready, None
        self.nursery.start_soon(self._live, plan, role, process, life)
        self.nursery.start_soon(self._reap, plan, role, process)
        return process

    async def _live(
        self, plan: ChildPlan, role: Role, process: FakeProcess, life: Life
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._exit, process, life)
            await trio.sleep(life.ready_after)
            self.say(plan, role, process, is_ready=True)
            await trio.sleep(life.unready_after)
            self.say(plan, role, process, is_ready=False)
            await trio.sleep(life.ready_again_after)
            self.say(plan, role, process, is_ready=True)

    async def _exit(self, process: FakeProcess, life: Life) -> None:
        await trio.sleep(life.exits_after)
        process.exit(life.returncode)

    def say(
        self, plan: ChildPlan, role: Role, process: FakeProcess, *, is_ready: bool
    ) -> None:
        if not process.is_running:
            return
        role.is_ready = is_ready
        if not is_ready:
            role.unready_since = trio.current_time()
        for child in self.controller.everyone():
            if child.plan is plan:
                child.notified(process.says(f"READY={int(is_ready)}"))

    async def _reap(self, plan: ChildPlan, role: Role, process: FakeProcess) -> None:
        code = await process.wait()
        if role.is_ready:
            role.unready_since = trio.current_time()
        role.process, role.is_ready, role.last_exit = None, False, code
        self.ended.append((trio.current_time(), _shown(plan)))

    # What holds at any time.

    def _check_start(self, plan: ChildPlan) -> None:
        """Whatever it needs is there when a process is started.

        Or was there in the same instant: the news of its end is on its way then.
        """
        home = self._home(plan)
        for name, condition in home.application.needs()[plan.service].items():
            for child in home.unit_of(name).children:
                role = self._role_of(child)
                has_exited_ok = (
                    role.process is None and role.last_exit == 0 and not child.is_wanted
                )
                is_news = role.unready_since == trio.current_time()
                is_there = {
                    "started": role.has_started,
                    "ready": role.is_ready or has_exited_ok or is_news,
                    "exited_ok": has_exited_ok,
                }[condition]
                problem = f"{plan.name} is started without {name} {condition}"
                assert is_there, f"{problem}: {child.name} is {child.standing}, {role}"

    def _check_stop(self, event: ProcessStopping) -> None:
        """Nothing of a service that is stopped is needed by what still runs."""
        if event.cause != "stop" or event.name == "supervisor":
            return
        [plan] = [
            role.plan
            for role in self.roles.values()
            if role.process is not None and role.process.pid == event.process_id
        ]
        home = self._home(plan)
        if any(child.is_wanted for child in home.units[plan.service].children):
            return  # one worker of several, by its own name
        for name, needs in home.application.needs().items():
            if needs.get(plan.service, "exited_ok") == "exited_ok":
                continue
            for child in home.units[name].children:
                runs = self._role_of(child).process is not None
                assert not runs, f"{plan.name} is stopped before {child.name}"

    def _role_of(self, child: Child) -> Role:
        return self.roles.get(id(child.plan), Role(child.plan))

    def _home(self, plan: ChildPlan) -> Generation:
        core = core_of(self.controller)
        for child in core.everyone():
            if child.plan is plan:
                return core.fleet.generation_of(child) or core.generation
        raise AssertionError(f"{plan.name} is nobody's")

    async def check_picture(self) -> None:
        """The supervisor knows what the controller knows, a moment later."""
        await trio.sleep(1)
        # What they go through is told together with what comes of it.
        for _ in range(100):
            if not any(c.state in MOVING for c in self.controller.everyone()):
                break
            await trio.sleep(0.1)
        await wait_all_tasks_blocked()
        assert self.controller.link.is_connected
        records = {
            record.key: record for record in map(record_of, self.controller.everyone())
        }
        known = self.servers[-1].registry._all
        assert set(known) == set(records)
        for key, record in records.items():
            # The reason is told with the start for which it is.
            assert evolve(known[key], reason="") == evolve(record, reason="")


def _shown(plan: ChildPlan) -> str:
    return plan.name if plan.generation == 1 else f"{plan.name}/{plan.generation}"


# What is not real.


class OpenController(Controller):
    """A controller whose parts tests may look at, and meddle with."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_core"], name)


@asynccontextmanager
async def open_simulation(
    application: Application, lives: Lives = lambda _: Life()
) -> AsyncIterator[Simulation]:
    """Run *application* for the length of the block; see that nothing is left."""
    async with trio.open_nursery() as nursery:
        sim = Simulation(nursery, lives)
        core = await make_core(application, sim, sim.on_event, seed=0)
        sim.controller = OpenController._create(core)
        nursery.start_soon(_run, sim)
        await wait_all_tasks_blocked()
        yield sim
        sim.controller.shutdown("the end")
        with trio.fail_after(SETTLED):
            await sim.is_over.wait()
        assert sim.running == []
        assert not any(process.is_running for process in sim.processes)
        assert all(process.is_closed for process in sim.processes)
        nursery.cancel_scope.cancel()


async def _run(sim: Simulation) -> None:
    core = core_of(sim.controller)
    await core.run()
    try:
        core.shutdown.raise_failure()
    except SupervisorError as exc:
        sim.failure = exc
    sim.is_over.set()


def script(lives: Mapping[str, Sequence[Life]]) -> Lives:
    """Return lives by worker, one incarnation after the other; then healthy ones.

    Keys are as ``web.0``, and ``web.0/2`` for generation 2.
    """
    left = {name: list(these) for name, these in lives.items()}

    def life(part: Part) -> Life:
        name = f"{part.service}.{part.index}"
        if part.generation > 1:
            name += f"/{part.generation}"
        these = left.get(name)
        return these.pop(0) if these else Life()

    return life
