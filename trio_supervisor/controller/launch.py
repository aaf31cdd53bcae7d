"""How each kind of child is started: what it is told, what it inherits."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

import trio
from attrs import define, field, frozen

from trio_supervisor.controller.plan import ChildPlan, Prober, Spawn
from trio_supervisor.controller.probing import make_prober
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.restart import Backoff, RestartRules
from trio_supervisor.process.black_box import BlackBox, open_black_box
from trio_supervisor.process.boot import SupervisorBoot, WorkerBoot, pickle_source
from trio_supervisor.process.child import ChildProcess, Process, describe_exit
from trio_supervisor.process.documents import interpreter_flags, open_document
from trio_supervisor.process.environment import (
    NAME_VARIABLE,
    PROCESS_VARIABLE,
    child_environment,
)
from trio_supervisor.process.exec import spawn_exec
from trio_supervisor.process.fork_server_start import (
    ForkServerPlan,
    fork_server_plan,
)
from trio_supervisor.process.forking import Forker
from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.output.hub import ChildOutput, OutputHub
from trio_supervisor.process.sockets import SocketSet
from trio_supervisor.process.sources import Pickled, Reference
from trio_supervisor.process.stopping import PreStop, StopPlan, stop
from trio_supervisor.spec import (
    SUPERVISOR_NAME,
    AnyService,
    Application,
    Command,
    Listen,
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
# An agent's loop takes 3 ms to begin, which would be so many that its worker is ready
# later. Where many begin at once, their own code goes first: it is what they are for.
_HEAD_START: Final = 0.003
_HEAD_START_EACH: Final = 0.008
_HEAD_START_MOST: Final = 2.0
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
    hub: OutputHub | None = None
    """What drains the children's output; None: they write into ours."""
    is_captured: bool = False
    """Whether all children's output goes there, and not only what goes to files."""
    outputs: dict[int, ChildOutput] = field(factory=dict)
    """By process id."""
    boxes: dict[int, BlackBox] = field(factory=dict)
    """By process id."""
    environment: Mapping[str, str] = field(factory=lambda: dict(os.environ))

    def child_environment(self, additions: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a child."""
        common = child_environment(self.environment, self.socket_path, self.marker)
        return {**common, **additions}

    def open_output(self, service: AnyService, name: str) -> ChildOutput | None:
        """Return where the next process of *name* is to write; None: into ours.

        Raises:
            OSError: the service's file cannot be written, or too many are open.
        """
        if self.hub is None or not (self.is_captured or service.log_file):
            return None
        file = service.log_file and os.path.abspath(service.log_file)
        try:
            return self.hub.open(name, stdout=file, stderr=file)
        except SpecError as exc:
            raise OSError(str(exc)) from exc

    def started(
        self, output: ChildOutput | None, process: Process, plan: ChildPlan, number: int
    ) -> None:
        """Say that *process*, incarnation *number*, writes into *output*."""
        if output is not None:
            output.started(process.pid, generation=plan.generation, incarnation=number)
            self.outputs[process.pid] = output


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
    for service in application.services:
        if isinstance(service, Service):
            field_name = f"{application.path(service.name)}.target"
            sources[service.name] = pickle_source(field_name, service.target)
    return sources


@define(eq=False)
class CommandLauncher:
    """Starts the processes of a `Command`."""

    _command: Command
    _index: int
    _plan: ChildPlan
    _surroundings: Surroundings
    _sockets: Mapping[str, str]
    _socket_set: SocketSet

    async def __call__(self, incarnation: int) -> ChildProcess:
        """Start one."""
        command, surroundings = self._command, self._surroundings
        additions = {
            NAME_VARIABLE: self._plan.name,
            PROCESS_VARIABLE: self._plan.mark(incarnation),
            **command.environment,
        }
        if command.notify:
            additions["NOTIFY_SOCKET"] = surroundings.notify_path
            if command.health_check_timeout is not None:
                additions["WATCHDOG_USEC"] = str(
                    int(command.health_check_timeout * 1e6)
                )
        listen = _descriptors(self._sockets, self._socket_set, self._index)
        with ExitStack() as stack:
            output = surroundings.open_output(command, self._plan.name)
            if output is not None:
                stack.enter_context(output)
            stdout, stderr = output.descriptors if output else (None, None)
            process = await spawn_exec(
                command.arguments,
                environment=surroundings.child_environment(additions),
                directory=command.directory,
                listen=listen,
                stdout=stdout,
                stderr=stderr,
            )
            surroundings.started(output, process, self._plan, incarnation)
            stack.pop_all()
            return process


@define(eq=False)
class PythonLauncher:
    """Starts processes that run this package: by a fork server, or by exec."""

    _module: str
    """Its ``main:run_forked`` is the entry of a forked child, and ``-m`` runs it."""
    _title: str
    _forker: Forker | None

    @property
    def births(self) -> int:
        """Children that are being forked at the moment."""
        return 0 if self._forker is None else self._forker.births

    async def start(
        self,
        boot: WorkerBoot | SupervisorBoot,
        environment: Mapping[str, str],
        descriptors: Sequence[int],
        output: ChildOutput | None = None,
    ) -> ChildProcess:
        """Start one, which gets *boot* and *descriptors*, and writes into *output*."""
        streams = output.descriptors if output is not None else None
        if self._forker is not None:
            try:
                return await self._forker.fork(
                    f"{self._module}.main:run_forked",
                    boot,
                    environment=environment,
                    title=self._title,
                    descriptors=descriptors,
                    streams=streams,
                )
            except OSError as exc:
                logger.warning("%s: %s; starting it by exec", self._title, exc)
        with open_document(pickle.dumps(boot)) as document:
            numbers = map(str, (document, *descriptors))
            stdout, stderr = streams or (None, None)
            return await spawn_exec(
                [sys.executable, *interpreter_flags(), "-m", self._module, *numbers],
                environment=environment,
                inherit=[document, *descriptors],
                stdout=stdout,
                stderr=stderr,
            )


@define(eq=False)
class WorkerLauncher:
    """Starts the processes of a `Service` worker."""

    _service: Service
    _index: int
    _plan: ChildPlan
    _source: Reference | Pickled
    _surroundings: Surroundings
    _python: PythonLauncher
    _sockets: Mapping[str, str]
    _socket_set: SocketSet

    async def __call__(self, incarnation: int) -> ChildProcess:
        """Start one."""
        service, surroundings = self._service, self._surroundings
        name = self._plan.name
        listen = _descriptors(self._sockets, self._socket_set, self._index)
        boot = WorkerBoot(
            source=self._source,
            name=name,
            service=service.name,
            index=self._index,
            incarnation=incarnation,
            generation=self._plan.generation,
            backend=service.backend,
            state=service.state,
            directory=service.directory,
            socket_path=surroundings.socket_path,
            notify_path=surroundings.notify_path,
            stop_signal=service.stop_signal,
            stop_timeout=service.stop_timeout,
            heartbeat=_interval(service.health_check_timeout),
            switch_interval=service.switch_interval,
            head_start=_head_start(self._python.births),
            sockets=tuple(listen),
            has_black_box=IS_LINUX,
        )
        additions = {
            NAME_VARIABLE: name,
            PROCESS_VARIABLE: self._plan.mark(incarnation),
            "NOTIFY_SOCKET": surroundings.notify_path,
            **service.environment,
        }
        environment = surroundings.child_environment(additions)
        with ExitStack() as stack:
            if (output := surroundings.open_output(service, name)) is not None:
                stack.enter_context(output)
            descriptors = [surroundings.lifeline]
            if (box := open_black_box()) is not None:
                descriptors.append(stack.enter_context(box).descriptor)
            descriptors += listen.values()
            process = await self._python.start(boot, environment, descriptors, output)
            surroundings.started(output, process, self._plan, incarnation)
            if box is not None:
                surroundings.boxes[process.pid] = box
            stack.pop_all()
            return process


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
        needs = self.needs.get(service.name, {})
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
            notifies=isinstance(service, Service) or service.notify,
            prober=self._prober(service),
            connects=isinstance(service, Service),
            beats_from_ready=not (
                isinstance(service, Service) and service.backend == "sync"
            ),
            needs=tuple(f"{name} ({how})" for name, how in needs.items()),
        )

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


@frozen
class PreStopCommand:
    """Runs a command before a process is asked to end; its failing changes nothing."""

    _arguments: tuple[str, ...]
    _environment: Mapping[str, str]
    _directory: str | None

    async def __call__(self, process: Process) -> None:
        """Run it to its end. A cancellation ends it."""
        environment = {**self._environment, "MAINPID": str(process.pid)}
        try:
            helper = await spawn_exec(
                self._arguments, environment=environment, directory=self._directory
            )
        except OSError as exc:
            logger.warning("pre_stop of pid %d: %s", process.pid, exc)
            return
        try:
            async with trio.open_nursery() as nursery:
                # There is no need to go on once the process has ended by itself.
                nursery.start_soon(_cancel_after, process, nursery.cancel_scope)
                if (code := await helper.wait()) != 0:
                    how = describe_exit(code)
                    logger.warning("pre_stop of pid %d: %s", process.pid, how)
                nursery.cancel_scope.cancel()
        finally:
            await stop(helper, StopPlan(timeout=0.0))
            helper.close()


async def _cancel_after(process: Process, scope: trio.CancelScope) -> None:
    await process.wait()
    scope.cancel()


def socket_keys(
    application: Application,
) -> tuple[dict[str, Listen], dict[str, dict[str, str]]]:
    """Return all sockets of *application*, and per service which are its own.

    Services that name the same address alike share it. Where they mean different ones
    by one name, the service's name goes before it.
    """
    meanings: dict[str, set[str]] = {}
    for service in application.services:
        for name, listen in service.sockets.items():
            meanings.setdefault(name, set()).add(str(listen))
    listens: dict[str, Listen] = {}
    keys: dict[str, dict[str, str]] = {}
    for service in application.services:
        for name, listen in service.sockets.items():
            key = name if len(meanings[name]) == 1 else f"{service.name}-{name}"
            listens[key] = listen
            keys.setdefault(service.name, {})[name] = key
    return listens, keys


def _descriptors(
    keys: Mapping[str, str], sockets: SocketSet, index: int
) -> dict[str, int]:
    """Return the descriptors of a worker's sockets, by its own names of them."""
    found = sockets.descriptors(keys.values(), index)
    return {name: found[key] for name, key in keys.items()}


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


def _head_start(births: int) -> float:
    return min(_HEAD_START + _HEAD_START_EACH * births, _HEAD_START_MOST)


def _interval(timeout: float | None) -> float | None:
    return None if timeout is None else timeout / _BEATS
