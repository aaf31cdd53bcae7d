"""Receive notifications of one child and its helpers, over its own sockets.

A child that runs this package inherits a connected socket: it needs no path that could
be removed and no permissions after a change of user, and no other process can fill its
queue. Other children get an address in ``NOTIFY_SOCKET``: an abstract one on Linux,
otherwise a path, whose file is recreated if it is removed.
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
"""Datagrams that are read at a time. Fewer than the kernel queues (11), so that a flood
is recognised and does not take all of the controller's time."""
_UCRED: Final = struct.Struct("3i")


@define(eq=False)
class NotificationReceiver:
    """One socket that receives notifications of a child."""

    socket: socket.socket
    _path: str | None = None
    """Path of its file, if it has one."""
    _inode: int = 0
    _is_private: bool = False
    """Whether only the child and its descendants can have the other end."""
    _user: int | None = None
    """User of the child; None: that of this process."""

    def receive_now(self, process_id: int) -> tuple[list[Notification], bool]:
        """Return the queued notifications, and whether there may be more.

        Datagrams that are too long or come from another process are dropped.

        Args:
            process_id: The child: it and the members of its group may send.
        """
        found: list[Notification] = []
        for _ in range(BATCH):
            try:
                data, ancillary, flags, _ = self.socket.recvmsg(
                    MAX_DATAGRAM, socket.CMSG_SPACE(_UCRED.size)
                )
            except OSError:  # the queue is empty
                return found, False
            if flags & socket.MSG_TRUNC:
                continue
            fields = parse_fields(data)
            sender = _sender(ancillary, fields.get("MAINPID", ""))
            if self._is_private or _may_send(sender, process_id, self._user):
                found.append(Notification(process_id=sender[0], fields=fields))
        return found, True

    def restore(self, directory: str) -> bool:
        """Recreate its file if it was removed; return whether it was.

        Raises:
            OSError: it cannot be created.
        """
        if self._path is None or _inode(self._path) == self._inode:
            return False
        os.makedirs(directory, mode=0o700, exist_ok=True)
        fresh = _bind(self._path)
        # Under the same number, so that waiting tasks continue.
        os.dup2(fresh.fileno(), self.socket.fileno(), inheritable=False)
        fresh.close()
        self._inode = _inode(self._path)
        return True

    @property
    def has_file(self) -> bool:
        """Whether it has a file that `restore` can recreate."""
        return self._path is not None

    def close(self) -> None:
        """Close the socket, and remove its file."""
        self.socket.close()
        if self._path is not None:
            with suppress(OSError):
                os.unlink(self._path)


@define(eq=False)
class Channel:
    """The controller's end of the sockets of one process; made by `open_channel`.

    As a context manager, it is closed at the end unless `keep` was called.
    """

    address: str
    """Value for ``NOTIFY_SOCKET``."""
    receivers: tuple[NotificationReceiver, ...]
    heartbeat: HeartbeatReader | None = None
    _inherited: socket.socket | None = field(default=None)
    _is_kept: bool = field(default=False, init=False)

    @property
    def descriptors(self) -> list[int]:
        """The descriptors for the process, as `open_notifier` expects them."""
        if self._inherited is None or self.heartbeat is None:
            return []
        assert self.heartbeat.descriptor is not None
        return [self._inherited.fileno(), self.heartbeat.descriptor]

    def keep(self) -> None:
        """Keep the channel open: the process has started and inherited its ends."""
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
    directory: str,
    *,
    is_ours: bool,
    is_abstract: bool = IS_LINUX,
    user: int | None = None,
) -> Channel:
    """Return a new channel for one process.

    Args:
        directory: Not accessible for other users; for socket files, if needed.
        is_ours: Whether the process runs this package, and inherits its end.
        is_abstract: Whether the kernel supports abstract addresses.
        user: The user that the process runs as; None: that of this process.

    Raises:
        OSError: no descriptors left, or the file cannot be created.
    """
    name = f"trio_supervisor-{os.getpid()}-{secrets.token_hex(8)}"
    # Short: an address is limited to 108 bytes, and TMPDIR may be long.
    path = None if is_abstract else os.path.join(directory, secrets.token_hex(4))
    address = path or f"@{name}"
    named = _bind(address)
    inode = 0 if path is None else _inode(path)
    channel = Channel(address, (NotificationReceiver(named, path, inode, user=user),))
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
    """Return pid and uid of the sender, from the kernel's credentials."""
    if sys.platform != "linux":
        # No credentials; but other users cannot access the socket's directory.
        return int(main_pid) if main_pid.isdecimal() else 0, os.getuid()
    for level, type_, data in ancillary:
        if level == socket.SOL_SOCKET and type_ == socket.SCM_CREDENTIALS:
            process_id, user, _ = _UCRED.unpack(data[: _UCRED.size])
            return process_id, user
    return 0, -1


def _may_send(
    sender: tuple[int, int], process_id: int, child_user: int | None = None
) -> bool:
    """Return whether *sender* is the process itself, as any user, or its helper.

    A helper of this user, or of the child's, that has exited already, such as
    systemd-notify, is accepted: it got the address from the process.
    """
    sender_id, user = sender
    if sender_id == process_id:
        return True
    if user not in (0, os.getuid(), child_user):
        return False
    try:
        return os.getpgid(sender_id) == process_id
    except ProcessLookupError:
        return True
