"""The rehearsal of a worker, in a process of its own as in a fork server."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


@pytest.mark.parametrize("imported", ["", "import anyio._backends._asyncio"])
def test_rehearsal_leaves_nothing_behind(imported: str) -> None:
    program = f"""
        import logging, os, signal, threading
        {imported}
        from trio_supervisor.worker.rehearsal import rehearse

        def left():
            return (
                sorted(os.listdir("/proc/self/fd")),
                os.listdir("/proc/self/task"),
                threading.enumerate(),
                [signal.getsignal(each) for each in signal.valid_signals()],
                signal.set_wakeup_fd(-1),
                signal.pthread_sigmask(signal.SIG_BLOCK, ()),
                os.getpgrp(),
            )

        logging.basicConfig(level=logging.DEBUG)
        before = left()
        rehearse()
        assert left() == before, (before, left())
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert (finished.stdout, finished.stderr) == ("", "")
