"""What processes say of themselves, and whose it is."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from typing import Final

from attrs import define, field

from trio_supervisor.controller.child import Child
from trio_supervisor.process.notify import Notification, NotifySocket

# More than the kernel queues for a datagram socket.
_EARLY: Final = 1024


@define(eq=False)
class Postbox:
    """Passes on notifications to the children whose processes have sent them."""

    _children: dict[int, Child] = field(factory=dict, init=False)
    _socket: NotifySocket | None = field(default=None, init=False)
    _early: deque[Notification] = field(
        factory=lambda: deque(maxlen=_EARLY), init=False
    )
    """From processes that nobody has told us of yet."""

    @property
    def children(self) -> Mapping[int, Child]:
        """Those that have a process, by its id."""
        return self._children

    def add(self, process_id: int, child: Child) -> None:
        """Have *child* hear what its process says, and what it has said before."""
        self._children[process_id] = child
        early = [n for n in self._early if n.process_id == process_id]
        for notification in early:
            self._early.remove(notification)
            child.notified(notification)

    def remove(self, process_id: int) -> None:
        """Say that the process has ended, and was heard to the end."""
        self._children.pop(process_id, None)

    async def run(self, notify: NotifySocket) -> None:
        """Pass on what comes, until cancelled."""
        self._socket = notify
        while True:
            self._route(await notify.receive())

    def empty(self) -> None:
        """Pass on what is there already, without waiting."""
        if self._socket is not None:
            for notification in self._socket.receive_now():
                self._route(notification)

    def _route(self, notification: Notification) -> None:
        child = self._children.get(notification.process_id)
        if child is None:
            # A helper of a command, as systemd-notify in a shell script.
            child = self._children.get(_group_of(notification.process_id))
        if child is not None:
            child.notified(notification)
        else:
            self._early.append(notification)


def _group_of(process_id: int) -> int:
    try:
        return os.getpgid(process_id)
    except ProcessLookupError:
        return 0
