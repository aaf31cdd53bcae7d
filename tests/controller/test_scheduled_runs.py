"""Test services that run by a schedule, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_supervisor import Application, Command, Schedule, Service, Worker
from trio_supervisor.errors import UnavailableError
from trio_supervisor.testing import Simulation, in_virtual_time, simulated

Run = Callable[[Worker], Awaitable[None]]


async def serve(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()


class Runs:
    """When each run began and ended, by the clock of the simulation [s]."""

    def __init__(self, length: float = 1.0, code: int = 0) -> None:
        self.length, self.code = length, code
        self.began: list[float] = []
        self.ended: list[float] = []

    async def __call__(self, worker: Worker) -> None:
        self.began.append(trio.current_time())
        await trio.sleep(self.length)
        self.ended.append(trio.current_time())
        if self.code:
            raise SystemExit(self.code)


@asynccontextmanager
async def running(
    runs: Run, *others: Service | Command, **options: Any
) -> AsyncIterator[Simulation]:
    tick = Schedule("tick", ["tick"], **options)
    application = Application([Service("web", serve), *others, tick])
    async with simulated(application, stand_ins={"tick": runs}) as simulation:
        yield simulation


def near(moments: list[float], expected: list[float]) -> bool:
    return len(moments) == len(expected) and all(
        0 <= a - b < 1 for a, b in zip(moments, expected, strict=True)
    )


@in_virtual_time
async def test_runs_begin_at_their_moments() -> None:
    runs = Runs()
    async with running(runs, every=60):
        await trio.sleep(185)
    assert near(runs.began, [60, 120, 180])


@in_virtual_time
async def test_crontab_runs_for_days() -> None:
    runs = Runs()
    async with running(runs, cron="0 3 * * *", timezone="UTC"):
        await trio.sleep(28 * 3600)
    assert near(runs.began, [3 * 3600, 27 * 3600])


@in_virtual_time
async def test_application_is_ready_without_its_scheduled_services() -> None:
    async with running(Runs(code=1), every=60) as simulation:
        await simulation.controller.wait_ready()
        await trio.sleep(70)
        assert simulation.states["tick.0"] == "failed"
        assert simulation.controller.health("readiness").is_ok
        await simulation.controller.wait_ready()


@pytest.mark.parametrize(
    ("overlap", "began", "ended"),
    [
        ("skip", [10, 40], [35]),
        ("queue", [10, 35], [35]),
        ("replace", [10, 20, 30, 40], []),
    ],
)
def test_run_that_is_due_during_another(
    overlap: Any, began: list[float], ended: list[float]
) -> None:
    runs = Runs(length=25)

    @in_virtual_time
    async def play() -> None:
        async with running(runs, every=10, overlap=overlap):
            await trio.sleep(45)
            assert near(runs.began, began)
            assert near(runs.ended, ended)

    play()


@in_virtual_time
async def test_run_that_is_left_out_is_an_event() -> None:
    async with running(Runs(length=15), every=10) as simulation:
        await trio.sleep(25)
        (left_out,) = [e for _, e in simulation.events if e.kind == "run_left_out"]
        assert "overlap='skip'" in str(left_out)


@in_virtual_time
async def test_run_ends_at_its_timeout_and_has_failed() -> None:
    runs = Runs(length=1000)
    async with running(runs, every=60, timeout=20) as simulation:
        await trio.sleep(100)
        assert simulation.states["tick.0"] == "failed"
        (stopped,) = [str(e) for _, e in simulation.events if e.kind == "stopping"]
        assert stopped.startswith("ran for 20 s (timeout of its schedule")
        assert near(runs.began, [60])
        await trio.sleep(40)
        assert near(runs.began, [60, 120])


@in_virtual_time
async def test_failed_run_is_repeated_on_request() -> None:
    runs = Runs(length=1, code=3)
    async with running(runs, every=3600, restart="on-failure", backoff=None):
        await trio.sleep(3605)
        assert len(runs.began) > 2


@in_virtual_time
async def test_start_runs_now_and_stop_pauses() -> None:
    runs = Runs()
    async with running(runs, every=60) as simulation:
        await simulation.controller.start("tick")
        assert near(runs.began, [0])
        await trio.sleep(70)
        await simulation.controller.stop("tick")
        await trio.sleep(200)
        assert near(runs.began, [0, 60])
        (tick,) = [w for w in simulation.controller.workers if w.name == "tick.0"]
        assert tick.schedule is not None
        assert tick.schedule.next_run_at is None
        await simulation.controller.start("tick")
        await trio.sleep(100)
        assert len(runs.began) > 3


@in_virtual_time
async def test_status_has_last_and_next_run() -> None:
    async with running(Runs(length=5, code=7), every=60) as simulation:
        await trio.sleep(62)
        (tick,) = [w for w in simulation.controller.workers if w.name == "tick.0"]
        assert tick.schedule is not None
        assert tick.schedule.last_run_at is None
        await trio.sleep(10)
        (tick,) = [w for w in simulation.controller.workers if w.name == "tick.0"]
        assert tick.schedule is not None
        assert tick.schedule.last_result == "exit code 7"
        assert tick.schedule.last_run_seconds == pytest.approx(5, abs=1)
        assert tick.schedule.next_run_at is not None
        assert tick.schedule.last_run_at is not None
        assert tick.schedule.next_run_at - tick.schedule.last_run_at == pytest.approx(
            60, abs=1
        )


@in_virtual_time
async def test_reload_lets_a_run_end_and_keeps_its_schedule() -> None:
    runs = Runs(length=30)
    async with running(runs, every=60, overlap="queue") as simulation:
        await trio.sleep(65)
        await simulation.controller.reload(simulation.controller.application)
        assert runs.ended == []
        await trio.sleep(35)
        assert near(runs.ended, [90])
        await trio.sleep(30)
        assert near(runs.began, [60, 120])
        names = [w.name for w in simulation.controller.workers]
        assert names == ["web.0", "tick.0"]


@in_virtual_time
async def test_reload_starts_no_run() -> None:
    runs = Runs()
    async with running(runs, every=60) as simulation:
        await trio.sleep(70)
        await simulation.controller.reload(simulation.controller.application)
        await trio.sleep(40)
        assert near(runs.began, [60])


@in_virtual_time
async def test_reload_keeps_a_pause() -> None:
    runs = Runs()
    async with running(runs, every=60) as simulation:
        await simulation.controller.stop("tick")
        await simulation.controller.reload(simulation.controller.application)
        await trio.sleep(200)
        assert runs.began == []


@in_virtual_time
async def test_restart_of_everything_starts_no_run() -> None:
    runs = Runs()
    async with running(runs, every=60) as simulation:
        await simulation.controller.wait_ready()
        await simulation.controller.restart()
        await trio.sleep(30)
        assert runs.began == []


@in_virtual_time
async def test_scheduled_service_is_not_scaled() -> None:
    async with running(Runs(), every=60) as simulation:
        with pytest.raises(UnavailableError, match="has a schedule"):
            await simulation.controller.scale({"tick": 3})


@in_virtual_time
async def test_dependencies_start_with_the_application() -> None:
    runs = Runs()
    db = Service("db", serve, autostart=False)
    async with running(runs, db, every=60, depends_on={"db": "ready"}) as simulation:
        await simulation.controller.wait_ready()
        assert simulation.states["db.0"] == "ready"
        await trio.sleep(70)
    assert near(runs.began, [60])


@in_virtual_time
async def test_shutdown_ends_a_run_and_starts_none() -> None:
    runs = Runs(length=1000)
    async with running(runs, every=10, overlap="queue"):
        await trio.sleep(35)
    assert near(runs.began, [10])


@in_virtual_time
async def test_pattern_ends_a_pause_without_a_run() -> None:
    """As `start --all` does after `stop --all`."""
    runs = Runs()
    async with running(runs, every=60) as simulation:
        await simulation.controller.stop("*")
        await trio.sleep(70)
        await simulation.controller.start("*")
        await trio.sleep(30)
        assert runs.began == []
        await trio.sleep(30)
        assert near(runs.began, [120])
        assert simulation.states["web.0"] == "ready"


@in_virtual_time
async def test_reload_with_another_declaration_lets_a_run_end() -> None:
    """The service is replaced; its run has the old declaration until it ends."""
    runs = Runs(length=30)
    changed = Schedule("tick", ["tick"], every=60, overlap="queue", stop_timeout=5)
    async with running(runs, every=60, overlap="queue") as simulation:
        await trio.sleep(65)
        reloaded = Application([Service("web", serve), changed])
        await simulation.controller.reload(reloaded)
        assert runs.ended == []
        await trio.sleep(35)
        assert near(runs.ended, [90])
        await trio.sleep(30)
        assert near(runs.began, [60, 120])
        (tick,) = [w for w in simulation.controller.workers if w.name == "tick.0"]
        assert tick.generation == 2
