"""A process whose main thread is stuck is read all the same, by whichever loop."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.kits.places import ROOT


@pytest.mark.parametrize("stuck", ["spin", "sleep", "deadlock"])
@pytest.mark.parametrize("backend", ["trio", "asyncio", "sync"])
def test_profile_names_hot_line(backend: str, stuck: str) -> None:
    """By the stack, by the running task, and by what waits for what."""
    command = [sys.executable, "-m", "tests.kits.busy_process", backend, stuck]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        process.kill()
    main = found["threads"]["threads"][0]
    assert main["is_main"]
    assert main["frames"][-1]["function"] == stuck
    deadlocks = [set(d["threads"]) for d in found["locks"]["deadlocks"]]
    assert deadlocks == ([{"MainThread", "other"}] if stuck == "deadlock" else [])
    if stuck == "spin":
        assert "spin" in found["hottest"]
    scheduler = found["scheduler"]
    if backend == "sync":
        assert scheduler["data"] == "no event loop"
        return
    assert scheduler["loops"] == [backend]
    (running,) = [t for t in scheduler["tasks"] if t["state"] == "running"]
    frames = scheduler["stacks"][running["stack"]]
    assert frames[0]["function"] == f"run_{backend}"
    assert frames[-1]["function"] == stuck
    assert "patient" in [task["name"] for task in scheduler["tasks"]]
