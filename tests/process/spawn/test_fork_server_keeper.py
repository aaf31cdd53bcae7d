"""Test requests to a fork server that exits in the same moment."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from trio_supervisor.process.spawn.fork_server_keeper import ForkServerKeeper


async def test_standby_is_not_requested_of_a_server_that_has_just_exited() -> None:
    """Both of them were killed: this once ended the controller."""
    anything: Any = None
    server: Any = object()
    keeper = ForkServerKeeper(anything, None, anything, anything)
    keeper.control = server
    async with trio.open_nursery() as nursery:
        await keeper.sending.acquire()
        nursery.start_soon(keeper.standby._request)
        await trio.testing.wait_all_tasks_blocked()
        keeper.control = None
        keeper.sending.release()
