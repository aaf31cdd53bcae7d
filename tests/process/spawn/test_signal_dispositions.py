"""Children start with default dispositions and an empty mask, whatever we inherited."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from trio_supervisor.process.spawn.exec import spawn_exec
from trio_supervisor.process.spawn.signal_dispositions import (
    begin_with_defaults,
    ignored_signals,
    restore,
)

SHOW = ["sh", "-c", "grep -E 'Sig(Blk|Ign)' /proc/self/status"]
_OF_GLIBC = 1 << (32 - 1) | 1 << (33 - 1)
INHERITED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTTOU)

EMBEDDED = f"""
import json, os, signal, sys, trio
from trio_supervisor.process.spawn.exec import spawn_exec

async def main():
    read, write = os.pipe()
    process = await spawn_exec({SHOW!r}, environment=os.environ, stdout=write)
    code = await process.wait()
    os.close(write)
    print(json.dumps([code, os.read(read, 4096).decode()]))

signal.signal(signal.SIGQUIT, signal.SIG_IGN)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
signal.signal(signal.SIGRTMIN, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
trio.run(main)
"""


def fields(text: str) -> dict[str, int]:
    """Return the masks of /proc/PID/status.

    Without the two signals that glibc keeps for itself: its posix_spawn(3), by which
    Python 3.13 starts a process, has them ignored, and nobody can change that.
    """
    lines = [line.split(":") for line in text.splitlines()]
    return {name: int(mask, 16) & ~_OF_GLIBC for name, mask in lines}


def test_children_of_signal_ignoring_program_ignore_none() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED], capture_output=True, text=True, check=True
    )
    code, text = json.loads(done.stdout)
    assert code == 0
    assert fields(text) == {"SigBlk": 0, "SigIgn": 0}


async def test_missing_program_is_reported_with_ignored_signals() -> None:
    old = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    try:
        with pytest.raises(FileNotFoundError):
            await spawn_exec(["./no-such-program"], environment={})
    finally:
        signal.signal(signal.SIGQUIT, old)


def test_begin_with_defaults_keeps_ignored_signals_here_only() -> None:
    before = {number: signal.getsignal(number) for number in INHERITED}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        for number in INHERITED:
            signal.signal(number, signal.SIG_IGN)
        ignored = begin_with_defaults()
        assert set(ignored) == set(INHERITED) - {signal.SIGTTOU}
        # SIGTTOU, sent for a write from the background, stays ignored.
        assert ignored_signals() == {signal.SIGTTOU}
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGQUIT)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        restore(ignored)
        assert ignored_signals() == set(INHERITED)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
