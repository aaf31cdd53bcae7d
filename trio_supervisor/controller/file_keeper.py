"""Recreate sockets and output files that were removed at run time, and log it.

After a cleaner of temporary files, or ``rm -r`` of a run directory, clients must still
be able to reach the application.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.controller.core import ControllerCore
from trio_supervisor.errors import SupervisorError
from trio_supervisor.link.listener import ControlSocket
from trio_supervisor.tasks import open_nursery

logger = logging.getLogger(__name__)

# Between two looks: a few system calls [s].
_INTERVAL: Final = 0.5


async def keep_files(core: ControllerCore, listener: ControlSocket) -> None:
    """Check and recreate all files until cancelled."""
    keeper = _Keeper(core, listener)
    async with open_nursery() as nursery:
        while True:
            await trio.sleep(_INTERVAL)
            if core.is_stopping:
                return
            keeper.mend_listener()
            if names := keeper.mend_sockets():
                nursery.start_soon(keeper.renew, names)
            keeper.mend_output()


@define(eq=False)
class _Keeper:
    _core: ControllerCore
    _listener: ControlSocket
    _problems: dict[str, str] = field(factory=dict, init=False)
    """Problem last logged for each kind of file that cannot be recreated."""

    def mend_listener(self) -> None:
        """Recreate the control socket if it was removed."""
        paths = self._try("the control socket", self._listener.restore)
        for path in paths:
            logger.warning("%s was removed; recreated", path)
        if self._listener.path in paths:
            self._core.renew_supervisor("control socket recreated")

    def mend_sockets(self) -> set[str]:
        """Recreate removed sockets of services; return these services."""
        generation_factory = self._core.generation_factory
        keys = self._try("a socket of a service", generation_factory.sockets.restore)
        addresses = generation_factory.sockets.addresses
        for key in keys:
            logger.warning("%s was removed; recreated", addresses[key])
        services = self._core.generation.units
        return {
            name
            for name in services
            if set(keys) & set(self._core.members.socket_keys(name).values())
        }

    def mend_output(self) -> None:
        """Recreate log files that were removed."""
        hub = self._core.hub
        if hub is not None:
            for path in self._try("a log file", hub.restore):
                logger.warning("%s was removed; recreated", path)

    async def renew(self, services: Collection[str]) -> None:
        """Restart the workers of *services* so that they inherit the new sockets."""
        try:
            await self._core.verbs.restart(
                list(services), "socket recreated", max_unavailable=1
            )
        except SupervisorError as exc:
            logger.warning(
                "restart for the recreated socket failed (%s): %s",
                ", ".join(services),
                exc,
            )

    def _try(self, what: str, mend: Callable[[], Sequence[str]]) -> Sequence[str]:
        try:
            found = mend()
        except OSError as exc:
            # Once, and not again every half a second.
            if self._problems.get(what) != str(exc):
                self._problems[what] = str(exc)
                logger.error("cannot recreate %s: %s; retrying", what, exc)
            return ()
        self._problems.pop(what, None)
        return found
