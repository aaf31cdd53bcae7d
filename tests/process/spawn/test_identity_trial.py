"""Test that a user that processes cannot run as is found before a start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.spawn.attributes import ProcessAttributes
from trio_supervisor.process.spawn.identity_trial import refused_identity

pytestmark = pytest.mark.skipif(not IS_LINUX, reason="Linux only")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY = ProcessAttributes(user="nobody")


async def test_own_user_is_not_refused() -> None:
    nothing = ProcessAttributes()
    ours = ProcessAttributes(user=os.geteuid(), group=os.getegid())
    assert await refused_identity(nothing, socket_path="/s") is None
    assert await ours.identity() is None or os.getgroups()


async def test_unknown_user_is_refused() -> None:
    refused = await refused_identity(ProcessAttributes(user="nobdy"), socket_path=None)
    assert refused is not None
    assert str(refused) == (
        "cannot set user='nobdy': unknown user (did you mean 'nobody'?)"
    )


async def test_only_root_may_change_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    refused = await refused_identity(NOBODY, socket_path=None)
    assert refused is not None
    assert refused.option == "user"
    assert refused.reason == (
        "only root may start processes as another user or group; this controller runs "
        "as user 1000"
    )


@needs_root
async def test_root_may_change_the_user() -> None:
    assert await refused_identity(NOBODY, socket_path=None) is None


@needs_root
async def test_worker_has_to_reach_python_and_the_socket(tmp_path: Path) -> None:
    """Which of the two is missing depends on where Python is installed."""
    os.chmod(tmp_path, 0o700)
    refused = await refused_identity(NOBODY, socket_path=str(tmp_path / "s.ipc"))
    assert refused is not None
    assert "user 'nobody' may not e" in refused.reason
