"""Test blocks of ours that are cancelled or interrupted at any point."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kits.places import ROOT
from tests.kits.serving import environment_of_children

# `nox -s cancellations` tries all points.
POINTS = {"controller": 12, "imported": 3, "client": 15, "worker": 15}


@pytest.mark.parametrize("how", ["cancel", "interrupt"])
@pytest.mark.parametrize("subject", POINTS)
def test_interrupted_block_leaves_nothing(subject: str, how: str) -> None:
    """No process, zombie, thread, task, descriptor, file or directory is left."""
    words = [subject, how, f":{POINTS[subject]}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.kits.interruptions", *words],
        cwd=ROOT,
        env=environment_of_children(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    assert len(done.stdout.splitlines()) >= POINTS[subject]
