"""Makes generations: a fork server for each, and what starts its workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio
from attrs import define

from trio_supervisor.controller.child import Child
from trio_supervisor.controller.generation import Generation
from trio_supervisor.controller.launch import (
    Launchers,
    fork_plan,
    sources_of,
)
from trio_supervisor.controller.plan import ChildPlan, Spawn
from trio_supervisor.controller.socket_keys import socket_keys
from trio_supervisor.controller.starting import SupervisorLauncher
from trio_supervisor.controller.surroundings import Surroundings
from trio_supervisor.policy.reload import ServiceFacts
from trio_supervisor.process.fork_server_start import (
    ForkServerPlan,
    Started,
    end_early,
)
from trio_supervisor.process.forking import Forker, open_forker
from trio_supervisor.process.sockets import SocketSet
from trio_supervisor.process.sources import Reference
from trio_supervisor.spec import AnyService, Application

MakeChild = Callable[[ChildPlan, Spawn], Child]


@define(eq=False)
class Workshop:
    """Makes the generations of one controller."""

    surroundings: Surroundings
    sockets: SocketSet
    source: Reference | None
    """Where the application comes from; None: from the program that embeds us."""
    is_subreaper: bool
    """Whether orphans below us become children of ours: those of a fork server, too."""
    _nursery: trio.Nursery
    """Owns the fork servers."""
    _early: Started | None = None
    """A fork server that was started already, for the first generation."""

    async def make(
        self,
        number: int,
        application: Application,
        facts: Mapping[str, ServiceFacts] | None,
        make_child: MakeChild,
        sockets: SocketSet,
    ) -> tuple[Generation, SupervisorLauncher]:
        """Make a generation without workers; its fork server begins to import.

        Raises:
            SpecError: something cannot be pickled.
        """
        sources = sources_of(application, self.source)
        plan = fork_plan(application, sources, self.surroundings)
        early, self._early = self._early, None
        forker, scope = None, trio.CancelScope()
        if plan is not None and self.is_subreaper:
            forker = await self._nursery.start(_own_forker, plan, early, scope)
        elif early is not None:
            end_early(early)
        needs = application.needs()
        launchers = Launchers(
            number=number,
            sources=sources,
            surroundings=self.surroundings,
            forker=forker,
            sockets=sockets,
            socket_keys=socket_keys(application)[1],
            needs=needs,
        )

        def make_worker(service: AnyService, index: int) -> Child:
            plan = launchers.plan_of(service, index)
            return make_child(plan, launchers.worker(service, index, plan))

        generation = Generation(
            number,
            application,
            make_worker,
            launchers,
            facts,
            scope.cancel,
        )
        return generation, launchers.supervisor()


async def _own_forker(
    plan: ForkServerPlan,
    early: Started | None,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[Forker],
) -> None:
    with scope:
        async with open_forker(plan, early) as forker:
            task_status.started(forker)
            await trio.sleep_forever()
