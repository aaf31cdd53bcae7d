"""Notify the service manager of this process: sd_notify(3), or a log file.

A service manager (systemd, Podman, another controller) sets ``NOTIFY_SOCKET``. Without
one, as in a container, ``NOTIFY_LOG`` names a file to which the same notifications are
appended as JSON lines, for probes to read. The format is that of Ruby's
async-container.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import time
from array import array
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Self

import trio
from attrs import define, field

logger = logging.getLogger(__name__)

# Keeps a datagram below the 4 KiB that systemd accepts.
_MAX_STATUS: Final = 2000
# Longest FDNAME of sd_notify(3): ASCII, without control characters and colons.
_MAX_NAME: Final = 255
_RELOADING: Final = "Reloading..."


@define(eq=False)
class ServiceManager:
    """The service manager of this process. Without one, all methods do nothing.

    No method waits, or raises because the manager is gone or busy. Methods return
    False if the manager's queue is full and the notification can be repeated. One that
    can never be sent is logged once.
    """

    notify_socket: str | None = None
    """A path, or ``@NAME`` for an abstract one."""
    notify_log: str | None = None
    watchdog_interval: float | None = None
    """Interval for calls of `watchdog`: half of what the manager requires [s]."""
    _has_warned: bool = field(default=False, init=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Return the service manager that *environ* describes.

        A watchdog for another process is ignored.
        """
        watched = environ.get("WATCHDOG_PID", str(os.getpid()))
        period = environ.get("WATCHDOG_USEC", "")
        is_watched = watched == str(os.getpid()) and period.isdecimal()
        return cls(
            environ.get("NOTIFY_SOCKET") or None,
            environ.get("NOTIFY_LOG") or None,
            int(period) / 2e6 if is_watched and int(period) else None,
        )

    def ready(self, status: str = "", *, size: int | None = None) -> bool:
        """Notify that all workers are ready.

        Args:
            size: Number of workers, for the log.
        """
        news: dict[str, object] = {"ready": True}
        if size is not None:
            news["size"] = size
        return self._tell({"READY": "1"}, news, status)

    def reloading(self, status: str = _RELOADING) -> bool:
        """Notify that a reload begins; `reloaded` has to follow."""
        # Type=notify-reload: systemd compares the time with that of its request.
        moment = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        variables = {"RELOADING": "1", "MONOTONIC_USEC": str(moment)}
        return self._tell(variables, {"ready": False, "reloading": True}, status)

    def reloaded(self, status: str = "", *, size: int | None = None) -> bool:
        """Notify that a reload is over, whether or not it succeeded."""
        return self.ready(status, size=size)

    def stopping(self, status: str = "") -> bool:
        """Notify that the shutdown begins."""
        return self._tell({"STOPPING": "1"}, {"stopping": True}, status)

    def status(self, text: str) -> bool:
        """Set the status line, for people."""
        return self._tell({}, {}, text)

    def extend_timeout(self, seconds: float) -> bool:
        """Extend the timeout of a start, reload or stop to *seconds* from now [s]."""
        return self._notify({"EXTEND_TIMEOUT_USEC": str(max(1, round(seconds * 1e6)))})

    def watchdog(self) -> bool:
        """Send a heartbeat."""
        return self._notify({"WATCHDOG": "1"})

    def store(self, name: str, descriptor: int) -> bool:
        """Store *descriptor* in the manager, which passes it to the next process.

        It is passed as in socket activation: see `AdoptedDescriptors`. FDPOLL=0 keeps
        it even if its other end is closed.

        Raises:
            ValueError: *name* is invalid, or *descriptor* is not open.
        """
        variables = {"FDSTORE": "1", "FDNAME": _checked(name), "FDPOLL": "0"}
        return self._notify(variables, [descriptor])

    def unstore(self, name: str) -> bool:
        """Remove the descriptors stored as *name*; raises as `store`."""
        return self._notify({"FDSTOREREMOVE": "1", "FDNAME": _checked(name)})

    def _tell(
        self, variables: Mapping[str, str], news: dict[str, object], status: str
    ) -> bool:
        """Notify the manager, and append to the log."""
        if line := _one_line(status):
            variables = {**variables, "STATUS": line}
            news = {**news, "status": line}
        self._append(news)
        return self._notify(variables)

    def _notify(
        self, variables: Mapping[str, str], descriptors: list[int] | None = None
    ) -> bool:
        if self.notify_socket is None or not variables:
            return True
        text = "\n".join(f"{name}={value}" for name, value in variables.items())
        address = self.notify_socket
        if address.startswith("@"):
            address = "\0" + address[1:]
        rights = []
        if descriptors:  # socket.send_fds drops the address (3.13)
            numbers = array("i", descriptors)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendmsg([text.encode()], rights, 0, address)
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno == errno.EBADF and descriptors:
                raise ValueError(f"not open: {descriptors}") from exc
            self._warn(f"cannot notify {self.notify_socket}", exc)
        return True

    def _append(self, news: Mapping[str, object]) -> None:
        if self.notify_log is None or not news:
            return
        line = json.dumps(news, separators=(",", ":")) + "\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            # O_NONBLOCK: a FIFO without a reader must not block.
            log = os.open(self.notify_log, flags | os.O_NONBLOCK | os.O_NOCTTY, 0o644)
            try:
                os.write(log, line.encode())
            finally:
                os.close(log)
        except OSError as exc:
            self._warn(f"cannot write NOTIFY_LOG {self.notify_log}", exc)

    def _warn(self, what: str, problem: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("%s: %s", what, problem.strerror or problem)


async def keep_watchdog(
    manager: ServiceManager, check: Callable[[], Awaitable[None]]
) -> None:
    """Call *check* repeatedly, and send a heartbeat each time it passes.

    If *check* hangs or raises (which ends this function), the manager restarts this
    process. Without a watchdog, return immediately.
    """
    if (interval := manager.watchdog_interval) is None:
        return
    while True:
        # From start to start, so that the time of a check is not added.
        due = trio.current_time() + interval
        await check()
        manager.watchdog()
        await trio.sleep_until(due)


def _one_line(text: str) -> str:
    """Return *text* on one line: a line break would begin another variable."""
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_STATUS]).strip()


def _checked(name: str) -> str:
    is_name = name.isascii() and name.isprintable() and ":" not in name
    if not name or not is_name or len(name) > _MAX_NAME:
        raise ValueError(
            f"expected up to {_MAX_NAME} ASCII characters without colons, got {name!r}"
        )
    return name
