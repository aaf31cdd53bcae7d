"""Find out before a start whether processes can run as the declared user."""

from __future__ import annotations

import os
import sys
from typing import Final

from attrs import define

from trio_supervisor.process.identity import Identity
from trio_supervisor.process.spawn.attributes import ProcessAttributes
from trio_supervisor.process.spawn.exec import spawn_exec
from trio_supervisor.process.spawn.refused import AttributeRefusedError

_PYTHON: Final = os.path.realpath(sys.executable)


async def refused_identity(
    attributes: ProcessAttributes, *, socket_path: str | None
) -> AttributeRefusedError | None:
    """Return why processes cannot run as the user of *attributes*; None: they can.

    Args:
        socket_path: Of the supervisor, for a process that runs this package and has to
            connect; None: another program.
    """
    try:
        identity = await attributes.identity()
        if identity is None:
            return None
        await _Trial(attributes, identity).run(socket_path)
    except AttributeRefusedError as exc:
        return exc
    return None


@define
class _Trial:
    """Tries with test(1), as that user: modes alone do not tell, there may be ACLs."""

    _attributes: ProcessAttributes
    _identity: Identity

    async def run(self, socket_path: str | None) -> None:
        if os.geteuid() != 0:
            self._refuse(
                "only root may start processes as another user or group; this "
                f"controller runs as user {os.geteuid()}"
            )
        await self._may_enter("/")  # whether it may become that user at all
        if socket_path is None:
            return
        directory = os.path.dirname(socket_path) or "."
        if not await self._may_enter(sys.executable):
            self._refuse(
                f"user {self._identity.name} may not execute Python, {_PYTHON}; "
                f"install it where all users can read it"
            )
        if not await self._may_enter(directory):
            self._refuse(
                f"user {self._identity.name} may not enter {directory}, so that its "
                f"workers cannot connect to the socket there; choose another place "
                f"with --socket"
            )

    def _refuse(self, reason: str) -> None:
        attributes = self._attributes
        for option in ("user", "group", "supplementary_groups"):
            value = getattr(attributes, option)
            if value is not None:
                setting = f"{option}={value!r}"
                raise AttributeRefusedError(option, setting, reason)

    async def _may_enter(self, path: str) -> bool:
        """Return whether it may enter, or execute, *path*; True: unknown."""
        try:
            process = await spawn_exec(
                ["test", "-x", path],
                environment=os.environ,
                own=self._identity.setting,
            )
        except AttributeRefusedError as exc:
            self._refuse(exc.reason)
            raise
        except OSError:  # test(1) cannot be executed
            return True
        try:
            return await process.wait() != 1
        finally:
            process.close()
