"""What a child inherits of how signals are handled: nothing, so that it begins as new.

A signal that is ignored stays so across exec(2), in every descendant: a script's
``serve &`` has SIGINT and SIGQUIT ignored, nohup(1) SIGHUP, and a parent written in
another language whatever it likes. A signal that has a handler is not inherited.
"""

from __future__ import annotations

import signal
from collections.abc import Collection
from typing import Final, TypeAlias

Ignored: TypeAlias = Collection[int]
"""Signals that were ignored."""

# Python ignores these itself; `subprocess` has them back at their default in a child.
_PYTHONS: Final = frozenset(
    number
    for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ")
    if (number := getattr(signal, name, None)) is not None
)
# With a handler for one of these, a write to a terminal that asks for it would be tried
# again for ever: tty_check_change() of the kernel.
_OF_TERMINALS: Final = frozenset({signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP})


def ignored_signals() -> frozenset[int]:
    """Return what children would inherit as ignored, but for what Python ignores."""
    return frozenset(
        number
        for number in signal.valid_signals()
        if number not in _PYTHONS and signal.getsignal(number) == signal.SIG_IGN
    )


def begin_with_defaults() -> Ignored:
    """Have children of this process begin with default dispositions and an empty mask.

    What was ignored is ignored here by a handler that does nothing, which no child
    inherits. Of the main thread alone.

    Returns:
        What was ignored: for `restore` before this process executes another
        program in its own place.
    """
    ignored = ignored_signals() - _OF_TERMINALS - {signal.SIGCHLD}
    for number in ignored:
        signal.signal(number, _do_nothing)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return ignored


def restore(ignored: Ignored) -> None:
    """Ignore again what `begin_with_defaults` has returned."""
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def reset_ignored() -> None:
    """Have this process as Python has it where nothing was inherited."""
    for number in ignored_signals():
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _do_nothing(_number: int, _frame: object) -> None:
    """Stand for SIG_IGN."""
