"""Agents and clients in a simulation, and what may happen to their connections.

The histories at the end are the simulation of ourselves: whatever happens, each call
ends exactly once, and soon after the last fault the supervisor's table is the truth.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import define, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_supervisor import Application, Service, Worker
from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
)
from trio_supervisor.link.client import Client
from trio_supervisor.link.peer import open_peer
from trio_supervisor.testing import (
    FaultPlan,
    Simulation,
    faults,
    in_virtual_time,
    simulated,
)
from trio_supervisor.wire.session import Session

CALL_TIMEOUT = 20.0
"""Limit that the supervisor is given for a forwarded call [s]."""
MARGIN = 3.0
"""How much later its answer may be: it inspects a silent worker from outside [s]."""
TRUTH_WITHIN = 30.0
"""Since the last fault, until the table of the supervisor is the truth [s]."""


async def echoing(worker: Worker) -> None:
    """Answer calls, some of them after a while."""

    async def echo(text: str, seconds: float = 0.0) -> str:
        await trio.sleep(seconds)
        return f"{worker.name}: {text}"

    worker.handle("echo", echo)
    await worker.ready()
    await worker.stopping.wait()


APPLICATION = Application([Service("web", echoing, count=2)])


def registered(simulation: Simulation) -> dict[str, int]:
    """Return the process ids of connected workers, by name."""
    registry = simulation.servers[-1].registry
    return {
        str(worker.own_name): worker.process_id
        for worker in registry.connections.values()
    }


def running(simulation: Simulation) -> dict[str, int]:
    """Return the process ids of running workers, by name."""
    return {process.name: process.pid for process in simulation.processes}


@asynccontextmanager
async def ready() -> AsyncIterator[Simulation]:
    async with simulated(APPLICATION) as simulation:
        async with simulation.open_client() as client:
            await client.wait_ready()  # which waits for the agents, too
        yield simulation


@in_virtual_time
async def test_agents_register_and_answer_calls() -> None:
    async with ready() as simulation, simulation.open_client() as client:
        assert registered(simulation) == running(simulation)
        answer = await client.forward("web.1", "echo", text="a")
        assert answer["data"] == "web.1: a"
        status = await client.status()
        assert [worker.name for worker in status.workers] == ["web.0", "web.1"]
        await client.wait_ready()


@in_virtual_time
async def test_call_of_a_killed_worker_fails_at_once() -> None:
    async with ready() as simulation, simulation.open_client() as client:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with pytest.raises(CallFailedError, match="exit"):
                    await client.forward("web.0", "echo", text="a", seconds=50)

            await trio.sleep(1)
            simulation.kill("web.0")
        assert trio.current_time() - began < 5
        await client.wait_ready()
        assert registered(simulation) == running(simulation)


@in_virtual_time
async def test_agent_answers_while_its_event_loop_hangs() -> None:
    """An operation of the service waits for the loop, and the agent itself does not."""
    async with ready() as simulation, simulation.open_client() as client:
        simulation.hang("web.0")
        with trio.fail_after(0.1):
            await client.forward("web.0", "ping")
        with pytest.raises(CallFailedError, match="did not answer 'echo'"):
            await client.forward("web.0", "echo", text="a", timeout=2)
        simulation.wake("web.0")
        await client.forward("web.0", "echo", text="a")


@in_virtual_time
async def test_stopped_worker_is_named_as_such() -> None:
    async with ready() as simulation, simulation.open_client() as client:
        process = simulation.process("web.0")
        assert process is not None
        process.signal(signal.SIGSTOP)
        with pytest.raises(CallFailedError, match="SIGSTOP"):
            await client.forward("web.0", "echo", text="a", timeout=30)
        process.signal(signal.SIGCONT)
        await client.forward("web.0", "echo", text="a")


@pytest.mark.parametrize("lose", ["lose", "cut_line", "fall_silent"])
def test_worker_registers_again_after_a_loss(lose: str) -> None:
    @in_virtual_time
    async def run() -> None:
        async with ready() as simulation, simulation.open_client() as client:
            (stream,) = simulation.connections("web.0")
            getattr(stream, lose)()
            if lose != "lose":  # then it is back before it is called
                with pytest.raises(CallFailedError):
                    await client.forward("web.0", "echo", text="a", timeout=3)
            stream.lose()
            await trio.sleep(1)
            await client.forward("web.0", "echo", text="a")
            assert registered(simulation) == running(simulation)

    run()


@in_virtual_time
async def test_workers_register_at_the_next_supervisor() -> None:
    async with ready() as simulation:
        simulation.kill_supervisor()
        await trio.sleep(2)
        assert len(simulation.servers) == 2
        assert registered(simulation) == running(simulation)


@in_virtual_time
async def test_refused_worker_registers_once_it_may() -> None:
    async with ready() as simulation:
        simulation.refuse_connections("web.0", 30)
        (stream,) = simulation.connections("web.0")
        stream.lose()
        await trio.sleep(29)
        assert set(registered(simulation)) == {"web.1"}
        await trio.sleep(2)
        assert set(registered(simulation)) == {"web.0", "web.1"}


@in_virtual_time
async def test_late_and_repeated_answers_reach_nobody_else() -> None:
    async with ready() as simulation, simulation.open_client() as client:
        (stream,) = simulation.connections("web.0")
        stream.delay(5)
        with pytest.raises(CallFailedError, match="did not answer"):
            await client.forward("web.0", "echo", text="late", timeout=1)
        answer = await client.forward("web.0", "echo", text="next", timeout=20)
        assert answer["data"] == "web.0: next"
        stream.repeat()
        for text in ("once", "again"):
            answer = await client.forward("web.0", "echo", text=text)
            assert answer["data"] == f"web.0: {text}"
        assert simulation.connections("web.0") == [stream]


@define(eq=False)
class Tap(trio.abc.Stream):
    """Counts the last answers that arrive for each call."""

    stream: trio.abc.Stream
    ends: Counter[int] = field(factory=Counter)
    _rest: bytes = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self.stream.receive_some(max_bytes))
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            fields = json.loads(line)
            if "id" in fields and fields.get("finished"):
                self.ends[fields["id"]] += 1
        return data

    async def aclose(self) -> None:
        await self.stream.aclose()


@define(eq=False)
class Caller:
    """A client that makes calls all the time, and watches how they end."""

    simulation: Simulation
    ends: Counter[str] = field(factory=Counter)
    taps: list[Tap] = field(factory=list)

    async def run(self) -> None:
        """Connect, call until the connection is lost, and connect again."""
        for number in range(10**6):
            tap = Tap(await self.simulation.socket.connect(None))
            self.taps.append(tap)
            async with open_peer(tap, Session(is_connecting=True)) as peer:
                client = Client._create(peer)
                while not peer.closed.is_set():
                    await self.call(client, number)
                    await trio.sleep(0.7)

    async def call(self, client: Client, number: int) -> None:
        """Make one call; it ends in time, and with its own answer."""
        name = f"web.{number % 2}"
        text = f"call {number}"
        began = self._now()
        try:
            answer = await client.forward(
                name, "echo", text=text, seconds=0.5, timeout=CALL_TIMEOUT
            )
        except (CallFailedError, ConnectionLostError) as exc:
            self.ends[type(exc).__name__] += 1
        else:
            self.ends["answer"] += 1
            assert answer["data"] == f"{name}: {text}"
        took = self._now() - began
        assert took <= CALL_TIMEOUT + MARGIN, f"{text} took {took:g} s"

    def _now(self) -> float:
        """Return the time that the host has run [s]."""
        return trio.current_time() - self.simulation.suspended

    def check(self) -> None:
        """Check that no call was answered twice."""
        for tap in self.taps:
            assert set(tap.ends.values()) <= {1}


@define(eq=False)
class Watch:
    """Looks all the time at what must hold at each moment."""

    simulation: Simulation
    restarts: Counter[tuple[str, int]] = field(factory=Counter)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await trio.sleep(0.25)

    def look(self) -> None:
        """Look once."""
        processes = self.simulation.processes
        keys = [(one.name, one.boot.generation) for one in processes]
        assert len(set(keys)) == len(keys), "a worker has two processes"
        records = self.simulation.controller.workers
        assert {record.name for record in records} == {"web.0", "web.1"}
        for record in records:
            assert record.state not in ("failed", "stopped"), "nobody stopped it"
            key = (record.name, record.generation)
            assert record.restarts >= self.restarts[key], "a counter went back"
            self.restarts[key] = record.restarts


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(faults(within=60, at_most=6, workers=2), st.integers(0, 2**16))
@in_virtual_time
async def test_calls_end_once_and_the_table_becomes_the_truth(
    plan: FaultPlan, seed: int
) -> None:
    async with simulated(APPLICATION, seed=seed) as simulation:
        caller = Caller(simulation)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.run)
            nursery.start_soon(Watch(simulation).run)
            await plan.run(simulation)
            with trio.fail_after(TRUTH_WITHIN):
                while not await is_the_truth(simulation):  # noqa: ASYNC110 (polled)
                    await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        caller.check()


async def is_the_truth(simulation: Simulation) -> bool:
    """Whether the table of the supervisor, as a client sees it, is the truth."""
    if registered(simulation) != running(simulation):
        return False
    async with simulation.open_client() as client:
        status = await client.status()
    return {(each.name, each.state, each.process_id) for each in status.workers} == {
        (each.name, each.state, each.process_id)
        for each in simulation.controller.workers
    }
