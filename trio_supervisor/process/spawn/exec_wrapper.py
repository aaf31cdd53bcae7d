"""Become a program that finds its sockets as sd_listen_fds(3) says; run by path.

And one that has the default disposition of each signal, which only a process itself can
set.

In between because ``LISTEN_PID`` is the number of a process that is not there before
it is started. Not a shell: one may drop variables whose names it cannot have, add some
of its own, and redirect descriptors of one digit only. Standard library, and as little
of it as can be: this runs before every such program.
"""

from __future__ import annotations

import fcntl
import os
import sys

# SD_LISTEN_FDS_START of sd-daemon.h.
FIRST = 3


def main(arguments: list[str]) -> None:
    """Put descriptors in their places and become the program; never returns.

    Args:
        arguments: A pipe that is told the errno of a failure; the descriptors in
            order, with commas; what LC_CTYPE was, as ``=VALUE``, or ``-``; and the
            command.
    """
    report, sources, locale, *command = arguments
    # Out of the way of the places; all of these are closed by exec.
    numbers = [int(source) for source in sources.split(",") if source]
    first_free = FIRST + len(numbers)
    pipe = fcntl.fcntl(int(report), fcntl.F_DUPFD_CLOEXEC, first_free)
    try:
        moved = [
            fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, first_free) for number in numbers
        ]
        for number in {int(report), *numbers}:
            os.close(number)
        for place, source in enumerate(moved, FIRST):
            os.dup2(source, place, inheritable=True)
        if numbers:
            os.environ["LISTEN_PID"] = str(os.getpid())
        _restore_locale(locale)
        _restore_signals()
        os.execvp(command[0], command)
    except OSError as exc:
        os.write(pipe, str(exc.errno).encode())
        os._exit(127)


def _restore_locale(locale: str) -> None:
    """Undo PEP 538: in the C locale Python sets LC_CTYPE for its children, too."""
    if locale == "-":
        os.environ.pop("LC_CTYPE", None)
    else:
        os.environ["LC_CTYPE"] = locale[1:]


def _restore_signals() -> None:
    import signal

    # What Python ignores, and what whoever started us did.
    for number in signal.valid_signals():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main(sys.argv[1:])
