"""Run the pre-stop command of a process."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio
from attrs import frozen

from trio_supervisor.process.child import Process, describe_exit
from trio_supervisor.process.spawn.attributes import NO_ATTRIBUTES, ProcessAttributes
from trio_supervisor.process.spawn.helper import open_helper
from trio_supervisor.tasks import open_nursery

logger = logging.getLogger(__name__)


@frozen
class PreStopCommand:
    """Command to run before the stop signal; its failure is not fatal."""

    _arguments: tuple[str, ...]
    _environment: Mapping[str, str]
    _directory: str | None
    _attributes: ProcessAttributes = NO_ATTRIBUTES

    async def __call__(self, process: Process) -> None:
        """Run the command until it exits; if cancelled, stop it."""
        environment = {**self._environment, "MAINPID": str(process.pid)}
        try:
            async with open_helper(
                self._arguments,
                environment=environment,
                directory=self._directory,
                attributes=self._attributes,
            ) as helper:
                await self._run(process, helper)
        except OSError as exc:
            logger.warning(
                "cannot run pre_stop of pid %d: %s; stopping anyway", process.pid, exc
            )

    async def _run(self, process: Process, helper: Process) -> None:
        async with open_nursery() as nursery:
            # Stop the command once the process has exited on its own.
            nursery.start_soon(_cancel_after, process, nursery.cancel_scope)
            if (code := await helper.wait()) != 0:
                how = describe_exit(code)
                logger.warning(
                    "pre_stop of pid %d failed (%s); stopping anyway", process.pid, how
                )
            nursery.cancel_scope.cancel()


async def _cancel_after(process: Process, scope: trio.CancelScope) -> None:
    await process.wait()
    scope.cancel()
