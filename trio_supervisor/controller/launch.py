"""What starts the children of one generation."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from trio_supervisor.controller.plan import ChildPlan, Prober, Spawn
from trio_supervisor.controller.pre_stop import PreStopCommand
from trio_supervisor.controller.probing import make_prober
from trio_supervisor.controller.starting import (
    CommandLauncher,
    PythonLauncher,
    SupervisorLauncher,
    WorkerLauncher,
)
from trio_supervisor.controller.surroundings import Surroundings
from trio_supervisor.process.boot import pickle_source
from trio_supervisor.process.environment import (
    NAME_VARIABLE,
)
from trio_supervisor.process.fork_server_start import (
    ForkServerPlan,
    fork_server_plan,
)
from trio_supervisor.process.forking import Forker
from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.sockets import SocketSet
from trio_supervisor.process.sources import Pickled, Reference
from trio_supervisor.process.stopping import PreStop, StopPlan
from trio_supervisor.spec import (
    SUPERVISOR_NAME,
    AnyService,
    Application,
    Command,
    Service,
)


def sources_of(
    application: Application, source: Reference | None
) -> dict[str, Reference | Pickled]:
    """Return from where each service, and the supervisor, gets its code.

    Raises:
        SpecError: without *source*, something cannot be pickled.
    """
    if source is not None:
        names = [service.name for service in application.services]
        return dict.fromkeys([*names, SUPERVISOR_NAME], source)
    sources: dict[str, Reference | Pickled] = {
        SUPERVISOR_NAME: pickle_source("monitors", application.monitors)
    }
    for service in application.services:
        if isinstance(service, Service):
            field_name = f"{application.path(service.name)}.target"
            sources[service.name] = pickle_source(field_name, service.target)
    return sources


@frozen(kw_only=True)
class Launchers:
    """What starts the children of one generation."""

    number: int
    sources: Mapping[str, Reference | Pickled]
    surroundings: Surroundings
    forker: Forker | None
    sockets: SocketSet
    socket_keys: Mapping[str, Mapping[str, str]]
    """By service: its own name of each socket, and the name in *sockets*."""
    needs: Mapping[str, Mapping[str, str]]

    def plan_of(self, service: AnyService, index: int) -> ChildPlan:
        """Return how worker *index* of *service* is to be treated."""
        return ChildPlan(
            name=f"{service.name}.{index}",
            service=service.name,
            generation=self.number,
            rules=service.rules,
            stop=StopPlan(
                signal=service.stop_signal,
                timeout=service.stop_timeout,
                kill_mode=service.kill_mode,
            ),
            pre_stop=self._pre_stop(service, index),
            startup_timeout=service.startup_timeout,
            health_check_timeout=service.health_check_timeout,
            max_lifetime=service.max_lifetime,
            stable_for=service.stable_for,
            notifies=isinstance(service, Service) or service.notify,
            prober=self._prober(service),
            connects=isinstance(service, Service),
            beats_from_ready=not (
                isinstance(service, Service) and service.backend == "sync"
            ),
            needs=self.needs_of(service),
        )

    def needs_of(self, service: AnyService) -> tuple[str, ...]:
        """Return what *service* depends on, in words."""
        needs = self.needs.get(service.name, {})
        return tuple(f"{name} ({how})" for name, how in needs.items())

    def worker(self, service: AnyService, index: int, plan: ChildPlan) -> Spawn:
        """Return what starts worker *index* of *service*."""
        keys = self.socket_keys.get(service.name, {})
        if isinstance(service, Command):
            return CommandLauncher(
                service, index, plan, self.surroundings, keys, self.sockets
            )
        python = PythonLauncher(
            "trio_supervisor.worker",
            f"{plan.name} ({self.surroundings.title})",
            self.forker if service.start_method == "fork_server" else None,
        )
        return WorkerLauncher(
            service,
            index,
            plan,
            self.sources[service.name],
            self.surroundings,
            python,
            keys,
            self.sockets,
        )

    def supervisor(self) -> SupervisorLauncher:
        """Return what starts the supervisor."""
        title = f"{SUPERVISOR_NAME} ({self.surroundings.title})"
        python = PythonLauncher("trio_supervisor.supervisor", title, self.forker)
        source = self.sources[SUPERVISOR_NAME]
        return SupervisorLauncher(source, self.surroundings, python)

    def _prober(self, service: AnyService) -> Prober | None:
        if not isinstance(service, Command):
            return None
        environment = self.surroundings.child_environment(service.environment)
        return make_prober(service, environment)

    def _pre_stop(self, service: AnyService, index: int) -> PreStop | None:
        if service.pre_stop is None:
            return None
        environment = self.surroundings.child_environment(
            {NAME_VARIABLE: f"{service.name}.{index}", **service.environment}
        )
        return PreStopCommand(service.pre_stop, environment, service.directory)


def fork_plan(
    application: Application,
    sources: Mapping[str, Reference | Pickled],
    surroundings: Surroundings,
) -> ForkServerPlan | None:
    """Return how a fork server for *application* is started; None: it needs none."""
    if not IS_LINUX:
        return None  # its children would not be ours: no subreapers elsewhere
    services = [
        service
        for service in application.services
        if isinstance(service, Service) and service.start_method == "fork_server"
    ]
    if not services:
        return None
    wanted = [sources[service.name] for service in services]
    unique = [source for i, source in enumerate(wanted) if source not in wanted[:i]]
    return fork_server_plan(
        surroundings.title, unique, surroundings.child_environment({})
    )
