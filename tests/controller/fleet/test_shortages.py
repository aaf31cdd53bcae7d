"""What happens to workers that cannot be started for lack of resources of ours."""

from __future__ import annotations

import errno
from itertools import pairwise

import pytest
import trio

from tests.kits.controller import Life, Simulation, open_simulation, script, service
from trio_supervisor import Application, Group, RestartPolicy
from trio_supervisor.controller.events import (
    ProcessExited,
    ShortageBegan,
    ShortageEnded,
    StartFailed,
)
from trio_supervisor.errors import ReloadError, UnavailableError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.testing import in_virtual_time

FAILURES = [
    OSError(errno.EAGAIN, "Resource temporarily unavailable"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENFILE, "Too many open files in system"),
    OSError(errno.ENOSPC, "No space left on device"),
    RuntimeError("can't start new thread"),
    MemoryError(),
]


def short(count: int, error: Exception = FAILURES[2]) -> list[Life]:
    """Return lives that cannot begin."""
    return [Life(spawn_error=error)] * count


def crashing() -> Life:
    """Return a life that ends unasked."""
    return Life(exits_after=1.0, returncode=1)


@pytest.mark.parametrize("error", FAILURES, ids=repr)
@in_virtual_time
async def test_shortage_does_not_count_and_is_told_once(error: Exception) -> None:
    """Twenty failed starts, intensity 1: all go on, one line says it, one its end."""
    application = Application(
        [service("web", count=2, intensity=1, period=1e6), service("db")]
    )
    lives = script({"web.0": [crashing(), *short(20, error), Life()]})
    async with open_simulation(application, lives) as sim:
        await trio.sleep(0.5)
        others = [sim.process("web.1"), sim.process("db.0")]
        await sim.settle()
        assert sim.states["web.0"] is State.READY
        assert all(process.is_running for process in others)
        assert len(sim.events(ShortageBegan)) == len(sim.events(ShortageEnded)) == 1
        assert "cannot start web.0" in sim.events(ShortageBegan)[0][1]
        assert "(20 starts failed)" in sim.events(ShortageEnded)[0][1]
        assert len(sim.events(StartFailed)) == 20
        assert sim.child("web.0").crashes == 0  # ready and well since
    assert sim.failure is None


@in_virtual_time
async def test_shortage_of_many_workers_is_told_once() -> None:
    names = [f"web.{i}" for i in range(30)]
    lives = script({name: short(4) for name in names})
    async with open_simulation(Application([service("web", count=30)]), lives) as sim:
        await sim.settle()
        assert set(sim.states.values()) == {State.READY}
        assert len(sim.events(ShortageBegan)) == len(sim.events(ShortageEnded)) == 1


@in_virtual_time
async def test_shortage_is_retried_soon_after_it_is_over() -> None:
    """Delays grow to five seconds at most, however long it lasts."""
    lives = script({"web.0": short(1000)})
    async with open_simulation(Application([service("web")]), lives) as sim:
        await trio.sleep(2000)
        moments = [moment for moment, _ in sim.events(StartFailed)]
        pauses = [b - a for a, b in pairwise(moments)]
        assert max(pauses) <= 5.0
        assert max(pauses[:3]) <= 0.8


@in_virtual_time
async def test_shortage_of_a_job_that_is_never_restarted_is_retried() -> None:
    job = service("job", restart=RestartPolicy.NEVER)
    lives = script({"job.0": [*short(3), Life(exits_after=1.0)]})
    async with open_simulation(Application([job]), lives) as sim:
        await sim.settle()
        assert len(sim.events(ProcessExited)) == 1


@in_virtual_time
async def test_shortage_restarts_no_group() -> None:
    group = Group([service("a"), service("b")], strategy="one_for_all")
    lives = script({"a.0": [Life(), *short(8)]})
    async with open_simulation(Application([group]), lives) as sim:
        await trio.sleep(1.0)
        other = sim.process("b.0")
        sim.child("a.0").request_restart("by hand")
        await sim.settle()
        assert sim.process("b.0") is other


@in_virtual_time
async def test_scale_into_a_shortage_fails_and_is_undone() -> None:
    lives = script({"web.1": short(1000)})
    async with open_simulation(Application([service("web")]), lives) as sim:
        await trio.sleep(1.0)
        first = sim.process("web.0")
        with pytest.raises(UnavailableError, match=r"web.1 .*Too many open files"):
            await sim.controller.scale({"web": 2})
        assert list(sim.states) == ["web.0"]
        assert sim.process("web.0") is first


@in_virtual_time
async def test_reload_into_a_shortage_fails_and_changes_nothing() -> None:
    lives = script({"web.0/2": short(1000)})
    async with open_simulation(Application([service("web")]), lives) as sim:
        await trio.sleep(1.0)
        first = sim.process("web.0")
        with pytest.raises(ReloadError, match="Too many open files"):
            await sim.controller.reload(Application([service("web", stop_timeout=7.0)]))
        assert sim.process("web.0") is first
        assert not sim.events(ShortageBegan)


@in_virtual_time
async def test_restart_into_a_shortage_fails_and_goes_on() -> None:
    lives = script({"web.0": [Life(), *short(8)]})
    async with open_simulation(Application([service("web")]), lives) as sim:
        await trio.sleep(1.0)
        with pytest.raises(UnavailableError, match="Too many open files"):
            await sim.controller.restart("web")
        await sim.settle()
        assert sim.states["web.0"] is State.READY


@in_virtual_time
async def test_stop_ends_a_shortage() -> None:
    sim: Simulation
    lives = script({"web.0": short(1000)})
    async with open_simulation(Application([service("web")]), lives) as sim:
        await trio.sleep(30.0)
        await sim.controller.stop("web")
        count = len(sim.events(StartFailed))
        await sim.settle()
        assert len(sim.events(StartFailed)) == count
