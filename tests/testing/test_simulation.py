"""Test that a simulated application behaves as a real one, and is hurt as one."""

from __future__ import annotations

import errno
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from trio_supervisor import (
    Application,
    Command,
    NoSuchWorkerError,
    ReloadError,
    Service,
    SpecError,
    SyncWorker,
    Worker,
)
from trio_supervisor.testing import (
    SimulatedProcess,
    Simulation,
    StartFault,
    in_virtual_time,
    simulated,
)

LINES = list[str]()
"""What workers did."""


async def careful(worker: Worker) -> None:
    """Have a child task, a shielded wait and blocks that should run at the end."""
    await worker.ready()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_background)
            with trio.CancelScope(shield=True):
                await worker.stopping.wait()
            LINES.append("told to stop")
            nursery.cancel_scope.cancel()
    finally:
        LINES.append("finally")


async def in_background() -> None:
    try:
        while True:
            await trio.sleep(1)
            LINES.append("tick")
    finally:
        LINES.append("child's finally")


def blocking(worker: SyncWorker) -> None:
    worker.ready()


APPLICATION = Application(
    [Service("web", careful, count=2), Command("redis", ["redis-server"])]
)
READY = {"web.0": "ready", "web.1": "ready", "redis.0": "ready"}


def running(simulation: Simulation, name: str) -> SimulatedProcess:
    """The process of a worker that has one."""
    process = simulation.process(name)
    assert process is not None
    return process


@pytest.fixture(autouse=True)
def no_lines() -> None:
    LINES.clear()


@in_virtual_time
async def test_shutdown_runs_each_target_to_its_end() -> None:
    async with simulated(APPLICATION) as simulation:
        await simulation.controller.wait_ready()
        assert simulation.states == READY
    assert LINES.count("finally") == LINES.count("child's finally") == 2
    assert simulation.processes == ()


@in_virtual_time
async def test_killed_process_runs_no_more_line() -> None:
    """Neither its tasks, nor behind a shield, nor finally; the next one is ready."""
    async with simulated(APPLICATION) as simulation:
        await simulation.controller.wait_ready()
        LINES.clear()
        for name in ("web.0", "web.1"):
            simulation.kill(name)
        assert LINES == []
        await trio.sleep(0.5)
        assert simulation.states == READY
        assert LINES == []
        codes = [p.boot.incarnation for p in simulation.processes]
        assert codes.count(2) == 2


def test_killed_process_finishes_no_generator() -> None:
    """Not at the end of the run either, when trio closes those that are left."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        try:
            yield
        finally:
            LINES.append("closed")

    async def holding(worker: Worker) -> None:
        async with opened():
            await worker.ready()
            await trio.sleep_forever()

    @in_virtual_time
    async def run() -> None:
        async with simulated(Application([Service("web", holding)])) as simulation:
            await simulation.controller.wait_ready()
            simulation.kill("web.0")
            await trio.sleep(1)
            assert simulation.states["web.0"] == "ready"

    run()
    assert LINES == ["closed"]  # of the second process, which is stopped


@in_virtual_time
async def test_stopped_process_goes_on_where_it_was() -> None:
    async with simulated(APPLICATION) as simulation:
        await simulation.controller.wait_ready()
        await simulation.controller.stop("web.1")
        process = running(simulation, "web.0")
        process.signal(signal.SIGSTOP)
        LINES.clear()
        await trio.sleep(5.5)
        assert LINES == []
        process.signal(signal.SIGCONT)
        await trio.sleep(5)
        assert LINES.count("tick") >= 5
        assert running(simulation, "web.0") is process


@in_virtual_time
async def test_frozen_process_can_be_killed() -> None:
    async with simulated(APPLICATION) as simulation:
        await simulation.controller.wait_ready()
        simulation.process("web.0").hang()  # type: ignore[union-attr]
        await trio.sleep(3)
        LINES.clear()
        simulation.kill("web.0")
        await trio.sleep(0.5)
        assert "finally" not in LINES
        assert simulation.states == READY


@in_virtual_time
async def test_hanging_worker_is_replaced_by_its_health_check() -> None:
    async with simulated(APPLICATION) as simulation:
        await simulation.controller.wait_ready()
        simulation.hang("web.0")
        await trio.sleep(60)
        assert running(simulation, "web.0").boot.incarnation == 2
        texts = [str(event) for _, event in simulation.events if event.name == "web.0"]
        assert any("health_check_timeout" in text for text in texts)
        assert "finally" not in LINES


@in_virtual_time
async def test_worker_goes_on_after_a_short_hang() -> None:
    async with simulated(APPLICATION) as simulation:
        await simulation.controller.wait_ready()
        process = running(simulation, "web.0")
        simulation.hang("web.0")
        await trio.sleep(5)
        simulation.wake("web.0")
        await trio.sleep(60)
        assert running(simulation, "web.0") is process


@in_virtual_time
async def test_bad_starts_happen_once_each() -> None:
    faults = [
        StartFault(error=OSError(errno.EAGAIN, "no fork")),
        StartFault(delay=7),
        StartFault(is_never_ready=True),
    ]
    async with simulated(APPLICATION) as simulation:
        await simulation.controller.wait_ready()
        for fault in faults:
            simulation.fail_start("web.0", fault)
        simulation.kill("web.0")
        await trio.sleep(5)
        assert simulation.states["web.0"] == "starting"
        await trio.sleep(5)
        assert simulation.states["web.0"] == "ready"
        simulation.crash("web.0", 3)
        await trio.sleep(30)
        assert simulation.states["web.0"] == "starting"
        await trio.sleep(60)
        assert simulation.states["web.0"] == "ready"


@in_virtual_time
async def test_supervisor_is_replaced_and_workers_go_on() -> None:
    async with simulated(APPLICATION) as simulation:
        await simulation.controller.wait_ready()
        before = simulation.processes
        simulation.kill_supervisor()
        await trio.sleep(5)
        assert len(simulation.servers) == 2
        assert simulation.processes == before


@in_virtual_time
async def test_failed_reload_leaves_all_as_it_was() -> None:
    async with simulated(APPLICATION) as simulation:
        controller = simulation.controller
        await controller.wait_ready()
        before = simulation.processes
        simulation.fail_reload()
        with pytest.raises((ReloadError, SpecError)):
            await controller.reload(APPLICATION)
        assert simulation.processes == before
        await controller.reload(APPLICATION)
        await trio.sleep(20)
        generations = {p.name: p.boot.generation for p in simulation.processes}
        assert generations == {"web.0": 2, "web.1": 2, "redis.0": 1}  # it is kept


@in_virtual_time
async def test_suspended_host_stops_no_healthy_worker() -> None:
    async with simulated(APPLICATION) as simulation:
        await simulation.controller.wait_ready()
        before = simulation.processes
        simulation.suspend(3600)
        await trio.sleep(60)
        assert simulation.processes == before


@in_virtual_time
async def test_targets_end_with_their_code() -> None:
    async def exits(worker: Worker) -> None:
        await worker.ready()
        raise SystemExit(3)

    async def fails(worker: Worker) -> None:
        await worker.ready()
        raise LookupError("no such table")

    services = [
        Service("exits", exits, restart="never"),
        Service("fails", fails, restart="never"),
    ]
    async with simulated(Application(services)) as simulation:
        await trio.sleep(5)
        exits_of = {r.name: r.last_exit for r in simulation.controller.workers}
        assert "code 3" in str(exits_of["exits.0"])
        assert "code 1" in str(exits_of["fails.0"])


@in_virtual_time
async def test_error_in_the_block_comes_out_as_it_is() -> None:
    async def fail() -> None:
        async with simulated(APPLICATION) as simulation:
            simulation.hang("web.0")
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    with trio.move_on_after(5) as scope:
        async with simulated(APPLICATION) as simulation:
            simulation.hang("web.0")
            await trio.sleep_forever()
    assert scope.cancelled_caught


@in_virtual_time
async def test_other_backends_need_a_stand_in() -> None:
    application = Application([Service("sync", blocking, backend="sync")])
    with pytest.raises(SpecError, match=r"stand_ins=\{'sync': an async function\}"):
        async with simulated(application):
            pass
    async with simulated(application, stand_ins={"sync": careful}) as simulation:
        await simulation.controller.wait_ready()


@in_virtual_time
async def test_unknown_worker_is_refused() -> None:
    async with simulated(APPLICATION) as simulation:
        with pytest.raises(NoSuchWorkerError, match=r"no worker web\.7"):
            simulation.kill("web.7")


async def test_real_time_is_refused() -> None:
    with pytest.raises(RuntimeError, match="@in_virtual_time"):
        async with simulated(APPLICATION):
            pass
