"""Our side towards whoever supervises us: sd_notify(3), and a log of the same news.

A service manager sets ``NOTIFY_SOCKET`` (systemd, Podman, another controller). Where
there is none, as in a container, ``NOTIFY_LOG`` names a file to which the same is
appended as JSON lines; a probe may look there. Its form is that of Ruby's
async-container, so what reads the one reads the other.
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

# One datagram: systemd takes 4 KiB. Cut by us, where we know what is being cut.
_MAX_STATUS: Final = 2000
# FDNAME of sd_notify(3): at most so many ASCII characters, none a control or a colon.
_MAX_NAME: Final = 255
_RELOADING: Final = "Reloading..."


@define(eq=False)
class ServiceManager:
    """Who supervises us, or nobody: then all of this does nothing.

    Nothing here waits or raises for a manager that is gone or too busy. Methods say
    whether the news went off; a manager that is too busy (its queue is full) may be
    told again. What cannot be told at all is logged, once.
    """

    notify_socket: str | None = None
    """A path, or ``@NAME`` for an abstract one."""
    notify_log: str | None = None
    watchdog_interval: float | None = None
    """How often to call `watchdog`, which is twice as often as asked [s]."""
    _has_warned: bool = field(default=False, init=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Return what *environ* says.

        A watchdog that is meant for another process is none.
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
        """Say that all is up.

        Args:
            size: How many workers there are, for the log.
        """
        news: dict[str, object] = {"ready": True}
        if size is not None:
            news["size"] = size
        return self._tell({"READY": "1"}, news, status)

    def reloading(self, status: str = _RELOADING) -> bool:
        """Say that a reload begins; `reloaded` has to follow."""
        # From Type=notify-reload on: systemd wants to see that it is no older reload.
        moment = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        variables = {"RELOADING": "1", "MONOTONIC_USEC": str(moment)}
        return self._tell(variables, {"ready": False, "reloading": True}, status)

    def reloaded(self, status: str = "", *, size: int | None = None) -> bool:
        """Say that a reload is over, whether or not it succeeded."""
        return self.ready(status, size=size)

    def stopping(self, status: str = "") -> bool:
        """Say that we are about to end."""
        return self._tell({"STOPPING": "1"}, {"stopping": True}, status)

    def status(self, text: str) -> bool:
        """Say something to people: one line."""
        return self._tell({}, {}, text)

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for *seconds* [s] from now on to start, reload or stop in."""
        return self._notify({"EXTEND_TIMEOUT_USEC": str(max(1, round(seconds * 1e6)))})

    def watchdog(self) -> bool:
        """Say that we are well."""
        return self._notify({"WATCHDOG": "1"})

    def store(self, name: str, descriptor: int) -> bool:
        """Have the manager keep *descriptor*, and hand it over to our successor.

        It comes back as by socket activation: see `AdoptedDescriptors`. FDPOLL=0: it
        is kept also when its other end hangs up.

        Raises:
            ValueError: *name* is none for a descriptor, or *descriptor* is not open.
        """
        variables = {"FDSTORE": "1", "FDNAME": _checked(name), "FDPOLL": "0"}
        return self._notify(variables, [descriptor])

    def unstore(self, name: str) -> bool:
        """Have the manager close all that it keeps as *name*; raises as `store`."""
        return self._notify({"FDSTOREREMOVE": "1", "FDNAME": _checked(name)})

    def _tell(
        self, variables: Mapping[str, str], news: dict[str, object], status: str
    ) -> bool:
        """Say the same to both."""
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
            # A pipe that nobody reads is no reason to wait.
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
    """Call *check* over and over, and tell the watchdog each time it passed.

    So a *check* that hangs or raises (which ends this as well) has the manager start
    us anew. Without a watchdog this returns at once.
    """
    if (interval := manager.watchdog_interval) is None:
        return
    while True:
        # From start to start: the time that a check takes is not on top of it.
        due = trio.current_time() + interval
        await check()
        manager.watchdog()
        await trio.sleep_until(due)


def _one_line(text: str) -> str:
    """A line break would begin another variable, and be a lie of our own."""
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_STATUS]).strip()


def _checked(name: str) -> str:
    is_name = name.isascii() and name.isprintable() and ":" not in name
    if not name or not is_name or len(name) > _MAX_NAME:
        raise ValueError(
            f"expected up to {_MAX_NAME} ASCII characters without colons, got {name!r}"
        )
    return name
