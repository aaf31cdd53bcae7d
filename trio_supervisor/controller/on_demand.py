"""Start services when a client connects, and stop them when they are idle."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, Protocol

import trio
from attrs import define, field

from trio_supervisor.controller.fleet.generation import Unit
from trio_supervisor.controller.fleet.members import Members
from trio_supervisor.controller.fleet.ordered_stop import stop_operation
from trio_supervisor.controller.fleet.reload import Reloader
from trio_supervisor.controller.per_service import (
    ServiceOwner,
    Task,
    run_per_service,
)
from trio_supervisor.errors import SupervisorError, UnavailableError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.restart import Cause
from trio_supervisor.process.sockets.open_connections import count_connections
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.tasks import open_nursery

logger = logging.getLogger(__name__)

_UP: Final = (State.READY, State.UNREADY)
_CONNECTION: Final = "a connection"
"""What `status` says that a worker waits for."""
# How often running workers are looked after; an idle time is shorter by this [s].
_LOOK_INTERVAL: Final = 1.0
# A socket whose file was made again is another one [s].
_SOCKETS_FOR: Final = 10.0
_MAX_RETRY: Final = 60.0


class DemandOwner(ServiceOwner, Protocol):
    """What is asked of the controller."""

    members: Members
    reloader: Reloader


@define(eq=False)
class OnDemand:
    """All services that start on demand."""

    _owner: DemandOwner

    async def run(self) -> None:
        """Start and stop them until cancelled."""
        await run_per_service(self._owner, self._task_of)

    def _task_of(self, unit: Unit) -> Task | None:
        service = unit.service
        return _Demand(self._owner, service.name).run if service.on_demand else None


@define(eq=False)
class _Demand:
    """One service, until the next generation takes over."""

    _owner: DemandOwner
    _name: str
    _used_at: float = field(factory=trio.current_time, init=False)
    """When it was last seen to have a connection."""
    _failures: int = field(default=0, init=False)
    """Starts in a row that failed."""

    @property
    def _unit(self) -> Unit:
        return self._owner.generation.units[self._name]

    @property
    def _is_down(self) -> bool:
        return all(c.is_down and not c.is_wanted for c in self._unit.children)

    @property
    def _is_paused(self) -> bool:
        return any(child.is_paused for child in self._unit.children)

    async def run(self) -> None:
        """Wait for connections while it is down, and for idleness while it is up."""
        while True:
            if not self._is_down:
                await trio.sleep(self._look_interval)
                await self._stop_if_idle()
            elif self._is_paused or self._owner.is_stopping:
                self._show("")
                await trio.sleep(self._look_interval)
            else:
                self._show(_CONNECTION)
                with self._open_sockets() as sockets:
                    with trio.move_on_after(_SOCKETS_FOR) as wait:
                        await _wait_any(sockets)
                self._used_at = trio.current_time()
                if not wait.cancelled_caught:
                    await self._start()

    def _show(self, waiting_for: str) -> None:
        """Show in `status` what the workers wait for."""
        for child in self._unit.children:
            if child.waiting_for != waiting_for:
                child.waiting_for = waiting_for
                child.tell()

    @property
    def _look_interval(self) -> float:
        timeout = self._unit.service.idle_timeout
        return min(_LOOK_INTERVAL, timeout / 4 if timeout else _LOOK_INTERVAL)

    async def _start(self) -> None:
        if not self._is_down or self._is_paused or self._owner.is_stopping:
            return
        try:
            self._owner.reloader.check_idle(but_canary=True)
        except UnavailableError:  # the next generation has tasks of its own
            await trio.sleep(self._look_interval)
            return
        logger.info("%s: a client has connected; starting", self._name)
        try:
            await self._owner.verbs.start([self._name], Cause.IDLE)
        except SupervisorError as exc:
            if self._is_paused or self._owner.is_stopping:
                return
            self._failures += 1
            delay = min(_MAX_RETRY, 2.0 ** min(self._failures - 1, 16))
            logger.warning(
                "%s: not started: %s; connections wait; trying again in %g s",
                *(self._name, exc, delay),
            )
            await trio.sleep(delay)
        else:
            self._failures = 0
            self._used_at = trio.current_time()

    async def _stop_if_idle(self) -> None:
        timeout = self._unit.service.idle_timeout
        if timeout is None or self._is_down or self._owner.is_stopping:
            return
        now = trio.current_time()
        if self._is_needed or await self._is_used():
            self._used_at = now
        elif now - self._used_at >= timeout:
            reason = f"no connection for {timeout:g} s (idle_timeout)"
            generation, children = self._owner.generation, self._unit.children
            stop = stop_operation(generation, children, reason, Cause.IDLE)
            await self._owner.members.fleet.carry_out(stop)

    @property
    def _is_needed(self) -> bool:
        """Whether a worker is starting, or another service that runs depends on it."""
        dependents = self._owner.generation.dependents_of(self._name)
        return any(c.is_wanted or not c.is_down for c in dependents) or any(
            child.state not in _UP
            for child in self._unit.children
            if child.is_wanted or not child.is_down
        )

    async def _is_used(self) -> bool:
        with self._open_sockets() as sockets:
            counts = [
                await run_in_thread(count_connections, listening)
                for listening in sockets
            ]
        return any(count is None or count for count in counts)

    @contextmanager
    def _open_sockets(self) -> Iterator[list[socket.socket]]:
        """Open copies of its listening sockets for the length of the block.

        Two services may share a socket, and trio lets one task wait for a descriptor.
        """
        launchers = self._owner.generation.launchers
        keys = launchers.socket_keys[self._name].values()
        with ExitStack() as stack:
            yield [
                stack.enter_context(socket.socket(fileno=os.dup(descriptor)))
                for descriptor in launchers.sockets.descriptors(keys, 0).values()
            ]


async def _wait_any(sockets: list[socket.socket]) -> None:
    """Wait until a client has connected to one of *sockets*."""
    async with open_nursery() as nursery:

        async def wait(listening: socket.socket) -> None:
            await trio.lowlevel.wait_readable(listening)
            nursery.cancel_scope.cancel()

        for listening in sockets:
            nursery.start_soon(wait, listening)
