"""Shut a controller down, and wait until it has exited."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from trio_supervisor.cli.connection import Deadline, SupervisorConnection
from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
    DeadlineExceededError,
    NoSupervisorError,
)
from trio_supervisor.wire.json_tree import Object

# How often the socket file is checked: nothing notifies us of its removal [s].
_INTERVAL: Final = 0.02
# How long to wait for the process to exit when its answer was lost: the process of an
# embedded controller removes the socket and keeps running [s].
_PROCESS_PATIENCE: Final = 2.0


@contextmanager
def watch_controller(
    connection: SupervisorConnection, path: str
) -> Iterator[WatchedController]:
    """Watch the controller that listens at *path* within the block."""
    with ExitStack() as stack:
        descriptor = None
        process_id = connection.listener_process_id
        if process_id is not None and hasattr(os, "pidfd_open"):
            with suppress(OSError):  # it has exited, or is in another pid namespace
                descriptor = os.pidfd_open(process_id)
                stack.callback(os.close, descriptor)
        yield WatchedController(path, _inode_of(path), descriptor)


class WatchedController:
    """A controller, watched from outside by its socket file and its process.

    Args:
        path: Its socket file.
        inode: That of the socket file; None: the file is gone.
        descriptor: A pidfd of its process; None: the process cannot be watched.
    """

    def __init__(self, path: str, inode: int | None, descriptor: int | None) -> None:
        self._path = path
        self._inode = inode
        self._descriptor = descriptor

    def shut_down(self, connection: SupervisorConnection, deadline: Deadline) -> None:
        """Call ``shutdown``, and wait until the controller has exited.

        Raises:
            ConnectionLostError: the controller was killed before all had stopped.
            DeadlineExceededError: there was no answer; or the controller has not exited
                before the deadline, and the shutdown continues.
            CallFailedError: the controller has exited, but could not stop everything.
        """
        begun: list[object] = []
        failure: CallFailedError | None = None
        ends_process: bool | None = None
        try:
            answer = self._call(connection, deadline, begun)
            ends_process = bool(answer.get("ends_process", True))
        except CallFailedError as exc:
            if not begun:
                raise
            # Unavailable: the supervisor lost the controller before the answer.
            failure = exc if exc.error_class != "Unavailable" else None
        except (ConnectionLostError, NoSupervisorError):
            pass  # the supervisor exited first, as it does in a shutdown
        except DeadlineExceededError:
            if not begun:
                raise
        self._wait(deadline, ends_process)
        if failure is not None:
            raise failure

    def _call(
        self, connection: SupervisorConnection, deadline: Deadline, begun: list[object]
    ) -> Object:
        """Call ``shutdown``; again if the supervisor exits before it has passed it on.

        That happens right after a reload, which replaces the supervisor as well.
        """
        with ExitStack() as stack:
            while True:
                try:
                    return connection.call("shutdown", {"wait": True}, begun.append)
                except ConnectionLostError:
                    if begun or not self._has_socket or self._has_exited(0):
                        raise
                connection = stack.enter_context(self._reconnect(deadline))

    def _reconnect(self, deadline: Deadline) -> SupervisorConnection:
        while True:
            try:
                return SupervisorConnection(self._path, deadline)
            except NoSupervisorError:
                if not self._has_socket or self._has_exited(_INTERVAL):
                    raise
            self._check(deadline)

    def _wait(self, deadline: Deadline, ends_process: bool | None) -> None:
        while self._has_socket:
            if self._has_exited(_INTERVAL):
                if self._has_socket:
                    raise ConnectionLostError(
                        "the controller was killed before everything had stopped; its "
                        "guardian stops the remaining processes"
                    )
                return
            self._check(deadline)
        if ends_process is False or self._descriptor is None:
            return
        patience = None if ends_process else Deadline(_PROCESS_PATIENCE)
        while not self._has_exited(_INTERVAL):
            self._check(deadline)
            if patience is not None:
                with suppress(DeadlineExceededError):
                    patience.left()
                    continue
                return

    @property
    def _has_socket(self) -> bool:
        return self._inode is not None and _inode_of(self._path) == self._inode

    def _has_exited(self, timeout: float) -> bool:
        """Return whether the process has exited, or exits within *timeout* [s]."""
        watched = [] if self._descriptor is None else [self._descriptor]
        return bool(select.select(watched, [], [], timeout)[0])

    def _check(self, deadline: Deadline) -> None:
        try:
            deadline.left()
        except DeadlineExceededError:
            raise DeadlineExceededError(
                f"not everything has stopped within {deadline.timeout:g} s "
                f"(--timeout); the shutdown continues"
            ) from None


def _inode_of(path: str) -> int | None:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return None
