"""Failures of system calls for lack of descriptors, processes, memory or space.

They say nothing about the worker that was to be started, or the process that was to be
probed: a limit is reached, and the same call succeeds once that is over.

Standard library only: the fork server is started before anything else is loaded.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

from trio_supervisor._location import PREFIX

_SHORT: Final = {
    # Of a thread: its stack has no room, or there may be no more of them.
    errno.EAGAIN: ("RLIMIT_NPROC", "RLIMIT_AS"),
    errno.ENOMEM: ("RLIMIT_AS",),
    errno.EMFILE: ("RLIMIT_NOFILE",),
    errno.ENFILE: (),
    errno.ENOBUFS: (),
    errno.ETOOMANYREFS: (),
    errno.ENOSPC: (),
    errno.EDQUOT: (),
    errno.EFBIG: ("RLIMIT_FSIZE",),
}
_NO_THREAD: Final = ("can't start new thread", "unable to start watchdog thread")
# Of dlopen(3), as an ImportError has it.
_NO_SEGMENT: Final = ("failed to map segment", "cannot allocate memory")
_UNITS: Final = {"RLIMIT_AS": " bytes", "RLIMIT_FSIZE": " bytes"}


class ShortageError(OSError):
    """A call failed for lack of something that this process may have more of later."""


def shortage_of(exc: BaseException) -> ShortageError | None:
    """Return the shortage behind *exc*; None: it is something else.

    Its message names the limit of this process that was reached, where there is one.
    """
    for each in _chain(exc):
        if isinstance(each, ShortageError):
            return each
        if (number := _number_of(each)) is not None:
            words = f"{_words_of(each, number)}{_limit_of(number)}"
            return ShortageError(number, words)
    return None


def limit_text(exc: OSError) -> str:
    """Return what *exc* says, with the limit of this process that was reached.

    Another process may have said that already.
    """
    short = shortage_of(exc)
    return text_of(exc if short is None or "RLIMIT" in str(exc) else short)


def text_of(exc: OSError) -> str:
    """Return *exc* for a message: without its number where it has words."""
    where = f": {exc.filename}" if exc.filename else ""
    return f"{exc.strerror}{where}" if exc.strerror else str(exc)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Return *exc*, all that it groups, and its explicit causes."""
    yield exc
    if isinstance(exc, BaseExceptionGroup):
        for each in exc.exceptions:
            yield from _chain(each)
    if exc.__cause__ is not None:
        yield from _chain(exc.__cause__)


def _number_of(exc: BaseException) -> int | None:
    match exc:
        case OSError(errno=int(number)) if number in _SHORT:
            return number
        case MemoryError():
            return errno.ENOMEM
        case RuntimeError() if str(exc) in _NO_THREAD:
            return errno.EAGAIN
        case SyntaxError(filename=str(path)) if path.startswith(PREFIX):
            return errno.ENOMEM  # CPython's parser: it had no memory
        case ImportError() if any(t in str(exc).lower() for t in _NO_SEGMENT):
            return errno.ENOMEM
    return None


def _words_of(exc: BaseException, number: int) -> str:
    if isinstance(exc, OSError) and (exc.strerror or exc.args):
        return text_of(exc)
    if isinstance(exc, RuntimeError):
        return "cannot start a thread"
    return os.strerror(number)


def _limit_of(number: int) -> str:
    """Return the limits that are the likely cause, where this process has any."""
    try:
        import resource  # an extension module: there may be no memory for it
    except ImportError:
        return ""
    found = []
    for name in _SHORT[number]:
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            found.append(f"{name}={soft}{_UNITS.get(name, '')}")
    return f" ({', '.join(found)})" if found else ""
