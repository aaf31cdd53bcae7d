"""What a process says of a supervisor that it cannot register at."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from trio_supervisor.testing import in_virtual_time
from trio_supervisor.worker import registration
from trio_supervisor.worker.registration import Registration


@in_virtual_time
async def test_unreachable_supervisor_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    async def refuse(path: str) -> trio.abc.Stream:
        nonlocal tries
        tries += 1
        await trio.lowlevel.checkpoint()
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(registration, "connect_unix", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with trio.move_on_after(10):
        await Registration("/run/s.ipc", "web.0", dict, lambda call: {}).run()
    assert tries > 5
    assert caplog.messages == [
        "web.0 is not registered: user 1000 cannot connect to /run/s.ipc "
        "(Permission denied); declare the user of its service instead of changing it "
        "in the worker (user=1000); retrying"
    ]
