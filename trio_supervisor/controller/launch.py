"""How each kind of child is started: what it is told, what it inherits."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import trio
from attrs import define, field, frozen

from trio_supervisor.controller.child import ChildPlan, Spawn
from trio_supervisor.policy.restart import Backoff, RestartRules
from trio_supervisor.process.boot import SupervisorBoot, WorkerBoot, pickle_source
from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.documents import interpreter_flags, open_document
from trio_supervisor.process.environment import NAME_VARIABLE, child_environment
from trio_supervisor.process.exec import spawn_exec
from trio_supervisor.process.fork_server_start import (
    ForkServerPlan,
    fork_server_plan,
)
from trio_supervisor.process.forking import Forker
from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.sources import Pickled, Reference
from trio_supervisor.process.stopping import StopPlan
from trio_supervisor.spec import (
    SUPERVISOR_NAME,
    AnyService,
    Application,
    Command,
    Service,
)

logger = logging.getLogger(__name__)

# A supervisor that was ready and died was most likely killed: the next is immediate.
# One that never becomes ready is tried for ever, ever more slowly: its failing must
# not take healthy workers down.
_SUPERVISOR_RULES: Final = RestartRules(
    backoff=Backoff(base=0.1, cap=30.0, stable_after=0.0), intensity=None
)
_SUPERVISOR_STOP: Final = StopPlan(timeout=5.0)
_SUPERVISOR_HEALTH: Final = 30.0
# Three heartbeats within the time after which their absence counts: one may be lost.
_BEATS: Final = 3


@frozen(kw_only=True)
class Surroundings:
    """What all children of one controller have in common."""

    socket_path: str
    listener: socket.socket
    notify_path: str
    lifeline: int
    marker: str
    log_format: str
    title: str
    """Of the application, for the titles of its processes."""
    environment: Mapping[str, str] = field(factory=lambda: dict(os.environ))

    def child_environment(self, additions: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a child."""
        common = child_environment(self.environment, self.socket_path, self.marker)
        return {**common, **additions}


def plan_of(service: AnyService, index: int) -> ChildPlan:
    """Return how worker *index* of *service* is to be treated."""
    return ChildPlan(
        name=f"{service.name}.{index}",
        service=service.name,
        rules=service.rules,
        stop=StopPlan(signal=service.stop_signal, timeout=service.stop_timeout),
        startup_timeout=service.startup_timeout,
        health_check_timeout=service.health_check_timeout,
        notifies=isinstance(service, Service) or service.notify,
        connects=isinstance(service, Service),
        beats_from_ready=not (
            isinstance(service, Service) and service.backend == "sync"
        ),
    )


SUPERVISOR_PLAN: Final = ChildPlan(
    name=SUPERVISOR_NAME,
    service=SUPERVISOR_NAME,
    rules=_SUPERVISOR_RULES,
    stop=_SUPERVISOR_STOP,
    startup_timeout=60.0,
    health_check_timeout=_SUPERVISOR_HEALTH,
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
    for index, service in enumerate(application.services):
        if isinstance(service, Service):
            field_name = f"services[{index}].target"
            sources[service.name] = pickle_source(field_name, service.target)
    return sources


@define(eq=False)
class CommandLauncher:
    """Starts the processes of a `Command`."""

    _command: Command
    _name: str
    _surroundings: Surroundings

    async def __call__(self, incarnation: int) -> ChildProcess:
        """Start one."""
        command = self._command
        additions = {NAME_VARIABLE: self._name, **command.environment}
        if command.notify:
            additions["NOTIFY_SOCKET"] = self._surroundings.notify_path
            if command.health_check_timeout is not None:
                additions["WATCHDOG_USEC"] = str(
                    int(command.health_check_timeout * 1e6)
                )
        return await spawn_exec(
            command.arguments,
            environment=self._surroundings.child_environment(additions),
            directory=command.directory,
        )


@define(eq=False)
class PythonLauncher:
    """Starts processes that run this package: by a fork server, or by exec."""

    _module: str
    """Its ``main:run_forked`` is the entry of a forked child, and ``-m`` runs it."""
    _title: str
    _forker: Forker | None

    async def start(
        self,
        boot: WorkerBoot | SupervisorBoot,
        environment: Mapping[str, str],
        descriptors: Sequence[int],
    ) -> ChildProcess:
        """Start one, which gets *boot* and *descriptors*."""
        if self._forker is not None:
            try:
                return await self._forker.fork(
                    f"{self._module}.main:run_forked",
                    boot,
                    environment=environment,
                    title=self._title,
                    descriptors=descriptors,
                )
            except OSError as exc:
                logger.warning("%s: %s; starting it by exec", self._title, exc)
        with open_document(pickle.dumps(boot)) as document:
            numbers = map(str, (document, *descriptors))
            return await spawn_exec(
                [sys.executable, *interpreter_flags(), "-m", self._module, *numbers],
                environment=environment,
                inherit=[document, *descriptors],
            )


@define(eq=False)
class WorkerLauncher:
    """Starts the processes of a `Service` worker."""

    _service: Service
    _index: int
    _source: Reference | Pickled
    _surroundings: Surroundings
    _python: PythonLauncher

    async def __call__(self, incarnation: int) -> ChildProcess:
        """Start one."""
        service, surroundings = self._service, self._surroundings
        name = f"{service.name}.{self._index}"
        boot = WorkerBoot(
            source=self._source,
            name=name,
            service=service.name,
            index=self._index,
            incarnation=incarnation,
            backend=service.backend,
            state=service.state,
            directory=service.directory,
            socket_path=surroundings.socket_path,
            notify_path=surroundings.notify_path,
            stop_signal=service.stop_signal,
            stop_timeout=service.stop_timeout,
            heartbeat=_interval(service.health_check_timeout),
            switch_interval=service.switch_interval,
        )
        additions = {
            NAME_VARIABLE: name,
            "NOTIFY_SOCKET": surroundings.notify_path,
            **service.environment,
        }
        environment = surroundings.child_environment(additions)
        return await self._python.start(boot, environment, [surroundings.lifeline])


@define(eq=False)
class SupervisorLauncher:
    """Starts supervisor processes, each with a stream to us of its own."""

    _source: Reference | Pickled
    _surroundings: Surroundings
    _python: PythonLauncher
    _control: trio.SocketStream | None = field(default=None, init=False)

    async def __call__(self, incarnation: int) -> ChildProcess:
        """Start one."""
        surroundings = self._surroundings
        if (unused := self.take_control()) is not None:
            await trio.aclose_forcefully(unused)
        boot = SupervisorBoot(
            source=self._source,
            incarnation=incarnation,
            notify_path=surroundings.notify_path,
            heartbeat=_interval(_SUPERVISOR_HEALTH),
            controller_pid=os.getpid(),
            log_format=surroundings.log_format,
        )
        ours, theirs = trio.socket.socketpair()
        with theirs:
            try:
                process = await self._python.start(
                    boot,
                    surroundings.child_environment({}),
                    [
                        surroundings.lifeline,
                        surroundings.listener.fileno(),
                        theirs.fileno(),
                    ],
                )
            except BaseException:
                ours.close()
                raise
        self._control = trio.SocketStream(ours)
        return process

    def take_control(self) -> trio.SocketStream | None:
        """Return our end of the stream to the last one, once; the taker closes it."""
        control, self._control = self._control, None
        return control


def make_launcher(
    service: AnyService,
    index: int,
    sources: Mapping[str, Reference | Pickled],
    surroundings: Surroundings,
    forker: Forker | None,
) -> Spawn:
    """Return what starts worker *index* of *service*."""
    name = f"{service.name}.{index}"
    if isinstance(service, Command):
        return CommandLauncher(service, name, surroundings)
    python = PythonLauncher(
        "trio_supervisor.worker",
        f"{name} ({surroundings.title})",
        forker if service.start_method == "fork_server" else None,
    )
    return WorkerLauncher(service, index, sources[service.name], surroundings, python)


def make_supervisor_launcher(
    sources: Mapping[str, Reference | Pickled],
    surroundings: Surroundings,
    forker: Forker | None,
) -> SupervisorLauncher:
    """Return what starts the supervisor."""
    title = f"{SUPERVISOR_NAME} ({surroundings.title})"
    python = PythonLauncher("trio_supervisor.supervisor", title, forker)
    return SupervisorLauncher(sources[SUPERVISOR_NAME], surroundings, python)


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


def _interval(timeout: float | None) -> float | None:
    return None if timeout is None else timeout / _BEATS
