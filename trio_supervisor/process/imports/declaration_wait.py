"""Wait for what an import declares, and say where it is while it takes long.

The import runs in a fork server, or in a process of its own where there is none. It may
hang, exit, crash or close whatever it finds: here that is a `TargetError` that names
the line, and the caller ends the process.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, repeat
from typing import Final

import trio

from trio_supervisor.errors import PlatformError, TargetError
from trio_supervisor.process.child import describe_exit
from trio_supervisor.process.groups import open_descriptor, read_stat
from trio_supervisor.process.imports.declaration import (
    MAX_ANSWER,
    Declared,
    read_answer,
)
from trio_supervisor.process.imports.import_report import last_place, read_report
from trio_supervisor.process.shortage import limit_text
from trio_supervisor.process.spawn.code_source import is_path, shown_path, split_target
from trio_supervisor.process.spawn.fork_server_protocol import (
    DECLARED,
    FAILED,
    StartedServer,
    kill_server,
)
from trio_supervisor.tasks import open_nursery

logger = logging.getLogger(__name__)

IMPORT_TIMEOUT: Final = 120.0
"""An import that takes longer is given up, unless the operator says otherwise [s]."""
# When a line says where an import is. Numeric packages take up to some seconds.
_TELL_AFTER: Final = 8.0
_TELL_AGAIN: Final = (12.0, 20.0, 60.0)
# From the end of its connection to that of the process itself [s].
_TO_END: Final = 1.0
_LOOK_AGAIN: Final = 0.02
_MAX_PACKET: Final = 8192


async def wait_declared(
    started: StartedServer, target: str, within: float | None = IMPORT_TIMEOUT
) -> Declared:
    """Wait until the fork server has imported *target*; return what that declares.

    On every error, and when cancelled, the server and its group are killed and reaped.

    Args:
        target: For messages.
        within: See `IMPORT_TIMEOUT`; None: wait for ever.

    Raises:
        TargetError, SpecError, PlatformError: the import failed, ended its process or
            took too long; or what it declares does not fit.
    """
    shown = shown_target(target)
    with ExitStack() as stack:
        try:
            # A copy: the server's own is closed before its process is reaped.
            report = os.dup(started.report)
            stack.callback(os.close, report)
            data = await _receive(started, report, shown, within)
            if data is not None:
                return read_answer(data, shown)
            with trio.move_on_after(_TO_END):
                await _wait_ended(started.process_id)
            is_alive = not _has_ended(started.process_id)
        except BaseException:
            kill_server(started)
            raise
        code = kill_server(started)
        text = read_report(report)
    if is_alive:
        how = "closed its connection to the controller, or became another program"
        raise TargetError(f"{_blamed(text, shown)}: the import {how}")
    raise TargetError(ended_text(text, shown, code))


def shown_target(target: str) -> str:
    """Return the file or module of *target* for a message."""
    where, _ = split_target(target)
    return shown_path(where) if is_path(where) else where


def ended_text(report: str, shown: str, returncode: int) -> str:
    """Return in words that an import ended its process."""
    how = describe_exit(returncode)
    return f"{_blamed(report, shown)}: the import ended its process ({how})"


def _blamed(report: str, shown: str) -> str:
    """Return the line that is to blame, as far as it is known."""
    place = last_place(report)
    if place is None:
        return shown
    return place.text if place.is_exact else f"{shown}, last seen at {place.text}"


async def _receive(
    started: StartedServer, report: int, shown: str, within: float | None
) -> bytes | None:
    """Return the answer; None: the connection ended without one."""
    problem: PlatformError | None = None
    async with open_nursery() as nursery:
        nursery.start_soon(tell_where, started.process_id, report, shown)
        with trio.move_on_after(within or math.inf) as scope:
            try:
                data = await _receive_answer(started.control)
            except PlatformError as exc:
                problem = exc
        nursery.cancel_scope.cancel()
    if problem is not None:
        raise problem
    if not scope.cancelled_caught:
        return data
    raise TargetError(late_text(read_report(report), shown, within))


def late_text(report: str, shown: str, within: float | None) -> str:
    """Return in words that an import takes longer than *within* [s]."""
    place = _blamed(report, shown)
    return f"{place}: the import takes longer than {within:g} s (--import-timeout)"


async def tell_where(process_id: int, report: int, shown: str) -> None:
    """Log every now and then where an import is, until cancelled."""
    began = trio.current_time()
    await trio.sleep(_TELL_AFTER)
    for pause in chain(_TELL_AGAIN, repeat(_TELL_AGAIN[-1])):
        seconds = trio.current_time() - began
        where = " or ".join(_whereabouts(process_id, report)) or "at an unknown line"
        logger.warning("still importing %s after %.0f s: %s", shown, seconds, where)
        await trio.sleep(pause)


def _whereabouts(process_id: int, report: int) -> Iterator[str]:
    found = read_stat(process_id)
    if found is not None and found[0] in "Tt":
        yield "its process is stopped (by a signal, or it uses the terminal)"
    elif (place := last_place(read_report(report))) is not None:
        yield f"at {place.text}"


async def _receive_answer(control: socket.socket) -> bytes | None:
    while True:
        await trio.lowlevel.wait_readable(control)
        try:
            data, descriptors, _, _ = socket.recv_fds(control, _MAX_PACKET, 1)
        except BlockingIOError:
            continue
        except OSError:
            return None
        try:
            match data[:1], data[1:]:
                case b"", _:
                    return None
                case b"w", text:
                    logger.warning("%s", text.decode("utf-8", "replace"))
                case b"i", text:
                    logger.info("%s", text.decode("utf-8", "replace"))
                case kind, _ if kind == DECLARED and descriptors:
                    return read_file(descriptors[0])
                case kind, _ if kind == DECLARED:
                    lost = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                    raise _too_little(lost)
                case kind, text if kind == FAILED:
                    number, _, words = text.decode("utf-8", "replace").partition(" ")
                    raise _too_little(OSError(int(number), words))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _too_little(exc: OSError) -> PlatformError:
    """Return what keeps the import from going on, with the limit that was reached."""
    return PlatformError(f"cannot import the application: {limit_text(exc)}")


def read_file(descriptor: int) -> bytes:
    """Return what a file holds that came from a process that runs foreign code.

    Nothing that it may be otherwise, such as a pipe, is waited for.
    """
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_ANSWER:
            return b""
        return os.pread(descriptor, MAX_ANSWER, 0)
    except OSError:
        return b""


async def _wait_ended(process_id: int) -> None:
    while (descriptor := open_descriptor(process_id)) is None:
        if _has_ended(process_id):
            return
        await trio.sleep(_LOOK_AGAIN)  # no descriptor is left for it
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _has_ended(process_id: int) -> bool:
    """Whether a child of ours has ended; it is not reaped."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process_id, options) is not None
