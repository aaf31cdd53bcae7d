"""Speak the protocol over a blocking socket, for verbs that make one call and exit."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Self, TypeVar

from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
    DeadlineExceededError,
    NoSupervisorError,
    NotPermittedError,
    SupervisorError,
)
from trio_supervisor.link.foreign_server import PROBE, conversation, is_foreign
from trio_supervisor.process.spawn.environment import DEFAULT_SOCKET, SOCKET_VARIABLE
from trio_supervisor.wire import json_plain
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.session import AnswerReceived, Session
from trio_supervisor.wire.trace_context import continue_trace

_RETRY_INTERVAL: Final = 0.02  # [s]
_CLOSED: Final = "the supervisor closed the connection; try again"
_T = TypeVar("_T")


class UsageError(SupervisorError):
    """The command line is not valid."""

    exit_code = 2


def socket_path(option: str | None) -> str:
    """Return the absolute path of the supervisor's socket.

    Args:
        option: The value of ``--socket``. None: that of the environment variable, or
            ``supervisor.ipc`` in the current directory.

    Raises:
        NoSupervisorError: the path is relative, and the current directory was removed.
    """
    path = option or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise NoSupervisorError(
            f"{path}: the current directory was removed; change to another one"
        ) from None


class Deadline:
    """The moment at which a command gives up."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._end = time.monotonic() + timeout

    def left(self) -> float:
        """Return the time left [s].

        Raises:
            DeadlineExceededError: there is none left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineExceededError(f"no answer within {self.timeout:g} s")
        return left


class SupervisorConnection:
    """A blocking connection to the supervisor at *path*; a context manager.

    Raises:
        NoSupervisorError: no process accepts connections there.
        DeadlineExceededError: its backlog was full until the deadline.
    """

    def __init__(self, path: str, deadline: Deadline) -> None:
        self._deadline = deadline
        self._is_foreign: bool | None = None
        self._traceparent = _traceparent()
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
        """Pid of the process that listens at the other end; None: unknown.

        Its pid is 0 where it is in another pid namespace.
        """
        process_id, _ = self._listener()
        return process_id or None

    def _listener(self) -> tuple[int | None, int]:
        """Return pid and user of the process that listens at the other end.

        Source: unix(7), SO_PEERCRED: the credentials of the process that called
        listen(2).
        """
        if not hasattr(socket, "SO_PEERCRED"):
            return None, os.geteuid()
        size = struct.calcsize("3i")
        data = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        process_id, user, _ = struct.unpack("3i", data)
        return process_id, user

    def _closed(self) -> SupervisorError:
        """Return the error for a connection that the supervisor has closed."""
        _, owner = self._listener()
        if os.geteuid() in (0, owner):
            return ConnectionLostError(_CLOSED)
        return NotPermittedError(
            f"user {os.geteuid()} may not connect: only root, user {owner} and the "
            f"workers of this supervisor may"
        )

    def call(
        self,
        do: str,
        arguments: Mapping[str, object] | None = None,
        on_progress: Callable[[Object], None] | None = None,
    ) -> Object:
        """Make a call, and return the fields of its last answer.

        Raises:
            CallFailedError: the peer answered that the call failed.
            ConnectionLostError: the connection was closed before the answer.
            DeadlineExceededError: there was no answer before the deadline.
        """
        id_, line = self._session.call(do, arguments or {}, self._traceparent)
        self._exchange(lambda: self._socket.sendall(line))
        while True:
            data = self._exchange(lambda: self._socket.recv(65536))
            if not data:
                raise self._closed()
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
        """Whether the server is not ours, such as Ruby's; asked once per connection."""
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
        """Make a call as `call` does, translated where the server is not ours.

        Raises:
            ForeignServerError: the server is not ours, and has no such call.
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
        """Do *work* on the socket, and translate its errors.

        Only *work*: an exception of *on_progress* is not an error of the socket.
        """
        self._socket.settimeout(self._deadline.left())
        try:
            return work()
        except TimeoutError:
            self._deadline.left()
            raise
        except (BrokenPipeError, ConnectionResetError):
            raise self._closed() from None

    def _connect(self, path: str) -> None:
        self._socket.setblocking(False)
        while True:
            try:
                self._socket.connect(path)
            except BlockingIOError:  # its backlog is full
                time.sleep(min(_RETRY_INTERVAL, self._deadline.left()))
            except OSError as exc:
                raise NoSupervisorError(_not_connected(path, exc)) from None
            else:
                return


def _traceparent() -> str:
    """Return the trace of the program that runs this command; empty: it has none.

    Source: "Environment Variables as Context Propagation Carriers" of OpenTelemetry.
    """
    trace = continue_trace(os.environ.get("TRACEPARENT", ""))
    return "" if trace is None else trace.context.to_traceparent()


def connect_patiently(path: str, deadline: Deadline) -> SupervisorConnection:
    """Connect, or retry until a supervisor accepts.

    Raises:
        DeadlineExceededError: no supervisor accepted before the deadline.
    """
    while True:
        with suppress(NoSupervisorError):
            return SupervisorConnection(path, deadline)
        try:
            time.sleep(min(_RETRY_INTERVAL, deadline.left()))
        except DeadlineExceededError:
            raise DeadlineExceededError(
                f"no supervisor answered at {path} within {deadline.timeout:g} s"
            ) from None


def _not_connected(path: str, exc: OSError) -> str:
    """Return the message for a connect(2) to *path* that failed with *exc*."""
    why: Any = exc.strerror or exc
    if isinstance(exc, ConnectionRefusedError):
        why = "the socket file exists, but no process listens there"
    elif isinstance(exc, FileNotFoundError):
        why = "no such file"
    return (
        f"no supervisor answers at {path} ({why})\n"
        f"Start one with `trio-supervisor serve service.py`, or set its socket with "
        f"--socket PATH or {SOCKET_VARIABLE}."
    )
