"""What starts the children of one generation."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from trio_supervisor.application import (
    SUPERVISOR_NAME,
    AnyService,
    Application,
    Command,
    Service,
)
from trio_supervisor.application.templates import common_environment
from trio_supervisor.controller.child.child_spec import ChildPlan, Prober, Spawn
from trio_supervisor.controller.child.health_probes import make_prober
from trio_supervisor.controller.child.pre_stop import PreStopCommand
from trio_supervisor.controller.launch.context import LaunchContext
from trio_supervisor.controller.launch.launchers import (
    CommandLauncher,
    SupervisorLauncher,
    WorkerLauncher,
)
from trio_supervisor.controller.launch.python_launcher import PythonLauncher
from trio_supervisor.errors import SpecError
from trio_supervisor.process.cleanup.stopping import PreStop, StopPlan
from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.identity import Identity
from trio_supervisor.process.sockets.sockets import SocketSet
from trio_supervisor.process.spawn.attributes import ProcessAttributes
from trio_supervisor.process.spawn.boot import SupervisorCode, pickle_source
from trio_supervisor.process.spawn.code_source import Pickled, Reference
from trio_supervisor.process.spawn.environment import (
    CODE_ONLY_VARIABLE,
    NAME_VARIABLE,
)
from trio_supervisor.process.spawn.fork_client import ForkClient
from trio_supervisor.process.spawn.fork_server_protocol import (
    ForkServerPlan,
    fork_server_plan,
)
from trio_supervisor.process.spawn.refused import AttributeRefusedError


def sources_of(
    application: Application, source: Reference | None
) -> dict[str, Reference | Pickled]:
    """Return from where each service, and the supervisor, gets its code.

    Raises:
        SpecError: without *source*, something cannot be pickled; all is listed.
    """
    if source is not None:
        names = [service.name for service in application.services]
        return dict.fromkeys([*names, SUPERVISOR_NAME], source)
    values: dict[str, tuple[str, object]] = {
        SUPERVISOR_NAME: (
            "policy" if application.policy else "monitors",
            SupervisorCode(application.monitors, application.policy),
        )
    }
    for service in application.services:
        if isinstance(service, Service):
            field_name = f"{application.path(service.name)}.target"
            values[service.name] = field_name, service.target
    sources: dict[str, Reference | Pickled] = {}
    problems: list[SpecError] = []
    for name, (field_name, value) in values.items():
        try:
            sources[name] = pickle_source(field_name, value)
        except SpecError as exc:
            problems.append(exc)
    if problems:
        raise SpecError.of(problems)
    return sources


@frozen
class Forkers:
    """The fork servers of one generation; what has none is started by exec."""

    of_supervisor: ForkClient | None = None
    by_service: Mapping[str, ForkClient] = {}

    @property
    def process_ids(self) -> set[int]:
        """The servers, and their spare children."""
        found = self.preforked
        for fork_client in self._all():
            servers = (fork_client.process_id, fork_client.standby_id)
            found.update(pid for pid in servers if pid is not None)
        return found

    @property
    def preforked(self) -> set[int]:
        """Spare children of all servers: see `ForkClient.preforked`."""
        return set().union(*(fork_client.preforked for fork_client in self._all()))

    def problem_of(self, service: str) -> str:
        """Return why no worker of *service* can be started now; empty: it can be."""
        fork_client = self.by_service.get(service)
        return "" if fork_client is None else fork_client.problem

    def keep_spares(self, preforked: set[int]) -> None:
        """Forget all that are not among *preforked*: they were reaped."""
        for fork_client in self._all():
            fork_client.preforked.intersection_update(preforked)

    def _all(self) -> list[ForkClient]:
        first = [] if self.of_supervisor is None else [self.of_supervisor]
        return [*first, *self.by_service.values()]


@frozen(kw_only=True)
class Launchers:
    """What starts the children of one generation."""

    number: int
    sources: Mapping[str, Reference | Pickled]
    context: LaunchContext
    forkers: Forkers
    sockets: SocketSet
    socket_keys: Mapping[str, Mapping[str, str]]
    """By service: its own name of each socket, and the name in *sockets*."""
    needs: Mapping[str, Mapping[str, str]]
    files: Mapping[str, str] | None = None
    """Those of the generation's code: see `code_files`; None: not known."""

    def plan_of(self, service: AnyService, index: int) -> ChildPlan:
        """Return how worker *index* of *service* is to be treated."""
        is_scheduled = service.schedule is not None
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
            startup_timeout=None if is_scheduled else service.startup_timeout,
            health_check_timeout=service.health_check_timeout,
            max_lifetime=service.max_lifetime,
            stable_for=service.stable_for,
            notifies=not is_scheduled
            and (isinstance(service, Service) or service.notify),
            prober=self._prober(service),
            connects=isinstance(service, Service),
            beats_from_ready=not (
                isinstance(service, Service) and service.backend == "sync"
            ),
            needs=self.needs_of(service),
            may=service.may,
            is_scheduled=is_scheduled,
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
                service, index, plan, self.context, keys, self.sockets
            )
        python = PythonLauncher(
            "trio_supervisor.worker",
            f"{plan.name} ({self.context.title})",
            self.forkers.by_service.get(service.name),
            self.files,
        )
        return WorkerLauncher(
            service,
            index,
            plan,
            self.sources[service.name],
            self.context,
            python,
            keys,
            self.sockets,
        )

    def supervisor(self) -> SupervisorLauncher:
        """Return what starts the supervisor."""
        title = f"{SUPERVISOR_NAME} ({self.context.title})"
        python = PythonLauncher(
            "trio_supervisor.supervisor",
            title,
            self.forkers.of_supervisor,
            self.files,
        )
        source = self.sources[SUPERVISOR_NAME]
        return SupervisorLauncher(source, self.context, python)

    def _prober(self, service: AnyService) -> Prober | None:
        if not isinstance(service, Command):
            return None
        environment = self.context.child_environment(service.environment)
        return make_prober(service, environment)

    def _pre_stop(self, service: AnyService, index: int) -> PreStop | None:
        if service.pre_stop is None:
            return None
        environment = self.context.child_environment(
            {NAME_VARIABLE: f"{service.name}.{index}", **service.environment}
        )
        return PreStopCommand(
            service.pre_stop,
            environment,
            service.directory,
            ProcessAttributes.of(service),
        )


@frozen(kw_only=True)
class ServerPlan:
    """A fork server, and which services it is for."""

    services: tuple[str, ...]
    plan: ForkServerPlan
    is_lazy: bool
    """Whether it is started only when it is first needed."""


def fork_plans(
    application: Application,
    sources: Mapping[str, Reference | Pickled],
    context: LaunchContext,
) -> list[ServerPlan]:
    """Return the fork servers that *application* needs, the supervisor's first.

    There is one for each distinct environment, since an import sees it, and the
    interpreter reads some of it (PYTHONPATH, TZ, LD_PRELOAD …) only when it begins; and
    one for each user, so that its workers have nothing of this user's memory.
    """
    if not IS_LINUX:
        return []  # its children would not be ours: no subreapers elsewhere
    common = context.child_environment({})
    by_kind: dict[_ServerKind, list[Service]] = {_server_kind(common, None): []}
    for service in application.services:
        if isinstance(service, Service) and service.start_method == "fork_server":
            attributes = ProcessAttributes.of(service)
            try:
                identity = attributes.find()
            except AttributeRefusedError:
                continue  # each start will fail, and say so
            if attributes.private_tmp and identity is not None:
                continue  # only root can mount it, before it becomes that user
            additions = attributes.environment({}, identity)
            environment = context.child_environment(
                additions | common_environment(service)
            )
            by_kind.setdefault(_server_kind(environment, identity), []).append(service)
    if not any(by_kind.values()):
        return []
    return [
        _server_plan(application, services, kind, sources, context, number > 0)
        for number, (kind, services) in enumerate(by_kind.items())
    ]


@frozen
class _ServerKind:
    """What the services of one fork server have in common."""

    environment: tuple[tuple[str, str], ...]
    identity: Identity | None


def _server_kind(
    environment: Mapping[str, str], identity: Identity | None
) -> _ServerKind:
    return _ServerKind(tuple(sorted(environment.items())), identity)


def _server_plan(
    application: Application,
    services: list[Service],
    kind: _ServerKind,
    sources: Mapping[str, Reference | Pickled],
    context: LaunchContext,
    is_lazy: bool,
) -> ServerPlan:
    names = tuple(service.name for service in services)
    wanted = [sources[name] for name in names]
    if not is_lazy and isinstance(source := sources[SUPERVISOR_NAME], Reference):
        wanted.append(source)
    unique = [source for i, source in enumerate(wanted) if source not in wanted[:i]]
    title, environment = context.title, dict(kind.environment)
    if is_lazy:
        title = f"{title}: {', '.join(names)}"
        environment[CODE_ONLY_VARIABLE] = "1"
    return ServerPlan(
        services=names,
        plan=fork_server_plan(
            title,
            unique,
            environment,
            is_immortal=application.immortal_preload,
            owner=None if kind.identity is None else kind.identity.numbers,
        ),
        is_lazy=is_lazy,
    )
