"""Recognise failures for lack of descriptors, processes, memory or disk space.

They do not mean that a worker or a probe is faulty: a limit is reached, and the same
call succeeds later.

Standard library only: the fork server is started before anything else is loaded.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

from trio_supervisor._location import PREFIX

_SHORT: Final = {
    # No memory for the stack of a thread, or the limit of threads is reached.
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
# Messages of dlopen(3) in an ImportError.
_NO_SEGMENT: Final = ("failed to map segment", "cannot allocate memory")
_UNITS: Final = {"RLIMIT_AS": " bytes", "RLIMIT_FSIZE": " bytes"}


class ShortageError(OSError):
    """A call failed for lack of a resource that may be available later."""


def shortage_of(exc: BaseException) -> ShortageError | None:
    """Return the shortage that caused *exc*; None: another cause.

    Its message names the limit of this process that was reached, if there is one.
    """
    for each in _chain(exc):
        if isinstance(each, ShortageError):
            return each
        if (number := _number_of(each)) is not None:
            words = f"{_words_of(each, number)}{_limit_of(number)}"
            return ShortageError(number, words)
    return None


def limit_text(exc: OSError) -> str:
    """Return the message of *exc*, with the limit of this process that was reached.

    The message of another process may contain the limit already.
    """
    short = shortage_of(exc)
    return text_of(exc if short is None or "RLIMIT" in str(exc) else short)


def text_of(exc: OSError) -> str:
    """Return the message of *exc*, without its errno."""
    where = f": {exc.filename}" if exc.filename else ""
    return f"{exc.strerror}{where}" if exc.strerror else str(exc)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield *exc*, the exceptions of a group, and their explicit causes."""
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
            return errno.ENOMEM  # CPython's parser reports lack of memory so
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
    """Return the limits that are the likely cause, if this process has any."""
    try:
        import resource  # an extension module, which may fail to load without memory
    except ImportError:
        return ""
    found = []
    for name in _SHORT[number]:
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            found.append(f"{name}={soft}{_UNITS.get(name, '')}")
    return f" ({', '.join(found)})" if found else ""
