"""Test what is passed on to and from a worker's terminal, without a process."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, cast

import pytest
import trio
import trio.testing
from attrs import define, evolve, field

from tests.kits.controller import Simulation, open_simulation
from trio_supervisor.application import Application, Command
from trio_supervisor.controller.attaching import attach, type_keys
from trio_supervisor.controller.controller import core_of
from trio_supervisor.errors import (
    BadRequestError,
    NoSuchWorkerError,
    SupervisorError,
    UnavailableError,
)
from trio_supervisor.link.peer import IncomingCall
from trio_supervisor.process.output.blocks import Origin
from trio_supervisor.process.output.hub import OutputHub, open_output_hub
from trio_supervisor.testing import in_virtual_time
from trio_supervisor.wire.controller_messages import Attach, TypeKeys

APPLICATION = Application(
    [
        Command("console", ["sh"], tty=True),
        Command("plain", ["sh"]),
        Command("web", ["web"], count=2),
    ]
)


@define
class Call:
    answers: list[dict[str, Any]] = field(factory=list)

    async def stream(self, fields: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        self.answers.append(fields)


@define
class Output:
    """The terminal of a process that reads after a while."""

    reads_after: float = 0.0
    has_terminal: bool = True
    typed: bytes = b""
    size: tuple[int, int] | None = None

    async def type(self, keys: bytes) -> bool:
        await trio.sleep(self.reads_after)
        self.typed += keys
        return self.has_terminal

    def resize(self, size: tuple[int, int]) -> None:
        self.size = size

    def finish(self) -> None:
        """There is nothing left to read."""

    def last_lines(self, _count: int) -> list[Any]:
        return []


def give(sim: Simulation, hub: OutputHub | None, **outputs: Output) -> None:
    """Give the controller a hub, and the processes of services their outputs."""
    factory = core_of(sim.controller).generation_factory
    found = {
        sim.process(f"{name}.0").pid: cast(Any, output)
        for name, output in outputs.items()
    }
    factory.context = evolve(factory.context, hub=hub, outputs=found)


@in_virtual_time
async def test_state_comes_first_and_then_what_is_written() -> None:
    async with open_simulation(APPLICATION) as sim, open_output_hub() as hub:
        await sim.controller.wait_ready()
        output = Output()
        give(sim, hub, console=output)
        core, call = core_of(sim.controller), Call()
        operation = Attach(name="console", lines=30, columns=100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attach, core, cast(IncomingCall, call), operation)
            await trio.testing.wait_all_tasks_blocked()
            origin = Origin(name="console.0", process_id=1, generation=1, incarnation=1)
            hub.tell_attached(evolve(origin, generation=2), b"of a canary")
            hub.tell_attached(origin, b"\xff")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        state = {
            "is_running": True,
            "process_id": sim.process("console.0").pid,
            "has_terminal": True,
        }
        assert call.answers == [
            {"entries": [state], "missed": 0},
            {"entries": [{"data": "/w=="}], "missed": 0},
        ]
        assert output.size == (30, 100)
        assert hub._attachments == {}


@in_virtual_time
async def test_removed_worker_ends_the_stream() -> None:
    async with open_simulation(APPLICATION) as sim, open_output_hub() as hub:
        await sim.controller.wait_ready()
        give(sim, hub, console=Output())
        core, call = core_of(sim.controller), cast(IncomingCall, Call())
        problems: list[str] = []

        async def stay() -> None:
            try:
                await attach(core, call, Attach(name="console"))
            except NoSuchWorkerError as exc:
                problems.append(str(exc))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stay)
            await trio.testing.wait_all_tasks_blocked()
            await sim.controller.scale({"console": 0})
            hub.forget("console.0")
        assert problems == ["console.0 was removed"]


@in_virtual_time
async def test_keys_and_size_reach_the_terminal() -> None:
    async with open_simulation(APPLICATION) as sim:
        await sim.controller.wait_ready()
        output = Output()
        async with open_output_hub() as hub:
            give(sim, hub, console=output)
            core = core_of(sim.controller)
            await type_keys(core, TypeKeys(name="console.0", lines=3, columns=9))
            await type_keys(core, TypeKeys(name="console.0", data="bHMK"))
        assert (output.typed, output.size) == (b"ls\n", (3, 9))


@pytest.mark.parametrize(
    ("operation", "error", "problem"),
    [
        (TypeKeys(name="web", data="bHMK"), BadRequestError, "web.0, web.1"),
        (TypeKeys(name="no"), NoSuchWorkerError, "'no'"),
        (TypeKeys(name="console", data="%"), BadRequestError, "expected base64"),
        (TypeKeys(name="plain", data="bHMK"), UnavailableError, "input needs tty=True"),
        (TypeKeys(name="web.0", data="bHMK"), UnavailableError, "is not running"),
        (
            TypeKeys(name="console", data=b64encode(b"a").decode()),
            UnavailableError,
            "console.0 does not read what is typed",
        ),
    ],
)
@in_virtual_time
async def test_keys_that_cannot_be_typed_are_refused(
    operation: TypeKeys, error: type[SupervisorError], problem: str
) -> None:
    async with open_simulation(APPLICATION) as sim:
        await sim.controller.wait_ready()
        console, plain = Output(reads_after=5), Output(has_terminal=False)
        give(sim, None, console=console, plain=plain)
        with pytest.raises(error) as caught:
            await type_keys(core_of(sim.controller), operation)
        assert problem in str(caught.value)


@in_virtual_time
async def test_output_that_is_not_captured_cannot_be_attached_to() -> None:
    async with open_simulation(APPLICATION) as sim:
        await sim.controller.wait_ready()
        give(sim, None)
        with pytest.raises(UnavailableError, match="not captured"):
            await attach(
                core_of(sim.controller),
                cast(IncomingCall, Call()),
                Attach(name="plain"),
            )
