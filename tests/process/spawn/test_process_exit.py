"""Exiting real processes without an interpreter teardown."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kits.serving import environment_of_children
from trio_supervisor.process.spawn.process_exit import exit_code

_PROGRAM = """
import atexit, os, sys
from trio_supervisor.process.spawn.process_exit import exit_process
{before}
sys.stdout.write("buffered")
exit_process(7)
"""


def run(before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(before=before)],
        env={**environment_of_children(), "PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "before",
    [
        "",
        "atexit.register(os.write, 1, b'handled ')",
        "atexit.register(sys.exit, 3); atexit.register(os.write, 1, b'handled ')",
        "sys.stderr = None",
        "sys.stderr.close()",
    ],
    ids=["plain", "a handler", "a handler that exits", "no stderr", "closed stderr"],
)
def test_exit_process_runs_handlers_and_flushes(before: str) -> None:
    done = run(before)

    assert done.returncode == 7
    assert done.stdout == ("handled " if "handled" in before else "") + "buffered"


def test_exit_process_does_not_wait_for_threads() -> None:
    """A normal exit of Python would wait for a non-daemon thread."""
    done = run(
        "import threading; threading.Thread(target=threading.Event().wait).start()"
    )

    assert (done.returncode, done.stdout) == (7, "buffered")


@pytest.mark.parametrize(
    ("code", "expected"),
    [(None, 0), (0, 0), (5, 5), (256 + 4, 4), (-1, 255), (2**70, 255), ("x", 1)],
)
def test_exit_code_matches_python(
    code: int | str | None, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(SystemExit(code)) == expected
    assert capsys.readouterr().err == ("x\n" if code == "x" else "")
