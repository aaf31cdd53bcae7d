"""Reset signal dispositions, so that children do not inherit ignored signals.

A signal that is ignored stays ignored across exec(2), in every descendant. A shell
script ignores SIGINT and SIGQUIT for ``serve &``, nohup(1) ignores SIGHUP, and a parent
in another language may ignore others. Signal handlers are not inherited.
"""

from __future__ import annotations

import signal
from collections.abc import Collection
from typing import Final, TypeAlias

Ignored: TypeAlias = Collection[int]
"""Signals that were ignored."""

# Python ignores these itself; `subprocess` resets them in a child.
_PYTHONS: Final = frozenset(
    number
    for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ")
    if (number := getattr(signal, name, None)) is not None
)
# With a handler for one of these, a write that changes a terminal's settings from the
# background would be restarted forever: tty_check_change() of the kernel.
_OF_TERMINALS: Final = frozenset({signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP})


def ignored_signals() -> frozenset[int]:
    """Return the signals that children would inherit as ignored."""
    return frozenset(
        number
        for number in signal.valid_signals()
        if number not in _PYTHONS and signal.getsignal(number) == signal.SIG_IGN
    )


def begin_with_defaults() -> Ignored:
    """Start children with default dispositions and an empty signal mask from now on.

    Ignored signals get a handler that does nothing, which children do not inherit. Call
    it in the main thread.

    Returns:
        The signals that were ignored, for `restore` before this process replaces itself
        with another program.
    """
    ignored = ignored_signals() - _OF_TERMINALS - {signal.SIGCHLD}
    for number in ignored:
        signal.signal(number, _do_nothing)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return ignored


def restore(ignored: Ignored) -> None:
    """Ignore the signals again that `begin_with_defaults` has returned."""
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def reset_ignored() -> None:
    """Reset this process to Python's dispositions without inherited ones."""
    for number in ignored_signals():
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _do_nothing(_number: int, _frame: object) -> None:
    """Stand for SIG_IGN."""
