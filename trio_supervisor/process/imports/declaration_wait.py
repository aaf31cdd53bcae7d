"""Wait for the declaration of an import, and log the current line of a slow one.

The import runs in a fork server or, on systems without one, in a separate process. If
it hangs, exits, crashes or closes our connection, a `TargetError` names the line, and
the caller kills the process.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
import stat
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
"""Default of ``--import-timeout``: an import that takes longer fails [s]."""
# When the first progress line is logged; importing numeric packages takes seconds [s].
_FIRST_PROGRESS: Final = 8.0
_NEXT_PROGRESS: Final = (12.0, 20.0, 60.0)
# How long a process may take to exit after its connection has closed [s].
_EXIT_WITHIN: Final = 1.0
_POLL_INTERVAL: Final = 0.02
_MAX_PACKET: Final = 8192


async def wait_declared(
    started: StartedServer, target: str, within: float | None = IMPORT_TIMEOUT
) -> Declared:
    """Wait until the fork server has imported *target*; return the declaration.

    On every error, and when cancelled, the server's process group is killed and reaped.

    Args:
        target: For messages.
        within: See `IMPORT_TIMEOUT`; None: wait forever.

    Raises:
        TargetError, SpecError, PlatformError: the import failed, exited or timed out;
            or the declaration is invalid.
    """
    shown = shown_target(target)
    with ExitStack() as stack:
        try:
            # A copy: `kill_server` closes the original before it reaps the process.
            report = os.dup(started.report)
            stack.callback(os.close, report)
            data = await _receive(started, report, shown, within)
            if data is not None:
                return read_answer(data, shown)
            with trio.move_on_after(_EXIT_WITHIN):
                await _wait_ended(started.process_id)
            is_alive = not _has_ended(started.process_id)
        except BaseException:
            kill_server(started)
            raise
        code = kill_server(started)
        text = read_report(report)
    if is_alive:
        problem = (
            "the import closed the connection to the controller, or replaced its "
            "process with another program (exec)"
        )
        raise TargetError(f"{_place_in(text, shown)}: {problem}")
    raise TargetError(ended_text(text, shown, code))


def shown_target(target: str) -> str:
    """Return the file or module of *target*, for a message."""
    where, _ = split_target(target)
    return shown_path(where) if is_path(where) else where


def ended_text(report: str, shown: str, returncode: int) -> str:
    """Return the message for an import that terminated its process."""
    how = describe_exit(returncode)
    return f"{_place_in(report, shown)}: the import terminated its process ({how})"


def _place_in(report: str, shown: str) -> str:
    """Return the line that the import was at, as exactly as it is known."""
    place = last_place(report)
    if place is None:
        return shown
    return place.text if place.is_exact else f"{shown}, last seen at {place.text}"


async def _receive(
    started: StartedServer, report: int, shown: str, within: float | None
) -> bytes | None:
    """Return the answer; None: the connection closed without one."""
    problem: PlatformError | None = None
    async with open_nursery() as nursery:
        nursery.start_soon(log_progress, started.process_id, report, shown)
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
    """Return the message for an import that did not finish *within* [s]."""
    place = _place_in(report, shown)
    return f"{place}: the import did not finish within {within:g} s (--import-timeout)"


async def log_progress(process_id: int, report: int, shown: str) -> None:
    """Log at growing intervals which line an import is at, until cancelled."""
    began = trio.current_time()
    await trio.sleep(_FIRST_PROGRESS)
    for pause in chain(_NEXT_PROGRESS, repeat(_NEXT_PROGRESS[-1])):
        seconds = trio.current_time() - began
        where = _progress(process_id, report)
        logger.warning("still importing %s after %.0f s: %s", shown, seconds, where)
        await trio.sleep(pause)


def _progress(process_id: int, report: int) -> str:
    found = read_stat(process_id)
    if found is not None and found.state in "Tt":
        return "process stopped (by a signal, or because it reads from the terminal)"
    place = last_place(read_report(report))
    return "at an unknown line" if place is None else f"at {place.text}"


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
                    raise _shortage_error(lost)
                case kind, text if kind == FAILED:
                    number, _, words = text.decode("utf-8", "replace").partition(" ")
                    raise _shortage_error(OSError(int(number), words))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _shortage_error(exc: OSError) -> PlatformError:
    """Return the error for a resource shortage, with the limit that was reached."""
    return PlatformError(f"cannot import the application: {limit_text(exc)}")


def read_file(descriptor: int) -> bytes:
    """Return the content of a file received from a process that runs application code.

    Anything but a regular file counts as empty: reading a pipe could block.
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
        await trio.sleep(_POLL_INTERVAL)  # no descriptor left for a pidfd
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _has_ended(process_id: int) -> bool:
    """Return whether a child of this process has exited, without reaping it."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process_id, options) is not None
