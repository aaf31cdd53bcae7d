"""How the processes of children are started: what they are told, and inherit."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from subprocess import DEVNULL
from typing import Final

import trio
from attrs import define, evolve, field

from trio_supervisor.application import (
    Command,
    Service,
)
from trio_supervisor.controller.child.child_spec import SUPERVISOR_PLAN, ChildPlan
from trio_supervisor.controller.launch.context import LaunchContext
from trio_supervisor.controller.launch.python_launcher import PythonLauncher
from trio_supervisor.controller.launch.socket_keys import socket_descriptors
from trio_supervisor.policy.supervisor_metrics import SUPERVISOR_METRICS
from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.identity import share_pipes
from trio_supervisor.process.inspection.black_box import BlackBox, open_black_box
from trio_supervisor.process.notify.channel import Channel
from trio_supervisor.process.shared_counts import SharedCounts, open_counts
from trio_supervisor.process.sockets.sockets import SocketSet
from trio_supervisor.process.spawn.attributes import ProcessAttributes
from trio_supervisor.process.spawn.boot import SupervisorBoot, WorkerBoot
from trio_supervisor.process.spawn.code_source import Pickled, Reference
from trio_supervisor.process.spawn.environment import (
    NAME_VARIABLE,
    PROCESS_VARIABLE,
)
from trio_supervisor.process.spawn.exec import spawn_exec

logger = logging.getLogger(__name__)

# An agent that begins at once delays the readiness of its worker. Where many begin at
# the same time, their own code goes first.
_HEAD_START: Final = 0.003
_HEAD_START_EACH: Final = 0.008
_HEAD_START_MOST: Final = 2.0
# Three heartbeats within the time after which their absence counts: one may be lost.
_BEATS: Final = 3


@define(eq=False)
class CommandLauncher:
    """Starts the processes of a `Command`."""

    _command: Command
    _index: int
    _plan: ChildPlan
    _context: LaunchContext
    _sockets: Mapping[str, str]
    _socket_set: SocketSet

    async def __call__(self, incarnation: int) -> ChildProcess:
        """Start one."""
        command, context = self._command, self._context
        attributes = ProcessAttributes.of(command)
        identity = await attributes.identity()
        listen = socket_descriptors(self._sockets, self._socket_set, self._index)
        with context.open_input(command) as stdin, ExitStack() as stack:
            channel = None
            if command.notify:
                opened = context.open_channel(is_ours=False, identity=identity)
                channel = stack.enter_context(opened)
            stdout = stderr = None
            if output := context.open_output(command, self._plan.name):
                stdout, stderr = stack.enter_context(output).descriptors
                share_pipes((stdout, stderr), identity)
            leaf = context.make_leaf(command, self._plan.name, stack)
            own = attributes.own(identity)
            if command.tty and output:
                own, stdin = f"terminal=1 {own}", stdout if stdin is None else stdin
            additions = attributes.environment({}, identity)
            additions |= self._variables(incarnation, channel)
            process = await spawn_exec(
                command.arguments,
                environment=context.child_environment(additions),
                directory=command.directory,
                listen=listen,
                stdin=DEVNULL if stdin is None else stdin,
                stdout=stdout,
                stderr=stderr,
                new_session=command.tty,
                prepare=evolve(attributes, cgroup=leaf).prepare,
                own=own,
            )
            context.started(output, process, self._plan, incarnation, leaf)
            if channel is not None:
                context.listen(process, channel)
            stack.pop_all()
            return process

    def _variables(self, incarnation: int, channel: Channel | None) -> dict[str, str]:
        """Return the variables that the process gets in addition to the common ones."""
        command = self._command
        found = {
            NAME_VARIABLE: self._plan.name,
            PROCESS_VARIABLE: self._plan.mark(incarnation),
        }
        if command.tty:
            found["TERM"] = self._context.environment.get("TERM", "xterm")
        found |= command.environment
        if channel is not None:
            found["NOTIFY_SOCKET"] = channel.address
            if command.health_check_timeout is not None:
                microseconds = int(command.health_check_timeout * 1e6)
                found["WATCHDOG_USEC"] = str(microseconds)
        return found


@define(eq=False)
class WorkerLauncher:
    """Starts the processes of a `Service` worker."""

    _service: Service
    _index: int
    _plan: ChildPlan
    _source: Reference | Pickled
    _context: LaunchContext
    _python: PythonLauncher
    _sockets: Mapping[str, str]
    _socket_set: SocketSet

    async def __call__(self, incarnation: int) -> ChildProcess:
        """Start one."""
        service, context = self._service, self._context
        name = self._plan.name
        attributes = ProcessAttributes.of(service)
        identity = await attributes.identity()
        listen = socket_descriptors(self._sockets, self._socket_set, self._index)
        with context.open_input(service) as stdin, ExitStack() as stack:
            opened = context.open_channel(is_ours=True, identity=identity)
            channel = stack.enter_context(opened)
            boot = self._boot(incarnation, channel.address, tuple(listen))
            additions = {
                NAME_VARIABLE: name,
                PROCESS_VARIABLE: self._plan.mark(incarnation),
                "NOTIFY_SOCKET": channel.address,
                **service.environment,
            }
            environment = context.child_environment(
                attributes.environment({}, identity) | additions
            )
            if (output := context.open_output(service, name)) is not None:
                stack.enter_context(output)
                share_pipes(output.descriptors, identity)
            if identity is not None:
                context.admit_other_users()
            descriptors = [context.lifeline, *channel.descriptors]
            if (box := open_black_box()) is not None:
                descriptors.append(stack.enter_context(box).descriptor)
            if (counts := open_counts_of(service)) is not None:
                descriptors += stack.enter_context(counts).descriptors
            descriptors += listen.values()
            leaf = context.make_leaf(service, name, stack)
            attributes = evolve(attributes, cgroup=leaf)
            process = await self._python.start(
                boot, environment, descriptors, output, attributes, identity, stdin
            )
            context.started(output, process, self._plan, incarnation, leaf)
            context.listen(process, channel)
            self._keep(process, box, counts)
            stack.pop_all()
            return process

    def _keep(
        self,
        process: ChildProcess,
        box: BlackBox | None,
        counts: SharedCounts | None,
    ) -> None:
        if box is not None:
            self._context.boxes[process.pid] = box
        if counts is not None:
            self._context.counts[process.pid] = counts

    def _boot(
        self, incarnation: int, address: str, sockets: tuple[str, ...]
    ) -> WorkerBoot:
        service, context = self._service, self._context
        return WorkerBoot(
            source=self._source,
            name=self._plan.name,
            service=service.name,
            index=self._index,
            incarnation=incarnation,
            generation=self._plan.generation,
            backend=service.backend,
            state=service.state,
            # Relative to the controller's, wherever the import has gone.
            directory=service.directory and os.path.abspath(service.directory),
            started_in=_directory(),
            socket_path=context.socket_path,
            notify_path=address,
            stop_signal=service.stop_signal,
            stop_timeout=service.stop_timeout,
            heartbeat=_interval(service.health_check_timeout),
            switch_interval=service.switch_interval,
            head_start=_head_start(self._python.forks_in_progress),
            sockets=sockets,
            has_channel=True,
            has_black_box=IS_LINUX,
            metrics=service.metrics,
            has_values=service.prometheus_client,
        )


@define(eq=False)
class SupervisorLauncher:
    """Starts supervisor processes, each with a stream to us of its own."""

    _source: Reference | Pickled
    _context: LaunchContext
    _python: PythonLauncher
    _control: trio.SocketStream | None = field(default=None, init=False)

    async def __call__(self, incarnation: int) -> ChildProcess:
        """Start one."""
        context = self._context
        if (unused := self.take_control()) is not None:
            await trio.aclose_forcefully(unused)
        with ExitStack() as stack:
            channel = stack.enter_context(context.open_channel(is_ours=True))
            boot = SupervisorBoot(
                source=self._source,
                incarnation=incarnation,
                notify_path=channel.address,
                heartbeat=_interval(SUPERVISOR_PLAN.health_check_timeout),
                controller_pid=os.getpid(),
                log_format=context.log_format,
                has_channel=True,
                owns_process=context.owns_process,
                sampling=context.sampling,
            )
            counts = open_counts(SUPERVISOR_METRICS.slots, has_values=False)
            assert counts is not None
            stack.enter_context(counts)
            ours, theirs = trio.socket.socketpair()
            stack.enter_context(ours)
            with theirs:
                process = await self._python.start(
                    boot,
                    context.child_environment({}),
                    [
                        context.lifeline,
                        context.listener.fileno(),
                        theirs.fileno(),
                        *counts.descriptors,
                        *channel.descriptors,
                    ],
                )
            context.listen(process, channel)
            context.counts[process.pid] = counts
            self._control = trio.SocketStream(ours)
            stack.pop_all()
            return process

    def take_control(self) -> trio.SocketStream | None:
        """Return our end of the stream to the last one, once; the taker closes it."""
        control, self._control = self._control, None
        return control


def open_counts_of(service: Service) -> SharedCounts | None:
    """Return memory for the metrics of a process of *service*; None: it has none."""
    slots = None if service.metrics is None else service.metrics.slots
    return open_counts(slots, has_values=service.prometheus_client)


def _directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return ""


def _head_start(forks_in_progress: int) -> float:
    return min(_HEAD_START + _HEAD_START_EACH * forks_in_progress, _HEAD_START_MOST)


def _interval(timeout: float | None) -> float | None:
    return None if timeout is None else timeout / _BEATS
