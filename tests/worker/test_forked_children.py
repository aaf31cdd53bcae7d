"""Processes that a worker forks end by its stop signals, from their first moment on."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

_FORKS = """
import os, signal, sys, threading, time
from trio_supervisor.worker.forked_children import end_forked_children_by

def handler(*_):
    pass

def other(*_):
    os._exit(7)

signal.signal(signal.SIGTERM, handler)
signal.signal(signal.SIGUSR1, handler)
end_forked_children_by({signal.SIGTERM, signal.SIGUSR1}, handler)
%s

def fork_and_end(number):
    for _ in range(30):
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        os.kill(pid, number)
        codes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

codes = set()
%s
print(codes, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


def run(before: str, do: str) -> str:
    program = _FORKS % (before, do)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    ).stdout


@pytest.mark.parametrize(
    ("before", "do", "expected"),
    [
        pytest.param("", "fork_and_end(signal.SIGTERM)", "{-15} set()", id="SIGTERM"),
        pytest.param("", "fork_and_end(signal.SIGUSR1)", "{-10} set()", id="another"),
        pytest.param(
            "",
            "t = threading.Thread(target=fork_and_end, args=(signal.SIGTERM,))\n"
            "t.start(); t.join()",
            "{-15} set()",
            id="forked by a thread",
        ),
        pytest.param(
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])",
            "fork_and_end(signal.SIGTERM)",
            "{-15} {<Signals.SIGUSR2: 12>}",
            id="the mask stays",
        ),
        pytest.param(
            "signal.signal(signal.SIGTERM, other)",
            "pid = os.fork()\n"
            "if pid == 0: os.kill(os.getpid(), signal.SIGTERM)\n"
            "codes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
            "{7} set()",
            id="a handler of the target stays",
        ),
    ],
)
def test_signal_right_after_fork_terminates_child(
    before: str, do: str, expected: str
) -> None:
    assert run(before, do).strip() == expected
