"""Route the notifications of processes to their children."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.controller.child.child import Child
from trio_supervisor.process.notify.channel import Channel, NotificationReceiver
from trio_supervisor.tasks import ProtectedNursery

logger = logging.getLogger(__name__)

# After a batch: so a flood costs a few percent of a processor, and its sender waits.
_BREATH: Final = 0.02
# Between two looks whether the file of a socket is still there [s].
_CHECK: Final = 0.5


@define(eq=False)
class _Route:
    """One child, and the channel of its process."""

    child: Child
    channel: Channel | None
    scopes: list[trio.CancelScope] = field(factory=list)
    """Around all that is waited for there."""


@define(eq=False)
class NotificationRouter:
    """Passes on notifications to the child whose process has sent them."""

    _nursery: Callable[[], ProtectedNursery]
    _directory: str
    _routes: dict[int, _Route] = field(factory=dict, init=False)

    @property
    def children(self) -> Mapping[int, Child]:
        """Those that have a process, by its id."""
        return {process_id: route.child for process_id, route in self._routes.items()}

    def add(self, process_id: int, child: Child, channel: Channel | None) -> None:
        """Have *child* hear what its process says, and what it has said before."""
        route = self._routes[process_id] = _Route(child, channel)
        if channel is None:
            return
        pulse = _silent
        if channel.heartbeat is not None:
            pulse, child.loop_lag = channel.heartbeat.age, channel.heartbeat.lag
        child.listen(partial(_read_notifications, route, process_id), pulse)
        for receiver in channel.receivers:
            route.scopes.append(scope := trio.CancelScope())
            self._nursery().start_soon(self._listen, route, process_id, receiver, scope)

    def remove(self, process_id: int) -> None:
        """Say that the process has ended, and was heard to the end."""
        if (route := self._routes.pop(process_id, None)) is None:
            return
        for scope in route.scopes:
            scope.cancel()
        if route.channel is not None:
            route.channel.close()
            route.channel = None

    async def _listen(
        self,
        route: _Route,
        process_id: int,
        receiver: NotificationReceiver,
        scope: trio.CancelScope,
    ) -> None:
        """Pass on what comes, until its process has ended."""
        with scope:
            while True:
                await trio.lowlevel.checkpoint_if_cancelled()
                with trio.move_on_after(_CHECK if receiver.has_file else math.inf):
                    await trio.lowlevel.wait_readable(receiver.socket)
                    if _pass_on(route, process_id, receiver):
                        await trio.sleep(_BREATH)
                if receiver.has_file:
                    _pass_on(route, process_id, receiver)
                    self._mend(route, receiver)

    def _mend(self, route: _Route, receiver: NotificationReceiver) -> None:
        try:
            is_restored = receiver.restore(self._directory)
        except OSError as exc:
            logger.error(
                "%s: cannot recreate its notification socket: %s; retrying",
                route.child.name,
                exc,
            )
            return
        if is_restored:
            logger.warning(
                "%s: its notification socket was removed; recreated", route.child.name
            )


def _read_notifications(route: _Route, process_id: int) -> None:
    """Pass on what is there already, without waiting."""
    if route.channel is not None:
        for receiver in route.channel.receivers:
            _pass_on(route, process_id, receiver)


def _pass_on(route: _Route, process_id: int, receiver: NotificationReceiver) -> bool:
    """Pass on a batch; say whether there may be more."""
    found, is_more = receiver.receive_now(process_id)
    for notification in found:
        route.child.notified(notification)
    return is_more


def _silent() -> float | None:
    """The heartbeat of what has no pulse."""
    return None
