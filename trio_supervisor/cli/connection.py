"""The protocol over a blocking socket, for commands that make a call and end."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self, TypeVar

from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
    DeadlineExceededError,
    NoSupervisorError,
    SupervisorError,
)
from trio_supervisor.link.foreign_server import PROBE, conversation, is_foreign
from trio_supervisor.process.spawn.environment import DEFAULT_SOCKET, SOCKET_VARIABLE
from trio_supervisor.wire import json_plain
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.session import AnswerReceived, Session

_RETRY = 0.02
_T = TypeVar("_T")


class UsageError(SupervisorError):
    """The words of the command do not fit."""

    exit_code = 2


def socket_path(option: str | None) -> str:
    """Return where to look: ``--socket``, the variable, or ``supervisor.ipc`` here."""
    path = option or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise NoSupervisorError(
            f"{path}: this directory was removed; go to another one"
        ) from None


class Deadline:
    """A moment until which everything has to be done."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._end = time.monotonic() + timeout

    def left(self) -> float:
        """Return the time left [s].

        Raises:
            DeadlineExceededError: there is none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineExceededError(f"no answer within {self.timeout:g} s")
        return left


class Connection:
    """A connection to the supervisor at *path*; a context manager.

    Raises:
        NoSupervisorError: nobody accepts connections there.
        DeadlineExceededError: its backlog was full for all of the time.
    """

    def __init__(self, path: str, deadline: Deadline) -> None:
        self._deadline = deadline
        self._is_foreign: bool | None = None
        self._session = Session(is_connecting=True, json=json_plain)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connect(path)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def listener_process_id(self) -> int | None:
        """The process that listens at the other end; None: unknown.

        Source: unix(7), SO_PEERCRED: of who called listen(2), in the numbers of our
        own process namespace, where it may have none.
        """
        if not hasattr(socket, "SO_PEERCRED"):
            return None
        size = struct.calcsize("3i")
        data = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        process_id: int = struct.unpack("3i", data)[0]
        return process_id or None

    def call(
        self,
        do: str,
        arguments: Mapping[str, object] | None = None,
        on_progress: Callable[[Object], None] | None = None,
    ) -> Object:
        """Make a call, and return the fields of its last answer.

        Raises:
            CallFailedError: the peer answered that it failed.
            ConnectionLostError: the connection ended first.
            DeadlineExceededError: the answer did not come in time.
        """
        id_, line = self._session.call(do, arguments or {})
        self._exchange(lambda: self._socket.sendall(line))
        while True:
            data = self._exchange(lambda: self._socket.recv(65536))
            if not data:
                raise ConnectionLostError("the supervisor hung up: try again")
            for event in self._session.receive_data(data):
                if not isinstance(event, AnswerReceived) or event.id != id_:
                    continue
                if event.is_last:
                    if event.error is not None:
                        raise event.error
                    return event.fields
                if on_progress is not None:
                    on_progress(event.fields)

    @property
    def is_foreign(self) -> bool:
        """Whether the server is not ours, as that of Ruby; asked once."""
        if self._is_foreign is None:
            try:
                self.call(*PROBE)
            except CallFailedError as exc:
                self._is_foreign = is_foreign(exc)
            else:
                self._is_foreign = False
        return self._is_foreign

    def ask(
        self,
        do: str,
        arguments: Mapping[str, object] | None = None,
        on_progress: Callable[[Object], None] | None = None,
    ) -> Object:
        """Make a call as `call` does, in a form that this server understands.

        Raises:
            ForeignServerError: it is not ours, and cannot do that.
        """
        arguments = arguments or {}
        if not self.is_foreign or do == "status":
            return self.call(do, arguments, on_progress)
        steps = conversation(do, arguments)
        answer: Object | None = None
        try:
            while True:
                step, fields = next(steps) if answer is None else steps.send(answer)
                answer = self.call(step, fields, on_progress if step == do else None)
        except StopIteration as end:
            final: Object = end.value
            return final

    def _exchange(self, work: Callable[[], _T]) -> _T:
        """Do *work* on the socket: what *on_progress* raises is none of its errors."""
        self._socket.settimeout(self._deadline.left())
        try:
            return work()
        except TimeoutError:
            self._deadline.left()
            raise
        except (BrokenPipeError, ConnectionResetError):
            raise ConnectionLostError("the supervisor hung up: try again") from None

    def _connect(self, path: str) -> None:
        self._socket.setblocking(False)
        while True:
            try:
                self._socket.connect(path)
            except BlockingIOError:  # its backlog is full
                time.sleep(min(_RETRY, self._deadline.left()))
            except OSError as exc:
                raise NoSupervisorError(_not_there(path, exc)) from None
            else:
                return


def connect_patiently(path: str, deadline: Deadline) -> Connection:
    """Connect, or wait for somebody to be there; raises as `Connection` does."""
    while True:
        with suppress(NoSupervisorError):
            return Connection(path, deadline)
        try:
            time.sleep(min(_RETRY, deadline.left()))
        except DeadlineExceededError:
            raise DeadlineExceededError(
                f"no supervisor answered at {path} within {deadline.timeout:g} s"
            ) from None


def _not_there(path: str, exc: OSError) -> str:
    why: Any = exc.strerror or exc
    if isinstance(exc, ConnectionRefusedError):
        why = "a socket file is there, and nobody behind it"
    elif isinstance(exc, FileNotFoundError):
        why = "no such file"
    return (
        f"no supervisor answers at {path} ({why})\n"
        f"Start one with `python -m trio_supervisor serve service.py`, or say where it "
        f"listens with --socket PATH or {SOCKET_VARIABLE}."
    )
