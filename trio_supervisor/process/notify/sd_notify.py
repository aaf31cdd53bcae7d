"""Send and parse readiness datagrams, as in sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import Final, Self

from attrs import define, field, frozen

from trio_supervisor.process.notify.heartbeat import HeartbeatWriter, use_heartbeat

logger = logging.getLogger(__name__)

# Enough for a status line and a few variables; the limit of systemd.
MAX_DATAGRAM: Final = 4096
_MAX_STATUS: Final = 200
# Bounds the cost of a datagram with many lines.
_MAX_FIELDS: Final = 64


@frozen(kw_only=True)
class Notification:
    """One datagram of a known process."""

    process_id: int
    fields: Mapping[str, str]

    @property
    def is_ready(self) -> bool:
        """READY=1."""
        return self.fields.get("READY") == "1"

    @property
    def is_unready(self) -> bool:
        """READY=0: an extension, since sd_notify(3) cannot revoke readiness."""
        return self.fields.get("READY") == "0"

    @property
    def is_heartbeat(self) -> bool:
        """WATCHDOG=1."""
        return self.fields.get("WATCHDOG") == "1"

    @property
    def is_stopping(self) -> bool:
        """STOPPING=1."""
        return self.fields.get("STOPPING") == "1"

    @property
    def status(self) -> str | None:
        """STATUS=…, as one line of printable characters."""
        return self._line("STATUS")

    @property
    def restart_reason(self) -> str | None:
        """RESTART=…, as one line: an extension, by which a process asks for another."""
        return self._line("RESTART")

    def _line(self, name: str) -> str | None:
        if (text := self.fields.get(name)) is None:
            return None
        return "".join(c if c.isprintable() else " " for c in text[:_MAX_STATUS])


def parse_fields(data: bytes) -> dict[str, str]:
    """Return the variables of a datagram; other lines are ignored."""
    fields: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").splitlines()[:_MAX_FIELDS]:
        name, equals, value = line.partition("=")
        if equals and name:
            fields[name] = value
    return fields


@define(eq=False)
class Notifier:
    """The sending end, in the child. It never blocks and never raises.

    A datagram that cannot be sent now (the receiver's queue is full) is refused, and
    the caller may retry.
    """

    address: str | None
    """A path, or ``@NAME``, as in ``NOTIFY_SOCKET``."""
    _inherited: socket.socket | None = None
    """A connected socket, which needs no path and no permission for one."""
    _heartbeat: HeartbeatWriter | None = None
    """Writer for heartbeats; None: they are sent as datagrams."""
    _socket: socket.socket | None = field(default=None, init=False)
    _has_warned: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if self._inherited is not None:
            self._inherited.setblocking(False)
        if self.address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for opened in (self._socket, self._inherited):
            if opened is not None:
                with suppress(OSError):  # closed by the application
                    opened.close()
        self._socket = self._inherited = None

    def beat(self) -> None:
        """Give a heartbeat. One that cannot be sent now is dropped."""
        if self._heartbeat is not None:
            self._heartbeat.beat()
        else:
            self.send("WATCHDOG=1")

    def beat_every(self, interval: float) -> None:
        """Give a heartbeat of an event loop, which gives one each *interval* [s]."""
        if self._heartbeat is not None:
            self._heartbeat.beat_every(interval)
        else:
            self.beat()

    def held(self) -> AbstractContextManager[None]:
        """Exclude the time of the block from the age of the last heartbeat."""
        return nullcontext() if self._heartbeat is None else self._heartbeat.held()

    def send(self, text: str) -> bool:
        """Send variables such as ``"READY=1"``; return False to retry later.

        True if they were sent, and also if they can never be sent, which is logged once
        unless the controller is gone.
        """
        if sys.platform != "linux":
            text += f"\nMAINPID={os.getpid()}"
        data = text.encode("utf-8", "replace")[:MAX_DATAGRAM]
        problem: OSError | None = None
        for opened, address in (
            (self._inherited, None),
            (self._socket, self.address),
        ):
            if opened is None:
                continue
            try:
                if address is None:
                    opened.send(data)
                else:
                    opened.sendto(data, kernel_address(address))
            except BlockingIOError:
                return False
            except ConnectionError:
                return True  # the controller is gone, which the lifeline reports
            except OSError as exc:  # the application has closed all descriptors
                problem = exc
            else:
                return True
        if problem is not None and not self._has_warned:
            self._has_warned = True
            logger.warning("cannot send %r to the controller: %s", text, problem)
        return True


def kernel_address(address: str) -> str:
    """Convert *address* of ``NOTIFY_SOCKET`` to a socket address of the kernel."""
    return "\0" + address[1:] if address.startswith("@") else address


def open_notifier(address: str, descriptors: Sequence[int]) -> Notifier:
    """Return a notifier for the inherited descriptors: a socket and a heartbeat page.

    Args:
        descriptors: May be empty: then only the *address* is used.
    """
    if not descriptors:
        return Notifier(address)
    connected, heartbeat = descriptors
    # Programs that the child executes must not inherit it.
    os.set_inheritable(connected, False)
    return Notifier(address, socket.socket(fileno=connected), use_heartbeat(heartbeat))
