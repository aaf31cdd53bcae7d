"""Which services start with the application."""

from __future__ import annotations

import pytest

from tests.kits.controller import open_simulation, service
from trio_supervisor.application import Application
from trio_supervisor.testing import in_virtual_time


def app(**more: object) -> Application:
    needs = {"db": "started"}
    extra = [service(name, autostart=False) for name in more]
    return Application(
        [
            service("web", depends_on=needs),
            service("db", autostart=False),
            service("tool", autostart=False, count=2),
            *extra,
        ]
    )


@in_virtual_time
async def test_a_service_without_autostart_starts_on_request() -> None:
    """But one that another service depends on starts with that."""
    async with open_simulation(app()) as sim:
        await sim.controller.wait_ready()
        assert sorted(sim.running) == ["db.0", "web.0"]
        await sim.controller.start("tool.1")
        assert sorted(sim.running) == ["db.0", "tool.1", "web.0"]


@pytest.mark.parametrize("changed_only", [True, False])
def test_a_reload_starts_none(changed_only: bool) -> None:
    @in_virtual_time
    async def reload() -> None:
        async with open_simulation(app()) as sim:
            await sim.controller.wait_ready()
            await sim.controller.reload(app(other=1), changed_only=changed_only)
            names = sorted(name.partition("/")[0] for name in sim.running)
            assert names == ["db.0", "web.0"]
            await sim.controller.start("other")
            assert any(name.startswith("other.0") for name in sim.running)

    reload()
