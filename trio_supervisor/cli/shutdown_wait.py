"""Wait for the end of a controller, after it was asked to shut down."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from trio_supervisor.cli.connection import Connection, Deadline
from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
    DeadlineExceededError,
)

# How often it is seen whether the socket file is gone, where nothing tells [s].
_INTERVAL = 0.02
# A controller that is embedded removes its socket, and its process goes on. Whether it
# is, is not known where its answer was lost [s].
_PROCESS_PATIENCE = 2.0


@contextmanager
def watch_controller(connection: Connection, path: str) -> Iterator[Controller]:
    """Watch the controller that listens at *path* for the length of the block."""
    with ExitStack() as stack:
        descriptor = None
        process_id = connection.listener_process_id
        if process_id is not None and hasattr(os, "pidfd_open"):
            with suppress(OSError):  # gone, or of another namespace
                descriptor = os.pidfd_open(process_id)
                stack.callback(os.close, descriptor)
        yield Controller(path, _inode_of(path), descriptor)


class Controller:
    """A controller as its socket file and its process show it.

    Args:
        descriptor: A pidfd; None: its process cannot be watched.
    """

    def __init__(self, path: str, inode: int | None, descriptor: int | None) -> None:
        self._path = path
        self._inode = inode
        self._descriptor = descriptor

    def shut_down(self, connection: Connection, deadline: Deadline) -> None:
        """Have it shut down, and wait until it has ended.

        Raises:
            ConnectionLostError: it was killed before everything had stopped.
            DeadlineExceededError: it has not ended in time; it goes on. Or there was no
                answer.
            CallFailedError: not everything could be stopped; it has ended.
        """
        begun: list[object] = []
        failure: CallFailedError | None = None
        ends_process: bool | None = None
        try:
            answer = connection.call("shutdown", {"wait": True}, begun.append)
            ends_process = bool(answer.get("ends_process", True))
        except CallFailedError as exc:
            if not begun:
                raise
            # The link to the controller may have ended before the answer.
            failure = exc if exc.error_class != "Unavailable" else None
        except ConnectionLostError:
            pass  # its supervisor was killed, or has ended first
        except DeadlineExceededError:
            if not begun:
                raise
        self._wait(deadline, ends_process)
        if failure is not None:
            raise failure

    def _wait(self, deadline: Deadline, ends_process: bool | None) -> None:
        while self._has_socket:
            if self._has_ended(_INTERVAL):
                if self._has_socket:
                    raise ConnectionLostError(
                        "the controller was killed before everything had stopped; its "
                        "guardian stops what is left"
                    )
                return
            self._check(deadline)
        if ends_process is False or self._descriptor is None:
            return
        patience = None if ends_process else Deadline(_PROCESS_PATIENCE)
        while not self._has_ended(_INTERVAL):
            self._check(deadline)
            if patience is not None:
                with suppress(DeadlineExceededError):
                    patience.left()
                    continue
                return

    @property
    def _has_socket(self) -> bool:
        return self._inode is not None and _inode_of(self._path) == self._inode

    def _has_ended(self, timeout: float) -> bool:
        """Whether its process has ended, or ends within *timeout* [s]."""
        watched = [] if self._descriptor is None else [self._descriptor]
        return bool(select.select(watched, [], [], timeout)[0])

    def _check(self, deadline: Deadline) -> None:
        try:
            deadline.left()
        except DeadlineExceededError:
            raise DeadlineExceededError(
                f"not everything has stopped within {deadline.timeout:g} s; the "
                f"shutdown goes on"
            ) from None


def _inode_of(path: str) -> int | None:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return None
