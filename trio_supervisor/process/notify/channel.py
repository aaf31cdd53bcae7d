"""What one child and its helpers say to the controller, over sockets of its own.

One that runs this package inherits a connected socket: no path that may be removed, no
right that is lost with another user, and nobody else who could fill its queue. Others
find an address in ``NOTIFY_SOCKET``: an abstract one on Linux, which is no file either;
else a path, which is checked, and made again when it is gone.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import struct
import sys
from contextlib import suppress
from typing import Final, Self

from attrs import define, field

from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.notify.heartbeat import HeartbeatReader, open_heartbeat
from trio_supervisor.process.notify.sd_notify import (
    MAX_DATAGRAM,
    Notification,
    kernel_address,
    parse_fields,
)

logger = logging.getLogger(__name__)

BATCH: Final = 8
"""So many are taken at once, which is fewer than the kernel queues (11): a flood is
told by it, and does not take all of our time."""
_UCRED: Final = struct.Struct("3i")


@define(eq=False)
class NotificationReceiver:
    """One socket at which a child is heard."""

    socket: socket.socket
    _path: str | None = None
    """Where it is bound, if that is a file."""
    _inode: int = 0
    _is_private: bool = False
    """Whether nobody has its other end who did not get it from us."""

    def receive_now(self, process_id: int) -> tuple[list[Notification], bool]:
        """Return what is there, and whether there may be more.

        What is too long, or comes from a stranger, is dropped.

        Args:
            process_id: Of the child: it, and what is in its group, may speak here.
        """
        found: list[Notification] = []
        for _ in range(BATCH):
            try:
                data, ancillary, flags, _ = self.socket.recvmsg(
                    MAX_DATAGRAM, socket.CMSG_SPACE(_UCRED.size)
                )
            except OSError:  # none is left
                return found, False
            if flags & socket.MSG_TRUNC:
                continue
            fields = parse_fields(data)
            sender = _sender(ancillary, fields.get("MAINPID", ""))
            if self._is_private or _may_speak(sender, process_id):
                found.append(Notification(process_id=sender[0], fields=fields))
        return found, True

    def restore(self, directory: str) -> bool:
        """Make its file again if it is gone; say whether it was.

        Raises:
            OSError: that is not possible now.
        """
        if self._path is None or _inode(self._path) == self._inode:
            return False
        os.makedirs(directory, mode=0o700, exist_ok=True)
        fresh = _bind(self._path)
        # Under the same number: whoever waits for it goes on.
        os.dup2(fresh.fileno(), self.socket.fileno(), inheritable=False)
        fresh.close()
        self._inode = _inode(self._path)
        return True

    @property
    def has_file(self) -> bool:
        """Whether there is something to `restore`."""
        return self._path is not None

    def close(self) -> None:
        """Close the socket, and remove its file."""
        self.socket.close()
        if self._path is not None:
            with suppress(OSError):
                os.unlink(self._path)


@define(eq=False)
class Channel:
    """The controller's end, of one process; made by `open_channel`.

    A context manager: it is closed at the end, unless `keep` was called.
    """

    address: str
    """For ``NOTIFY_SOCKET``."""
    receivers: tuple[NotificationReceiver, ...]
    heartbeat: HeartbeatReader | None = None
    _inherited: socket.socket | None = field(default=None)
    _is_kept: bool = field(default=False, init=False)

    @property
    def descriptors(self) -> list[int]:
        """What the process inherits, as `notify.open_notifier` expects it."""
        if self._inherited is None or self.heartbeat is None:
            return []
        assert self.heartbeat.descriptor is not None
        return [self._inherited.fileno(), self.heartbeat.descriptor]

    def keep(self) -> None:
        """Say that the process has been started, and has what it inherits."""
        self._is_kept = True
        if self._inherited is not None:
            self._inherited.close()
        if self.heartbeat is not None:
            self.heartbeat.close_descriptor()

    def close(self) -> None:
        """Close everything."""
        for receiver in self.receivers:
            receiver.close()
        if self.heartbeat is not None:
            self.heartbeat.close()
        if self._inherited is not None:
            self._inherited.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_kept:
            self.close()


def open_channel(
    directory: str, *, is_ours: bool, is_abstract: bool = IS_LINUX
) -> Channel:
    """Return a new one, for one process.

    Args:
        directory: Closed to other users: for files, where there have to be any.
        is_ours: Whether the process runs this package, and inherits its end.
        is_abstract: Whether the kernel has addresses that are no files.

    Raises:
        OSError: there are no descriptors left, or no place for a file.
    """
    name = f"trio_supervisor-{os.getpid()}-{secrets.token_hex(8)}"
    # Short: all of an address has to go into 108 bytes, and TMPDIR may be long.
    path = None if is_abstract else os.path.join(directory, secrets.token_hex(4))
    address = path or f"@{name}"
    named = _bind(address)
    inode = 0 if path is None else _inode(path)
    channel = Channel(address, (NotificationReceiver(named, path, inode),))
    if not is_ours:
        return channel
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        channel.receivers += (NotificationReceiver(_listening(ours), is_private=True),)
        channel._inherited = theirs
        channel.heartbeat = open_heartbeat()
    except BaseException:
        channel.close()
        raise
    return channel


def _bind(address: str) -> socket.socket:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        receiver.bind(kernel_address(address))
    except BaseException:
        receiver.close()
        raise
    return _listening(receiver)


def _listening(receiver: socket.socket) -> socket.socket:
    receiver.setblocking(False)
    if sys.platform == "linux":
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return receiver


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def _sender(ancillary: list[tuple[int, int, bytes]], main_pid: str) -> tuple[int, int]:
    """Return the process and the user that the kernel names."""
    if sys.platform != "linux":
        # No credentials there; the socket's directory is closed to other users.
        return int(main_pid) if main_pid.isdecimal() else 0, os.getuid()
    for level, type_, data in ancillary:
        if level == socket.SOL_SOCKET and type_ == socket.SCM_CREDENTIALS:
            process_id, user, _ = _UCRED.unpack(data[: _UCRED.size])
            return process_id, user
    return 0, -1


def _may_speak(sender: tuple[int, int], process_id: int) -> bool:
    """Whether *sender* is the process itself, by whatever user, or a helper of it.

    A helper of this user that has ended already, as systemd-notify does at once, is
    believed: it got the address from the process.
    """
    speaker, user = sender
    if speaker == process_id:
        return True
    if user not in (0, os.getuid()):
        return False
    try:
        return os.getpgid(speaker) == process_id
    except ProcessLookupError:
        return True
