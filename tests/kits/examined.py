"""Run the doctor on a process that has a fault, and read what it finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

import tests.kits.faulty_process
from tests.kits.places import ROOT
from trio_supervisor.wire.codec import parse_result
from trio_supervisor.wire.diagnosis import Diagnosis

SOURCE = Path(tests.kits.faulty_process.__file__)
LOOPS = ["trio", "asyncio"]
ALL = [*LOOPS, "sync"]


def line_of(mark: str) -> str:
    """Return ``faulty_process.py:LINE`` of the line with that comment."""
    for number, text in enumerate(SOURCE.read_text().splitlines(), start=1):
        if text.endswith(f"# {mark}"):
            return f"{SOURCE.name}:{number}"
    raise LookupError(mark)


def run_process(backend: str, fault: str) -> dict[str, Any]:
    """Run a process that has *fault*; return its output."""
    process = subprocess.run(
        [sys.executable, "-m", tests.kits.faulty_process.__name__, backend, fault],
        cwd=ROOT,
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert process.returncode == 0, process.stderr.decode()
    fields: dict[str, Any] = orjson.loads(process.stdout)
    return fields


def diagnose(backend: str, fault: str) -> Diagnosis:
    """Return the diagnosis of a process that has *fault*."""
    return parse_result(run_process(backend, fault), Diagnosis)


def kinds(diagnosis: Diagnosis) -> list[str]:
    """Return the kinds of all findings, in order."""
    return [finding.kind for finding in diagnosis.findings]
