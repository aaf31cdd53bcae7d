"""Whoever has steered finds what was done in the log, and is not kept by it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, cast

import pytest
import trio
from attrs import define, evolve

from tests.kits.controller import Simulation, open_simulation, service
from trio_supervisor.application import Application
from trio_supervisor.controller.calls import answer
from trio_supervisor.controller.controller import core_of
from trio_supervisor.errors import CallFailedError, SupervisorError
from trio_supervisor.link.peer import IncomingCall
from trio_supervisor.testing import in_virtual_time


@define
class Hub:
    """Stands for the log and the workers' output: writing takes a while."""

    takes: float
    written: float = -1.0
    """When all was, by the loop's clock."""

    async def flush(self) -> None:
        await trio.sleep(self.takes)
        self.written = trio.current_time()

    def forget(self, name: str) -> None:
        """Nothing is kept."""


@define
class Call:
    """A call of the supervisor's, as far as it is looked at."""

    do: str
    arguments: dict[str, Any]


def give(sim: Simulation, hub: Hub) -> None:
    generation_factory = sim.controller.generation_factory
    generation_factory.context = evolve(generation_factory.context, hub=cast(Any, hub))


async def ask(sim: Simulation, do: str, **arguments: object) -> object:
    """Steer as the supervisor passes it on; return what is answered, or raised."""
    try:
        call = cast(IncomingCall, Call(do, arguments))
        answered = answer(core_of(sim.controller), call)
        return await answered if isinstance(answered, Coroutine) else answered
    except SupervisorError as exc:
        return exc


DOINGS = [
    ("scale", {"counts": {"web": 3}}),
    ("scale", {"counts": {"nobody": 3}}),
    ("restart", {"names": ["web.1"]}),
    ("stop", {"names": ["web"]}),
    ("start", {"names": ["web"]}),
    ("reload", {}),
]


@pytest.mark.parametrize(("do", "arguments"), DOINGS)
@in_virtual_time
async def test_the_log_is_written_before_the_answer(
    do: str, arguments: dict[str, Any]
) -> None:
    """Also before the answer that it failed, as this reload does: it has no source."""
    async with open_simulation(Application([service("web", count=2)])) as sim:
        await sim.controller.wait_ready()
        hub = Hub(takes=0.05)
        give(sim, hub)

        answered = await ask(sim, do, **arguments)

        is_refused = do == "reload" or "nobody" in str(arguments)
        assert isinstance(answered, SupervisorError) == is_refused, answered
        assert not isinstance(answered, CallFailedError)
        assert hub.written == trio.current_time()


@in_virtual_time
async def test_a_log_that_nobody_reads_holds_up_no_answer() -> None:
    async with open_simulation(Application([service("web", count=2)])) as sim:
        await sim.controller.wait_ready()
        give(sim, Hub(takes=1000.0))
        began = trio.current_time()

        answered = await ask(sim, "start", names=["web"])

        assert answered == {}
        assert trio.current_time() - began == pytest.approx(0.1)
