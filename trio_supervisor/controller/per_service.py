"""Run a task for each service of the present generation that needs one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from trio_supervisor.controller.fleet.generation import Generation, Unit
from trio_supervisor.controller.verbs import Verbs
from trio_supervisor.tasks import open_nursery

Task: TypeAlias = Callable[[], Awaitable[None]]


class ServiceOwner(Protocol):
    """What such tasks ask of the controller."""

    verbs: Verbs

    @property
    def generation(self) -> Generation: ...
    @property
    def is_stopping(self) -> bool: ...
    async def wait_take_over(self) -> None: ...


async def run_per_service(
    owner: ServiceOwner, task_of: Callable[[Unit], Task | None]
) -> None:
    """Run the tasks until cancelled; begin again with each new generation.

    Args:
        task_of: Returns the task of a service; None: it needs none.
    """
    while True:
        async with open_nursery() as nursery:
            for unit in owner.generation.units.values():
                if (task := task_of(unit)) is not None:
                    nursery.start_soon(task)
            await owner.wait_take_over()
            nursery.cancel_scope.cancel()
