"""Test the fixtures with real processes, also where a test leaves something behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.kits.places import ROOT
from tests.kits.serving import environment_of_children

TESTS = """
import os, subprocess, sys
import pytest, trio
from trio_supervisor import Application, Service
from targets import work

async def test_chaos(controller, chaos):
    async with controller(Application([Service("web", work, count=2)])) as running:
        with trio.fail_after(60):
            await running.wait_ready()
            for _ in range(4):
                await chaos.strike(running)
            await running.wait_ready()
    assert len(chaos.deeds) >= 1

async def test_fails(controller):
    async with controller(Application([Service("web", work)])) as running:
        await running.wait_ready()
        raise LookupError("no such table")

@pytest.mark.chaos(seed=7)
def test_seed(chaos):
    assert chaos.seed == 7

def test_leaves_process(controller):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])

def test_leaves_descriptor(controller):
    os.pipe()
"""
TARGETS = """
async def work(worker):
    await worker.ready()
    await worker.stopping.wait()
"""


def test_fixtures_end_everything_and_name_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "targets.py").write_text(TARGETS)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    environment = {**environment_of_children(), "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    plugin = "trio_supervisor.pytest_plugin"

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-W", "ignore", str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    output = done.stdout + done.stderr
    assert plugin not in output, output  # no warning about it
    for name in ("test_chaos", "test_seed"):
        assert f"PASSED test_it.py::{name}" in output, output
    assert "FAILED test_it.py::test_fails" in output
    assert "no such table" in output
    process = "test_it.py::test_leaves_process left behind: process "
    descriptor = "test_it.py::test_leaves_descriptor left behind: descriptor "
    assert process in output
    assert descriptor in output
    assert "repeat with @pytest.mark.chaos(seed=" in output
