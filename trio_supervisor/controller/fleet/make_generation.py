"""Make generations: the fork server and launchers of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import trio
from attrs import define, field

from trio_supervisor.application import AnyService, Application
from trio_supervisor.application.templates import filled
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ChildPlan, Spawn
from trio_supervisor.controller.fleet.generation import Generation
from trio_supervisor.controller.launch.context import LaunchContext
from trio_supervisor.controller.launch.factory import (
    Forkers,
    Launchers,
    ServerPlan,
    fork_plans,
    sources_of,
)
from trio_supervisor.controller.launch.launchers import SupervisorLauncher
from trio_supervisor.controller.launch.preflight import check_startable
from trio_supervisor.controller.launch.socket_keys import socket_keys
from trio_supervisor.policy.reload import ServiceFacts
from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.imports.declaration import Declared
from trio_supervisor.process.imports.declaration_wait import wait_declared
from trio_supervisor.process.imports.import_check import declare
from trio_supervisor.process.sockets.sockets import SocketSet
from trio_supervisor.process.spawn.code_source import Reference
from trio_supervisor.process.spawn.fork_client import ForkClient, open_fork_client
from trio_supervisor.process.spawn.fork_server_protocol import (
    StartedServer,
    fork_server_plan,
    kill_server,
    start_fork_server,
)
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.tasks import ProtectedNursery

MakeChild = Callable[[ChildPlan, Spawn], Child]


@define(eq=False)
class Imported:
    """Application declared by an import, and the fork server that holds its code.

    Leaving it as a context manager stops the server unless it was adopted.
    """

    _declared: Declared
    _server: StartedServer | None = field(default=None)

    @property
    def application(self) -> Application:
        """Declared application; its functions may be names only."""
        return self._declared.application

    @property
    def facts(self) -> Mapping[str, ServiceFacts]:
        """Facts about each service that a reload compares."""
        return self._declared.facts

    @property
    def files(self) -> Mapping[str, str] | None:
        """Imported files; None: unknown."""
        return self._declared.files

    @property
    def import_seconds(self) -> float | None:
        """How long the import took [s]; None: unknown."""
        return self._declared.import_seconds

    def adopt(self) -> StartedServer | None:
        """Return the server, once; the caller must stop and reap it."""
        server, self._server = self._server, None
        return server

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if (server := self.adopt()) is not None:
            kill_server(server)


@define(eq=False)
class GenerationFactory:
    """Factory of the generations of one controller."""

    context: LaunchContext
    sockets: SocketSet
    source: Reference | None
    """Target of the application; None: passed in by the embedding program."""
    is_subreaper: bool
    """Whether orphans, also of fork servers, are reparented to this process."""
    _nursery: ProtectedNursery
    """Nursery that owns the fork servers."""
    import_timeout: float | None = None
    """Timeout of an import [s]; None: no timeout."""
    directory: str | None = None
    """Working directory of each new generation; None: that of this process, which the
    embedding program controls."""

    async def check_startable(
        self,
        application: Application,
        names: Collection[str],
        *,
        were_started: bool = False,
    ) -> None:
        """Check that everything the services *names* need is present; see `preflight`.

        Raises:
            SpecError: something is missing; all of it is listed.
        """
        environment = self.context.environment
        await check_startable(
            application,
            names,
            environment,
            socket_path=self.context.socket_path,
            were_started=were_started,
        )

    async def import_again(self, source: Reference) -> Imported:
        """Import *source* in a new process; return what it declares now.

        If cancelled, stops that process.

        Raises:
            TargetError, SpecError, PlatformError: as for `wait_declared`.
            OSError: no process can be started.
        """
        environment = self.context.child_environment({})
        timeout = self.import_timeout
        if not (IS_LINUX and self.is_subreaper):
            return Imported(await declare(source, environment, timeout))
        plan = fork_server_plan(self.context.title, [source], environment)
        server = await run_in_thread(start_fork_server, plan)
        return Imported(await wait_declared(server, source.target, timeout), server)

    async def make(
        self,
        number: int,
        application: Application,
        facts: Mapping[str, ServiceFacts] | None,
        make_child: MakeChild,
        sockets: SocketSet,
        server: StartedServer | None = None,
        files: Mapping[str, str] | None = None,
    ) -> tuple[Generation, SupervisorLauncher]:
        """Make a generation without workers.

        Args:
            server: A fork server that has imported *application*; the generation takes
                ownership. None: a new one starts the import now.
            files: Its code files; see `code_files`. None: unknown.

        Raises:
            SpecError: an object cannot be pickled.
        """
        scope = trio.CancelScope()
        sources = sources_of(application, self.source)
        plans = fork_plans(application, sources, self.context)
        launchers = Launchers(
            number=number,
            sources=sources,
            context=self.context,
            forkers=await self._open_forkers(plans, server, files, scope),
            sockets=sockets,
            socket_keys=socket_keys(application)[1],
            needs=application.needs(),
            files=files,
        )
        make_worker = worker_maker(launchers, make_child)
        generation = Generation(
            number, application, make_worker, launchers, facts, scope.cancel
        )
        return generation, launchers.supervisor()

    async def _open_forkers(
        self,
        plans: Sequence[ServerPlan],
        server: StartedServer | None,
        files: Mapping[str, str] | None,
        scope: trio.CancelScope,
    ) -> Forkers:
        """Open the fork servers of a generation; they end when *scope* is cancelled."""
        if plans and self.is_subreaper:
            args = plans, server, files, scope
            forkers: Forkers = await self._nursery.start(_own_forkers, *args)
            return forkers
        if server is not None:
            kill_server(server)
        return Forkers()


def worker_maker(
    launchers: Launchers, make_child: MakeChild
) -> Callable[[AnyService, int], Child]:
    """Return what makes the worker of a service with a number, not running yet."""

    def make_worker(service: AnyService, index: int) -> Child:
        service = filled(service, index)
        plan = launchers.plan_of(service, index)
        return make_child(plan, launchers.worker(service, index, plan))

    return make_worker


async def _own_forkers(
    plans: Sequence[ServerPlan],
    server: StartedServer | None,
    files: Mapping[str, str] | None,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[Forkers],
) -> None:
    """Own the fork servers of one generation, beginning with *server*."""
    async with AsyncExitStack() as stack:
        stack.enter_context(scope)
        first: ForkClient | None = None
        by_service: dict[str, ForkClient] = {}
        for plan in plans:
            opening = open_fork_client(
                plan.plan, server, is_lazy=plan.is_lazy, code=files
            )
            fork_client = await stack.enter_async_context(opening)
            first, server = first or fork_client, None
            by_service.update(dict.fromkeys(plan.services, fork_client))
        task_status.started(Forkers(first, by_service))
        await trio.sleep_forever()
