"""Test the live view, on a terminal of 80 columns that is simulated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from tests.kits.serving import PATIENCE
from tests.kits.top_snapshots import FakeTopClient, top_snapshot, top_worker
from trio_supervisor.cli.top.app import TopApp
from trio_supervisor.cli.top.screens import ConfirmDialog, OutputPane
from trio_supervisor.errors import NoSupervisorError

TWO = top_snapshot(top_worker("web.0"), top_worker("web.1"), top_worker("db.0"))


def run(
    client: FakeTopClient, use: Callable[[TopApp, Pilot[None]], Awaitable[None]]
) -> None:
    """Run the view, and *use* it."""

    async def main() -> None:
        app = TopApp(client, "/run/a.ipc", 0.3)
        async with app.run_test(size=(80, 24)) as pilot:
            await use(app, pilot)

    asyncio.run(main())


async def until(pilot: Pilot[None], is_true: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not is_true():
            await pilot.pause(0.01)


def shown(app: TopApp) -> list[str]:
    """Return the names in the table."""
    table = app.screen_stack[0].query_one("#table", DataTable)
    rows = [table.get_row_at(number) for number in range(table.row_count)]
    return [str(row[0]).strip() for row in rows]


def text(app: TopApp, selector: str) -> str:
    return str(app.screen.query_one(selector, Static).render())


def test_table_shows_workers_and_is_refreshed() -> None:
    client = FakeTopClient(TWO)

    async def use(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: shown(app) == ["web", "web.0", "web.1", "db.0"])
        assert "3 workers, 3 ready; sort: name" in text(app, "#header")
        client.answer = top_snapshot(top_worker("db.0"))
        await until(pilot, lambda: shown(app) == ["db.0"])

    run(client, use)


def test_selection_follows_the_worker() -> None:
    client = FakeTopClient(TWO)

    async def use(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: shown(app))
        await pilot.press("down", "down", "down")
        client.answer = top_snapshot(top_worker("aa.0"), *TWO.workers)
        await until(pilot, lambda: "aa.0" in shown(app))
        await pilot.press("t")
        assert client.started == [("thread-dump", "db.0")]

    run(client, use)


def test_sort_and_filter() -> None:
    async def use(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: shown(app))
        await pilot.press("s")
        await until(pilot, lambda: shown(app) == ["web.0", "web.1", "db.0"])
        await pilot.press("slash", "d", "b", "enter")
        await until(pilot, lambda: shown(app) == ["db.0"])
        assert "sort: cpu; filter: db" in text(app, "#header")
        await pilot.press("escape")
        await until(pilot, lambda: len(shown(app)) == 3)

    run(FakeTopClient(TWO), use)


def test_restart_asks_first() -> None:
    client = FakeTopClient(TWO)

    async def use(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: shown(app))
        for answer in ("n", "escape", "y"):
            await pilot.press("down", "r")
            await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
            assert client.started == []
            await pilot.press(answer)
            await until(pilot, lambda: not isinstance(app.screen, ConfirmDialog))
        await until(pilot, lambda: client.started == [("restart", "db.0")])

    run(client, use)


def test_scaling_up_twice_waits_for_the_first() -> None:
    client = FakeTopClient(TWO, is_slow=True)

    async def use(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: shown(app))
        await pilot.press("plus", "plus")
        assert client.started == [("scale", "web=3")]
        client.verbs[0].may_exit.set()
        while len(client.started) < 2:
            await pilot.press("plus")
        client.verbs[1].may_exit.set()

    run(client, use)


def test_pane_shows_output_without_markup() -> None:
    client = FakeTopClient(TWO, code=1, output="[bold]1 problem[/bold] found\n" * 50)

    async def use(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: shown(app))
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, OutputPane))
        await until(pilot, lambda: "exit code 1" in text(app, "#title"))
        assert text(app, "#output").startswith("[bold]1 problem[/bold] found")
        await pilot.press("end", "home", "q")
        await until(pilot, lambda: not isinstance(app.screen, OutputPane))

    run(client, use)


def test_closing_the_pane_kills_the_verb() -> None:
    client = FakeTopClient(TWO, is_slow=True)

    async def use(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: shown(app))
        await pilot.press("d")
        await until(pilot, lambda: client.verbs)
        await pilot.press("escape")
        await until(pilot, lambda: client.verbs[0].is_killed)

    run(client, use)


def test_lost_supervisor_is_awaited() -> None:
    client = FakeTopClient(NoSupervisorError("no supervisor answers at \x1b"))

    async def use(app: TopApp, pilot: Pilot[None]) -> None:
        await until(
            pilot, lambda: "not connected; trying again" in text(app, "#header")
        )
        assert r"no supervisor answers at \x1b" in text(app, "#header")
        await pilot.press("r", "t")
        assert client.started == []
        client.answer = TWO
        await until(pilot, lambda: "3 workers" in text(app, "#header"))
        client.answer = NoSupervisorError("gone")
        await until(pilot, lambda: "(last seen 0 s ago)" in text(app, "#header"))

    run(client, use)


def test_narrow_and_wide_terminals() -> None:
    async def use(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: shown(app))
        for width in (20, 200):
            await pilot.resize_terminal(width, 10)
            await until(pilot, lambda: len(shown(app)) == 4)

    run(FakeTopClient(TWO), use)


def test_q_quits() -> None:
    async def use(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)

    run(FakeTopClient(TWO), use)
