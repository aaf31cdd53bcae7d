"""Run one service, or a command in its surroundings, in the foreground."""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final, Self, TypeAlias

import trio

from trio_supervisor.application import AnyService, Application, Command
from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.application.templates import filled
from trio_supervisor.cli.check import load
from trio_supervisor.cli.find_target import find_target
from trio_supervisor.cli.serve import serve_socket
from trio_supervisor.errors import TargetError
from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.cleanup.stopping import StopPlan, stop
from trio_supervisor.process.sockets.sockets import open_sockets
from trio_supervisor.process.spawn.attributes import ProcessAttributes
from trio_supervisor.process.spawn.code_source import absolute_target
from trio_supervisor.process.spawn.environment import unsupervised_environment
from trio_supervisor.process.spawn.exec import spawn_exec

_WORKER: Final = "trio_supervisor.worker.foreground"
_NOT_FOUND: Final = 127
Prepare: TypeAlias = Callable[[int], None]


def run_run(arguments: Namespace) -> None:
    """Run one process of a service, with this terminal; exit with its code."""
    service, target = _service(arguments)
    if isinstance(service, Command):
        words: Sequence[str] = service.arguments
    else:
        words = [sys.executable, "-m", _WORKER, absolute_target(target), service.name]
    sys.exit(trio.run(_run, service, words, True))


def run_exec(arguments: Namespace) -> None:
    """Run a command as processes of a service run; exit with its code."""
    service, _ = _service(arguments)
    sys.exit(trio.run(_run, service, arguments.words, False))


def _service(arguments: Namespace) -> tuple[AnyService, str]:
    """Return the service that is named, with the values of its worker 0, and where."""
    target = arguments.target or find_target()
    socket_path = serve_socket(None, target)
    application = load(target, socket_path, arguments.import_timeout)
    name = arguments.service.removesuffix(".0")
    return filled(_find(application, name), 0), target


def _find(application: Application, name: str) -> AnyService:
    try:
        return application.service(name)
    except KeyError:
        known = [service.name for service in application.services]
        problem = f"no service has the name {name!r:.80}"
        raise TargetError(
            f"{problem}{did_you_mean(name, known)}; services: {', '.join(known)}"
        ) from None


async def _run(service: AnyService, words: Sequence[str], with_sockets: bool) -> int:
    """Run *words* in the surroundings of *service*; return the exit code for a shell.

    Raises:
        ListenError: a socket of the service cannot be bound.
        AttributeRefusedError: the system refuses one of its attributes.
    """
    attributes = ProcessAttributes.of(service)
    identity = await attributes.identity()
    environment = {
        **unsupervised_environment(os.environ),
        **attributes.environment(service.environment, identity),
    }
    async with AsyncExitStack() as stack:
        listen = None
        if with_sockets and service.sockets:
            sockets = await stack.enter_async_context(open_sockets(service.sockets))
            listen = sockets.descriptors(service.sockets, 0)
        terminal = stack.enter_context(_Terminal())
        try:
            process = await spawn_exec(
                words,
                environment=environment,
                directory=service.directory,
                listen=listen,
                stdin=sys.stdin.fileno(),
                prepare=_both(attributes, terminal),
                own=attributes.own(identity),
            )
        except FileNotFoundError:
            print(f"{words[0]}: command not found", file=sys.stderr)
            return _NOT_FOUND
        code = await _wait(process, service)
    return code if code >= 0 else 128 - code


def _both(attributes: ProcessAttributes, terminal: _Terminal) -> Prepare:
    def prepare(process_id: int) -> None:
        attributes.set_from_outside(process_id)
        terminal.give(process_id)

    return prepare


async def _wait(process: ChildProcess, service: AnyService) -> int:
    """Return the exit code of *process*; stop it when this process is asked to stop.

    What is left of its process group is stopped, too.
    """
    plan = StopPlan(signal=service.stop_signal, timeout=service.stop_timeout)
    signals = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    with trio.open_signal_receiver(*signals) as received:
        async with trio.open_nursery() as nursery:

            async def give_up_when_asked() -> None:
                await anext(received)
                nursery.cancel_scope.cancel()

            nursery.start_soon(give_up_when_asked)
            await process.wait()
            nursery.cancel_scope.cancel()
        await stop(process, plan)
        code = await process.wait()
    process.close()
    return code


class _Terminal:
    """Gives the terminal to a process, as a shell does; a context manager.

    A process group in the background would be stopped when it reads from it.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        with suppress(OSError, ValueError):
            descriptor = sys.stdin.fileno()
            if os.tcgetpgrp(descriptor) == os.getpgrp():
                self._descriptor = descriptor

    def __enter__(self) -> Self:
        # Else this process would be stopped when it takes the terminal back.
        self._before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        return self

    def give(self, process_id: int) -> None:
        """Make the group of *process_id* the foreground group."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.tcsetpgrp(self._descriptor, process_id)

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.tcsetpgrp(self._descriptor, os.getpgrp())
        signal.signal(signal.SIGTTOU, self._before)
