"""Test that a child is found that was in the middle of execve(2) at first."""

from __future__ import annotations

import os
import subprocess

import pytest
import trio

from trio_supervisor.process.cleanup import escaped
from trio_supervisor.process.cleanup.stopping import StopDeadline, StopPlan
from trio_supervisor.process.groups import has_variable
from trio_supervisor.process.kernel import child_pids


def test_child_in_the_middle_of_execve_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = child_pids()
    mark = f"TEST_MARK={os.urandom(8).hex()}"
    name, value = mark.split("=")
    looks = 0

    def has_environment(_: int) -> bool:
        nonlocal looks
        looks += 1
        return looks > 3

    def shows(pid: int, variable: bytes) -> bool:
        return looks > 3 and has_variable(pid, variable)

    monkeypatch.setattr(escaped, "has_environment", has_environment)
    monkeypatch.setattr(escaped, "has_variable", shows)
    with subprocess.Popen(["sleep", "1000"], env={**os.environ, name: value}) as child:
        plan = StopPlan(timeout=5)
        try:
            ended = trio.run(escaped.stop_escaped, [mark], before, plan, StopDeadline())
        finally:
            child.kill()
        assert list(ended) == [child.pid]
