"""How a process of ours ends without taking the interpreter apart.

That would touch every page which a forked child shares with its fork server, and take a
tenth of the time of a short command.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """Run exit handlers, write what is buffered, and end this process with *code*."""
    try:
        with suppress(Exception):
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # nobody reads any more, or there is none
                stream.flush()
    finally:  # whatever an exit handler raises, or a signal
        os._exit(code)


def exit_code(exc: SystemExit) -> int:
    """Return the code that Python would exit with; print what it would print."""
    if exc.code is None:
        return 0
    if isinstance(exc.code, int):
        return exc.code & 0xFF
    with suppress(Exception):
        print(exc.code, file=sys.stderr)
    return 1
