"""Stay registered without an event loop, until the supervisor calls.

An idle worker needs no more: a second event loop would cost it a third of the processor
time of its start, and a megabyte. The first call is left unread, for a loop that then
takes over the connection.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field, frozen

from trio_supervisor.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    SupervisorError,
)
from trio_supervisor.link.reconnect import ReconnectPlan
from trio_supervisor.wire.session import AnswerReceived, Session
from trio_supervisor.worker.duties import Duties
from trio_supervisor.worker.refusals import Refusals

logger = logging.getLogger(__name__)

# Longer than a supervisor takes to start; one that hangs is restarted earlier [s].
_REGISTER_TIMEOUT: Final = 60.0
# How long connect(2) waits for a place in the backlog before it is called again [s].
_QUEUED: Final = 0.2
_MOST: Final = 65536


@frozen
class Established:
    """A registered connection on which the supervisor has called.

    Its owner closes the socket.
    """

    socket: socket.socket
    session: Session


class NeedsLoopError(Exception):
    """The supervisor calls before it has answered the registration."""


class _EndedError(Exception):
    """The agent should end."""


@define(eq=False)
class StandBy:
    """Connects, registers and reconnects, in a thread that waits in poll(2).

    Args:
        socket_path: The supervisor's socket.
        read_state: Returns the state to register with.
        refusals: Logs why there is no registration.
        duties: Attended to while it waits.
    """

    _socket_path: str
    _read_state: Callable[[], Mapping[str, Any]]
    _refusals: Refusals
    _duties: Duties
    _plan: ReconnectPlan = field(factory=ReconnectPlan)
    _rng: random.Random = field(factory=random.Random, init=False)

    def wait_call(self) -> Established | None:
        """Stay registered until the supervisor calls; None: the agent should end.

        Raises:
            NeedsLoopError: the supervisor cannot be served without an event loop.
        """
        try:
            return self._wait_call()
        except _EndedError:
            return None

    def _wait_call(self) -> Established:
        backoff, attempt = self._plan.backoff, 0
        while True:
            began, is_registered = time.monotonic(), False
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                session = Session(is_connecting=True)
                self._connect(connection)
                self._register(connection, session)
                is_registered = True
                self._wait(connection, select.POLLIN)
                if connection.recv(1, socket.MSG_PEEK):
                    # What is closed below has no descriptor then.
                    ours = socket.socket(fileno=connection.detach())
                    return Established(ours, session)
            except (SupervisorError, OSError) as exc:
                logger.debug("attempt %d: lost: %r", attempt, exc)
            finally:
                connection.close()
            # A peer that accepts and closes immediately never resets the backoff.
            if is_registered or time.monotonic() - began >= backoff.stable_after:
                attempt = 0
            self._sleep(backoff.delay(attempt, self._rng.random()))
            attempt += 1

    def _connect(self, connection: socket.socket) -> None:
        """Connect, or wait in the kernel for a place in the backlog."""
        seconds, microseconds = divmod(int(_QUEUED * 1e6), 1_000_000)
        timeout = struct.pack("@ll", seconds, microseconds)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        while True:
            try:
                connection.connect(self._socket_path)
            except BlockingIOError:
                self._sleep(0.0)
            except PermissionError as exc:
                self._refusals.not_permitted(self._socket_path, exc)
                raise
            else:
                connection.setblocking(False)
                return

    def _register(self, connection: socket.socket, session: Session) -> None:
        """Register, and read no more than the answer.

        Raises:
            SupervisorError: the supervisor refused, or hung up, or did not answer.
        """
        deadline = time.monotonic() + _REGISTER_TIMEOUT
        state = dict(self._read_state())
        id_, line = session.call("register", {"state": state})
        self._send(connection, line, deadline)
        try:
            while not self._is_answered(connection, session, id_, deadline):
                pass
        except SupervisorError as exc:
            self._refusals.refused(exc)
            raise

    def _send(self, connection: socket.socket, line: bytes, deadline: float) -> None:
        left = memoryview(line)
        while left:
            try:
                left = left[connection.send(left) :]
            except BlockingIOError:
                self._wait(connection, select.POLLOUT, deadline)

    def _is_answered(
        self, connection: socket.socket, session: Session, id_: int, deadline: float
    ) -> bool:
        self._wait(connection, select.POLLIN, deadline)
        seen = connection.recv(_MOST, socket.MSG_PEEK)
        data = connection.recv(seen.find(b"\n") + 1 or len(seen))
        if not data:
            raise ConnectionLostError("the supervisor closed the connection")
        for event in session.receive_data(data):
            if not isinstance(event, AnswerReceived) or event.id != id_:
                raise NeedsLoopError
            if event.error is not None:
                raise event.error
            if event.is_last:
                return True
        return False

    def _wait(
        self, connection: socket.socket, event: int, deadline: float = float("inf")
    ) -> None:
        """Wait until *event* of *connection*.

        Raises:
            DeadlineExceededError: it did not happen before *deadline*.
        """
        while not self._poll(deadline, connection.fileno(), event):
            if time.monotonic() >= deadline:
                raise DeadlineExceededError(
                    f"no answer to register within {_REGISTER_TIMEOUT:g} s"
                )

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._poll(until) and time.monotonic() < until:
            pass

    def _poll(self, until: float, descriptor: int = -1, event: int = 0) -> bool:
        """Wait once; return whether there was *event* at *descriptor*."""
        duties = self._duties
        poll = select.poll()
        for each in duties.descriptors:
            poll.register(each, select.POLLIN)
        if descriptor >= 0:
            poll.register(descriptor, event)
        left = min(until, duties.due_at) - time.monotonic()
        timeout = None if left == float("inf") else max(0, math.ceil(left * 1e3))
        ready = dict(poll.poll(timeout))
        if any(ready.get(each, 0) & select.POLLNVAL for each in duties.descriptors):
            raise OSError(errno.EBADF, "the worker has closed the agent's descriptors")
        duties.attend(ready)
        if duties.is_over:
            raise _EndedError
        return descriptor in ready


def _ignore(is_forced: bool) -> None:
    pass


def rehearse_registration() -> None:
    """Register once with a supervisor that has answered already, over a socket pair."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    lifeline, end = os.pipe()
    duties = Duties("rehearsal", 1.0, lifeline, _ignore, lambda: 1.0)
    try:
        with ours, theirs:
            theirs.sendall(b'{"id":2,"finished":true,"connection_id":""}\n')
            standby = StandBy("", dict, Refusals("rehearsal"), duties)
            standby._register(ours, Session(is_connecting=True))
    finally:
        duties.discard()
        os.close(lifeline)
        os.close(end)
