"""Test the figures of generations that are kept for a comparison."""

from __future__ import annotations

import os

import pytest

from tests.kits.controller import NEVER, Life, open_simulation, script, service
from trio_supervisor.application import Application
from trio_supervisor.controller.controller import core_of
from trio_supervisor.controller.fleet import generation_figures
from trio_supervisor.controller.fleet.generation_figures import measured
from trio_supervisor.errors import ReloadError
from trio_supervisor.testing import in_virtual_time


@in_virtual_time
async def test_measured_has_each_worker_of_the_generation() -> None:
    """One without a process has a name only."""
    application = Application([service("web"), service("off", autostart=False)])
    async with open_simulation(application) as sim:
        await sim.controller.wait_ready()
        generation = core_of(sim.controller).generation
        generation.import_seconds = 0.5
        figures = await measured(generation)
    assert (figures.number, figures.import_seconds) == (1, 0.5)
    web, off = figures.workers
    assert (web.name, web.service, web.start_seconds) == ("web.0", "web", 0.25)
    assert web.process_id is not None
    assert web.uptime is not None
    assert web.memory is web.descriptors is None, "there is no such process"
    assert off.name == "off.0"
    assert off.process_id is off.uptime is off.start_seconds is None


@in_virtual_time
async def test_reload_keeps_figures_of_previous_generation() -> None:
    """A reload that fails keeps those from before."""
    bad = Life(ready_after=NEVER, exits_after=1.0, returncode=1)
    lives = script({"bad.0/3": [bad] * 9})
    async with open_simulation(Application([service("web")]), lives) as sim:
        await sim.controller.wait_ready()
        reloader = core_of(sim.controller).reloader
        assert reloader.previous is None
        await sim.controller.reload(Application([service("web", count=2)]))
        assert reloader.previous is not None
        assert reloader.previous.number == 1
        assert [w.name for w in reloader.previous.workers] == ["web.0"]
        with pytest.raises(ReloadError):
            await sim.controller.reload(Application([service("bad")]))
        assert reloader.previous.number == 1
        await sim.controller.reload(Application([service("web")]))
        assert reloader.previous.number == 2


def test_usage_and_descriptors_of_a_real_process() -> None:
    """None of one that has exited."""
    usage = generation_figures._usage_of(os.getpid())
    assert usage is not None
    assert usage.rss > 2**20
    assert usage.threads >= 1
    count = generation_figures._descriptors_of(os.getpid())
    assert count is not None
    assert count >= 3
    assert generation_figures._usage_of(10_000_000) is None
    assert generation_figures._descriptors_of(10_000_000) is None
