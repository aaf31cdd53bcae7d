"""Supervisors that are killed and replaced, in virtual time: nobody notices for long.

The real server, the real link of the controller, real children with fake processes,
and workers and clients that use the same reconnecting and calling as the real ones.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeAlias

import pytest
import trio
from attrs import define, field, frozen
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ChildPlan
from trio_supervisor.controller.events import Event
from trio_supervisor.controller.supervisor_link import SupervisorLink, record_of
from trio_supervisor.errors import (
    CallFailedError,
    SupervisorError,
)
from trio_supervisor.link.credentials import Credentials
from trio_supervisor.link.peer import (
    Answer,
    Fields,
    IncomingCall,
    Peer,
    open_peer,
    refuse_calls,
)
from trio_supervisor.link.reconnect import ReconnectPlan, keep_connected
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.process.child import Process
from trio_supervisor.supervisor.monitoring import Monitoring
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.supervisor.server import Server
from trio_supervisor.testing import FakeProcess, in_virtual_time
from trio_supervisor.wire.codec import parse_result
from trio_supervisor.wire.messages import StatusReport
from trio_supervisor.wire.session import Session

NAMES: Final = ("web.0", "web.1", "jobs.0")
USER: Final = 0
# The longest wait of a worker before it connects again, and time to register.
SETTLED: Final = ReconnectPlan().backoff.cap + 1


@define(eq=False)
class World:
    """The socket, which may outlive its supervisors, and the one of the moment."""

    is_inherited: bool
    """Whether connections wait while there is no supervisor, or are refused."""
    server: Server | None = None
    incarnation: int = 0
    spans: list[tuple[float, float]] = field(factory=list)
    """When each supervisor came, and went."""
    controls: list[trio.abc.Stream] = field(factory=list)
    _news: trio.Event = field(factory=trio.Event)
    _waiting: list[tuple[trio.abc.Stream, Credentials]] = field(factory=list)

    async def connect(self, process_id: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.server is None and not self.is_inherited:
            raise ConnectionRefusedError
        ours, theirs = memory_stream_pair()
        who = Credentials(process_id=process_id, user_id=USER, group_id=0)
        self._waiting.append((theirs, who))
        self._tell()
        return ours

    async def run_supervisor(self, seconds: float = math.inf) -> None:
        """Be a supervisor for so long, and then be killed."""
        self.incarnation += 1
        came = trio.current_time()
        self.spans.append((came, math.inf))
        server = self.server = Server(
            registry=Registry(),
            monitoring=Monitoring(()),
            process_id=self.incarnation,
            incarnation=self.incarnation,
            controller_pid=1,
            version="0",
        )
        control, theirs = memory_stream_pair()
        self.controls.append(control)
        self._tell()
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.serve_controller, theirs)
                while True:
                    while self._waiting:
                        stream, who = self._waiting.pop(0)
                        nursery.start_soon(server.serve_connection, stream, who)
                    await self._news.wait()
        self.server = None
        self.spans[-1] = (came, trio.current_time())
        assert not server.registry.connections

    async def wait_control(self) -> trio.abc.Stream:
        while not self.controls:
            await self._news.wait()
        return self.controls.pop()

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()


@define(eq=False)
class Controller:
    """Owns the children, and tells each supervisor of them."""

    world: World
    nursery: trio.Nursery
    calls: list[str] = field(factory=list)
    connected: list[tuple[float, bool]] = field(factory=list)
    children: dict[str, Child] = field(factory=dict)
    link: SupervisorLink = field(init=False)
    supervisor: Child = field(init=False)

    def __attrs_post_init__(self) -> None:
        for index, name in enumerate(NAMES):
            self.children[name] = self._make(name, 100 + index)
        self.supervisor = self._make("supervisor", 1)
        self.link = SupervisorLink(self, self._answer, self._on_connected)

    def _make(self, name: str, process_id: int) -> Child:
        async def spawn(incarnation: int) -> Process:
            return FakeProcess(pid=process_id)

        plan = ChildPlan(
            name=name, service=name.partition(".")[0], health_check_timeout=None
        )
        return Child(plan, spawn, self, random.Random(0))

    def _answer(self, call: IncomingCall) -> Answer:
        self.calls.append(call.do)
        return {}

    def _on_connected(self, is_connected: bool, *, is_planned: bool) -> None:
        self.connected.append((trio.current_time(), is_connected))

    def everyone(self) -> Iterable[Child]:
        return self.children.values()

    def knows(self, child: Child) -> bool:
        return child in self.children.values()

    def counts(self, child: Child) -> bool:
        return True

    def on_change(self, child: Child) -> None:
        self.link.tell(child)

    def on_process(self, child: Child, process: Process, is_running: bool) -> None:
        if is_running:
            self.nursery.start_soon(self._make_ready, child, process)

    async def _make_ready(self, child: Child, process: Process) -> None:
        assert isinstance(process, FakeProcess)
        child.notified(process.says("READY=1"))

    def on_event(self, event: Event) -> None: ...

    async def run(self) -> None:
        for child in self.children.values():
            self.nursery.start_soon(child.run)
        while True:
            await self.link.serve(await self.world.wait_control())


@frozen
class Worker:
    """What an agent does: keep connected, register, answer."""

    world: World
    name: str
    process_id: int

    async def run(self) -> None:
        await keep_connected(
            partial(self.world.connect, self.process_id),
            self._session,
            ReconnectPlan(),
            random.Random(self.process_id),
        )

    async def _session(self, stream: trio.abc.Stream) -> None:
        async with open_peer(
            stream, Session(is_connecting=True), self._dispatch
        ) as peer:
            state = {"process_id": self.process_id, "name": self.name}
            await peer.call("register", {"state": state})
            await peer.closed.wait()

    def _dispatch(self, call: IncomingCall) -> Answer:
        return self._echo(call)

    async def _echo(self, call: IncomingCall) -> Fields:
        await trio.sleep(call.arguments["seconds"])
        return {"name": self.name}


Outcome: TypeAlias = tuple[float, str, str]
"""When a call ended, what it asked, and how it ended."""


@define(eq=False)
class Callers:
    """Clients that call workers through the supervisor, each over its own line."""

    world: World
    outcomes: dict[int, list[Outcome]] = field(factory=dict)

    async def call(self, key: int, begin: float, name: str, seconds: float) -> None:
        await trio.sleep_until(begin)
        ends = self.outcomes.setdefault(key, [])
        try:
            stream = await self.world.connect(process_id=9000 + key)
        except ConnectionRefusedError:
            ends.append((trio.current_time(), name, "refused"))
            return
        session = Session(is_connecting=True)
        async with open_peer(stream, session, refuse_calls) as peer:
            try:
                answer = await forward(peer, name, seconds)
            except SupervisorError as exc:
                ends.append((trio.current_time(), name, type(exc).__name__))
            else:
                assert answer == {"name": name}
                ends.append((trio.current_time(), name, "answered"))


async def forward(peer: Peer, name: str, seconds: float) -> Fields:
    operation = {"do": "echo", "seconds": seconds}
    return await peer.call("forward", {"operation": operation, "name": name})


@asynccontextmanager
async def open_world(
    *, is_inherited: bool = True
) -> AsyncIterator[tuple[World, Controller, trio.Nursery]]:
    """A controller with its children, and their workers; no supervisor yet."""
    async with trio.open_nursery() as nursery:
        world = World(is_inherited)
        controller = Controller(world, nursery)
        nursery.start_soon(controller.run)
        for index, name in enumerate(NAMES):
            nursery.start_soon(Worker(world, name, 100 + index).run)
        yield world, controller, nursery
        nursery.cancel_scope.cancel()


def check_whole(world: World, controller: Controller) -> None:
    """All are registered, each once, and the picture is the controller's own."""
    assert world.server is not None
    registry = world.server.registry
    registered = [worker.own_name for worker in registry.connections.values()]
    assert sorted(map(str, registered)) == sorted(NAMES)
    assert list(registry.records.values()) == [
        record_of(child) for child in controller.children.values()
    ]
    statuses = parse_result(
        world.server.calls.status_fields(is_full=True), StatusReport
    ).workers
    assert [status.name for status in statuses] == list(NAMES)
    assert all(status.connected and status.is_managed for status in statuses)
    assert {status.state for status in statuses} == {"ready"}
    assert controller.link.is_connected


eighths = st.integers(0, 80).map(lambda n: n / 8)
# Calls begin a little off the grid of the kills: what happens in one instant is no
# matter of right or wrong.
calls = st.tuples(
    st.integers(0, 300).map(lambda n: n / 8 + 1 / 64),
    st.sampled_from(NAMES),
    st.sampled_from([0.0, 1 / 32, 1.0, 5.0]),
)
kills = st.lists(st.tuples(eighths, eighths), max_size=5)


@settings(max_examples=150, deadline=None)
@given(kills, st.lists(calls, max_size=12), st.booleans())
@example([(1.0, 1.0)], [(0.75 + 1 / 64, "web.0", 5.0)], True)
@example([(1.0, 0.0)], [(0.75 + 1 / 64, "web.0", 5.0)], False)
@in_virtual_time
async def test_supervisors_may_be_killed_at_any_time(
    kills: Sequence[tuple[float, float]],
    calls: Sequence[tuple[float, str, float]],
    is_inherited: bool,
) -> None:
    async with open_world(is_inherited=is_inherited) as (world, controller, nursery):
        callers = Callers(world)
        for key, call in enumerate(calls):
            nursery.start_soon(callers.call, key, *call)
        for uptime, downtime in kills:
            await world.run_supervisor(uptime)
            await trio.sleep(downtime)
        nursery.start_soon(world.run_supervisor)
        await trio.sleep(SETTLED)
        last = max((begin for begin, _, _ in calls), default=0.0)
        await trio.sleep_until(max(last, trio.current_time()) + 10)

        check_whole(world, controller)
        for key, (begin, _, seconds) in enumerate(calls):
            [(end, _, outcome)] = callers.outcomes[key]  # exactly one
            assert outcome in (
                "answered",
                "refused",
                "ConnectionLostError",
                "CallFailedError",
            )
            check_call(world, begin, seconds, end, outcome)


def check_call(
    world: World, begin: float, seconds: float, end: float, outcome: str
) -> None:
    """Whether a call ended as it had to, by who was there when it began."""
    for came, went in world.spans:
        if came < begin < went:
            assert end <= went, "it outlived its supervisor"
            assert (end == went) == (outcome == "ConnectionLostError")
            if begin - came > SETTLED and begin + seconds < went:
                assert (outcome, end) == ("answered", begin + seconds)
            return
    assert (outcome == "refused") != world.is_inherited


@in_virtual_time
async def test_a_call_in_flight_at_a_kill_ends_at_once_in_one_typed_error() -> None:
    async with open_world() as (world, _, nursery):
        callers = Callers(world)
        for key in range(5):
            nursery.start_soon(callers.call, key, 2.0, "web.0", 3600.0)
        await world.run_supervisor(5)
        await trio.testing.wait_all_tasks_blocked()
        assert list(callers.outcomes.values()) == 5 * [
            [(5, "web.0", "ConnectionLostError")]
        ]


@in_virtual_time
async def test_with_an_inherited_socket_all_are_back_at_once() -> None:
    """No worker has to wait and try again: its connection is already queued."""
    async with open_world() as (world, controller, nursery):
        await world.run_supervisor(5)
        await trio.sleep(0.25)
        nursery.start_soon(world.run_supervisor)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == 5.25
        await trio.sleep(0.125)  # what changes is gathered for a moment
        check_whole(world, controller)


@in_virtual_time
async def test_a_worker_that_goes_away_fails_the_calls_to_it_only() -> None:
    async with open_world() as (world, _, nursery):
        nursery.start_soon(world.run_supervisor)
        await trio.sleep(1)
        assert world.server is not None
        line = await world.connect(9000)
        async with open_peer(line, Session(is_connecting=True)) as peer:
            ends: list[str] = []

            async def call() -> None:
                with pytest.raises(CallFailedError) as caught:
                    await forward(peer, "web.0", 3600)
                ends.append(caught.value.error_class)

            async with trio.open_nursery() as callers:
                for _ in range(3):
                    callers.start_soon(call)
                await trio.testing.wait_all_tasks_blocked()
                world.server.calls.names.find(None, "web.0").peer.close()
            assert ends == 3 * ["ConnectionLost"]
            assert await forward(peer, "web.1", 0) == {"name": "web.1"}


@in_virtual_time
async def test_a_supervisor_is_told_of_every_change() -> None:
    async with open_world() as (world, controller, nursery):
        nursery.start_soon(world.run_supervisor)
        await trio.sleep(1)
        child = controller.children["web.1"]
        child.request_restart()
        await child.wait_state(State.READY, since=2)
        await trio.sleep(1)
        assert world.server is not None
        assert world.server.registry.records["web.1"].incarnation == 2
        assert world.server.registry.records["web.1"].restarts == 1
        child.request_stop()
        await trio.sleep(1)
        assert world.server.registry.records["web.1"].state == "stopped"
        assert world.server.registry.records["web.1"].process_id is None
        check_others = world.server.registry.records["web.0"]
        assert check_others.incarnation == 1


@in_virtual_time
async def test_changes_while_there_is_no_supervisor_are_told_to_the_next() -> None:
    async with open_world() as (world, controller, nursery):
        await world.run_supervisor(1)
        controller.children["web.0"].request_stop()
        await trio.sleep(1)
        nursery.start_soon(world.run_supervisor)
        await trio.sleep(1)
        assert world.server is not None
        assert world.server.registry.records["web.0"].state == "stopped"


@in_virtual_time
async def test_each_coming_and_going_is_told_once() -> None:
    async with open_world() as (world, controller, _):
        await world.run_supervisor(5)
        await trio.sleep(3)
        await world.run_supervisor(5)
        await trio.testing.wait_all_tasks_blocked()
        assert controller.connected == [(0, True), (5, False), (8, True), (13, False)]
        assert not controller.link.is_connected


@pytest.mark.parametrize(
    ("do", "arguments"),
    [
        ("restart", {"names": ["web"]}),
        ("stop", {"names": ["web.0"]}),
        ("start", {"names": ["web.0"]}),
        ("shutdown", {}),
    ],
)
@in_virtual_time
async def test_what_clients_ask_reaches_the_controller(
    do: str, arguments: dict[str, object]
) -> None:
    async with open_world() as (world, controller, nursery):
        nursery.start_soon(world.run_supervisor)
        await trio.sleep(1)
        line = await world.connect(9000)
        async with open_peer(line, Session(is_connecting=True)) as peer:
            assert await peer.call(do, arguments) == {}
        assert controller.calls == [do]
