"""Run an application until a signal says stop: what `serve` does once all is loaded."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

import trio
from attrs import define, frozen

from trio_supervisor.cli.serve_notify import Reporter
from trio_supervisor.cli.terminal import Terminal
from trio_supervisor.controller.controller import Controller
from trio_supervisor.controller.open_controller import Options, Prepared, open_prepared
from trio_supervisor.errors import SupervisorError
from trio_supervisor.process.imports.declaration import Declared
from trio_supervisor.process.imports.declaration_wait import wait_declared
from trio_supervisor.process.imports.import_check import declare
from trio_supervisor.process.logs import configure_logging
from trio_supervisor.process.notify.service_manager import ServiceManager, keep_watchdog
from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.sockets.systemd_sockets import AdoptedDescriptors
from trio_supervisor.process.spawn.code_source import Reference
from trio_supervisor.process.spawn.environment import child_environment, state_path
from trio_supervisor.process.spawn.fork_server_protocol import EarlyServer

logger = logging.getLogger("trio_supervisor.controller")

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)


@frozen(kw_only=True)
class Plan:
    """What to serve, and how."""

    arguments: Namespace
    source: str
    """The target, whatever the current directory."""
    socket_path: str
    began: int
    """From when on a change of the code counts [ns since 1970]."""
    early: EarlyServer | None
    adopted: AdoptedDescriptors
    manager: ServiceManager
    is_reload_wanted: threading.Event
    """Set by a SIGHUP that came before the files were read, or after."""
    terminal: Terminal
    is_hangup_ignored: bool
    """Whether SIGHUP was ignored when this process began, as nohup(1) has it."""


def serve(plan: Plan) -> None:
    """Serve the target.

    Raises what `open_controller` and `wait_declared` raise.
    """
    gc.freeze()  # what was loaded stays
    gc.enable()
    log = configure_logging(plan.arguments.log_format, source="controller")
    # An ignored SIGCHLD is inherited; exit codes would be lost.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if (number := trio.run(_serve, plan, log)) is not None:
        signal.raise_signal(number)


async def _serve(plan: Plan, log: Destination | None) -> int | None:
    """Serve until all is stopped; return the signal that ended the import, if any."""
    with trio.open_signal_receiver(
        *_STOPPING, signal.SIGHUP, signal.SIGUSR1
    ) as signals:
        declared = await _declare(plan, signals)
        if isinstance(declared, int):
            return declared
        await _run(plan, declared, log, signals)
    return None


async def _declare(plan: Plan, signals: AsyncIterator[int]) -> Declared | int:
    """Return what the application declares, or the signal that came before that."""
    found: list[Declared | int | Exception] = []

    async def obey(scope: trio.CancelScope) -> None:
        async for number in signals:
            if number in _STOPPING:
                found.append(number)
                scope.cancel()
            elif number == signal.SIGHUP and not plan.is_hangup_ignored:
                if await plan.terminal.wait_hangup():
                    found.append(number)
                    scope.cancel()
                plan.is_reload_wanted.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(obey, nursery.cancel_scope)
        try:
            found.append(await _wait_declared(plan))
        except Exception as exc:
            found.append(exc)
        nursery.cancel_scope.cancel()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


async def _wait_declared(plan: Plan) -> Declared:
    source, timeout = plan.source, plan.arguments.import_timeout
    if plan.early is not None and (server := plan.early.adopt()) is not None:
        declared = await wait_declared(server, source, timeout)
        plan.early.put_back(server)
        return declared
    reference = Reference(source, tuple(map(os.path.abspath, sys.path)))
    environment = child_environment(os.environ, plan.socket_path, os.urandom(16).hex())
    return await declare(reference, environment, timeout)


async def _run(
    plan: Plan,
    declared: Declared,
    log: Destination | None,
    signals: AsyncIterator[int],
) -> None:
    arguments, application = plan.arguments, declared.application
    async with AsyncExitStack() as stack:
        listener = None
        if arguments.http is not None:
            # Only now: most do without it.
            from trio_supervisor.web.health import open_http_listener

            listener, where = await stack.enter_async_context(
                open_http_listener(arguments.http)
            )
            logger.info("health checks at http://%s", where)
        reporter = Reporter(plan.manager, application)
        controller = await stack.enter_async_context(
            open_prepared(
                Options(
                    application=application,
                    socket_path=plan.socket_path,
                    source=plan.source,
                    on_event=reporter.on_event,
                    log_format=arguments.log_format,
                    output=arguments.log_format,
                    state_directory=state_path(plan.socket_path, arguments.state),
                    import_timeout=arguments.import_timeout,
                    owns_process=True,
                ),
                Prepared(
                    early=plan.early,
                    log=log,
                    adopted=plan.adopted,
                    facts=declared.facts,
                    files=declared.files,
                ),
            )
        )
        reporter.store_sockets(controller)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_watchdog, plan.manager, controller.attend)
            if listener is not None:
                nursery.start_soon(_serve_health, controller, listener)
            if arguments.watch:
                nursery.start_soon(_watch, controller, plan.source, plan.began)
            nursery.start_soon(_forward_signals, controller)
            reloads = _Reloads(controller)
            hangups = _Hangups(plan, controller, reloads)
            nursery.start_soon(plan.terminal.watch)
            if plan.is_reload_wanted.is_set():
                nursery.start_soon(hangups.take)
            await _obey(controller, hangups, signals, nursery)


async def _obey(
    controller: Controller,
    hangups: _Hangups,
    signals: AsyncIterator[int],
    nursery: trio.Nursery,
) -> None:
    """Do what signals say until cancelled."""
    async for number in signals:
        if number == signal.SIGHUP:
            nursery.start_soon(hangups.take)
        elif number == signal.SIGUSR1:
            if controller.hub is not None:
                controller.hub.reopen()
        elif controller.is_stopping:
            controller.hurry()
        else:
            controller.shutdown(f"by {signal.Signals(number).name}")


async def _forward_signals(controller: Controller) -> None:
    """Pass on the signals that are wanted, which a reload may change."""
    async with trio.open_nursery() as nursery:
        taken: set[signal.Signals] = set()
        while True:
            services = controller.application.services
            wanted = {s for service in services for s in service.forward_signals}
            if new := wanted - taken:
                taken |= new  # and kept: what was wanted once is to end nothing
                nursery.start_soon(_forward, controller, new)
            await controller.wait_take_over()


async def _forward(controller: Controller, numbers: set[signal.Signals]) -> None:
    with trio.open_signal_receiver(*numbers) as signals:
        async for number in signals:
            controller.forward_signal(number)


@define
class _Hangups:
    """What a SIGHUP asks for."""

    _plan: Plan
    _controller: Controller
    _reloads: _Reloads

    async def take(self) -> None:
        """Reload; or stop everything, where it tells that the terminal has closed."""
        if self._plan.is_hangup_ignored:
            logger.info(
                "SIGHUP ignored, for it was when this process began (nohup); to reload "
                "use `trio-supervisor reload`"
            )
        elif await self._plan.terminal.wait_hangup():
            self._controller.shutdown("the terminal was closed (SIGHUP)")
        else:
            await self._reloads.add()


@define
class _Reloads:
    """Reloads that nobody waits for: one at a time, and one that waits at most."""

    _controller: Controller
    _is_waiting: bool = False

    async def add(self) -> None:
        """Reload what the files say from now on: after the reload that is under way."""
        if self._is_waiting:
            return
        self._is_waiting = True
        try:
            await self._controller.reloading.wait_idle()
        finally:
            self._is_waiting = False
        try:
            await self._controller.reload()
        except SupervisorError as exc:
            # Most of these were told already, as an event.
            logger.debug("no reload: %s", exc)


async def _serve_health(controller: Controller, listener: trio.SocketListener) -> None:
    from trio_supervisor.web.health import serve_health

    await serve_health(_Health(controller), [listener])


@frozen
class _Health:
    _controller: Controller

    def report(self, kind: str) -> tuple[bool, dict[str, object]]:
        health = self._controller.health(kind)
        return health.is_ok, health.details


async def _watch(controller: Controller, source: str, began: int) -> None:
    from trio_supervisor.cli.serve_watch import watch

    reloads = _Reloads(controller)
    async for changed in watch(source, began):
        logger.info("changed: %s; reloading", changed)
        await reloads.add()
