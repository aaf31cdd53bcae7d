"""How a process of ours ends without taking the interpreter apart.

That would touch every page which a forked child shares with its fork server, and take a
tenth of the time of a short command.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn


def exit_process(code: int, finish: Callable[[], object] | None = None) -> NoReturn:
    """Run exit handlers, write what is buffered, and end this process with *code*.

    Args:
        code: Negative: the signal that is to end it.
        finish: Called between; no signal interrupts it but SIGKILL.
    """
    try:
        with suppress(Exception):
            atexit._run_exitfuncs()
    finally:  # whatever an exit handler raises, or a signal
        _exit_process(code, finish)


def _exit_process(code: int, finish: Callable[[], object] | None) -> NoReturn:
    try:
        if finish is not None:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            with suppress(Exception):
                finish()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # nobody reads any more, or there is none
                stream.flush()
        if code < 0:
            signal.signal(-code, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [-code])
            os.kill(os.getpid(), -code)
    finally:
        os._exit(code & 0xFF)


def call_excepthook(exc: BaseException) -> None:
    """Report *exc* as Python reports what nothing has caught."""
    try:
        sys.excepthook(type(exc), exc, exc.__traceback__)
    except BaseException:
        with suppress(Exception):
            sys.__excepthook__(type(exc), exc, exc.__traceback__)


def exit_code(exc: SystemExit) -> int:
    """Return the code that Python would exit with; print what it would print."""
    if exc.code is None:
        return 0
    if isinstance(exc.code, int):
        # What no C long holds is an error, as for Python itself.
        return exc.code & 0xFF if -(2**63) <= exc.code < 2**63 else 255
    with suppress(Exception):
        print(exc.code, file=sys.stderr)
    return 1
