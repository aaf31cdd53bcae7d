"""Heap dumps, in a process of its own: that of all other tests has too many objects."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kits.places import KITS, ROOT

CASES = KITS / "heap_dump_cases.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_heap_dumps() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", CASES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
