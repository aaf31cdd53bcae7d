"""Run an application under a controller, and act on signals, for ``serve``."""

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

from trio_supervisor.application import Application
from trio_supervisor.cli.serve_notify import EventReporter
from trio_supervisor.cli.terminal import Terminal
from trio_supervisor.controller.controller import Controller, core_of
from trio_supervisor.controller.open_controller import open_prepared
from trio_supervisor.controller.ownership import ControllerOptions, Prepared
from trio_supervisor.errors import SupervisorError
from trio_supervisor.process.imports.declaration import Declared
from trio_supervisor.process.imports.declaration_wait import wait_declared
from trio_supervisor.process.imports.import_check import declare
from trio_supervisor.process.logs import configure_logging, log_format
from trio_supervisor.process.notify.service_manager import ServiceManager, keep_watchdog
from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.sockets.systemd_sockets import AdoptedDescriptors
from trio_supervisor.process.spawn.code_source import Reference
from trio_supervisor.process.spawn.environment import child_environment, state_path
from trio_supervisor.process.spawn.fork_server_protocol import EarlyServer

logger = logging.getLogger("trio_supervisor.controller")

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)


@frozen(kw_only=True)
class ServeSettings:
    """What to serve, and how; and what ``serve`` has prepared."""

    arguments: Namespace
    source: str
    """The target, independent of the current directory."""
    socket_path: str
    began: int
    """Changes of the code from this time on count [ns since 1970]."""
    early: EarlyServer | None
    adopted: AdoptedDescriptors
    manager: ServiceManager
    is_reload_wanted: threading.Event
    """Set by a SIGHUP during the import of the application."""
    terminal: Terminal
    is_hangup_ignored: bool
    """Whether SIGHUP was ignored when this process began, as under nohup(1)."""


def serve(settings: ServeSettings) -> None:
    """Serve the target until it is shut down.

    Raises what `open_controller` and `wait_declared` raise.
    """
    gc.freeze()  # the imported modules are never collected
    gc.enable()
    settings.arguments.log_format = log_format(settings.arguments.log_format)
    log = configure_logging(settings.arguments.log_format, source="controller")
    if "is_target_found" in settings.arguments:
        logger.info("no target given; serving %s", settings.arguments.target)
    # If SIGCHLD was inherited as ignored, exit codes would be lost.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if (number := trio.run(_serve, settings, log)) is not None:
        signal.raise_signal(number)


async def _serve(settings: ServeSettings, log: Destination | None) -> int | None:
    """Serve until everything has stopped; return the signal that ended the import."""
    with trio.open_signal_receiver(
        *_STOPPING, signal.SIGHUP, signal.SIGUSR1
    ) as signals:
        declared = await _declare(settings, signals)
        if isinstance(declared, int):
            return declared
        await _run(settings, declared, log, signals)
    return None


async def _declare(
    settings: ServeSettings, signals: AsyncIterator[int]
) -> Declared | int:
    """Return what the application declares, or the signal that ended the import."""
    found: list[Declared | int | Exception] = []

    async def obey(scope: trio.CancelScope) -> None:
        async for number in signals:
            if number in _STOPPING:
                found.append(number)
                scope.cancel()
            elif number == signal.SIGHUP and not settings.is_hangup_ignored:
                if await settings.terminal.wait_hangup():
                    found.append(number)
                    scope.cancel()
                settings.is_reload_wanted.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(obey, nursery.cancel_scope)
        try:
            found.append(await _wait_declared(settings))
        except Exception as exc:
            found.append(exc)
        nursery.cancel_scope.cancel()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


async def _wait_declared(settings: ServeSettings) -> Declared:
    source, timeout = settings.source, settings.arguments.import_timeout
    if settings.early is not None and (server := settings.early.adopt()) is not None:
        declared = await wait_declared(server, source, timeout)
        settings.early.put_back(server)
        return declared
    reference = Reference(source, tuple(map(os.path.abspath, sys.path)))
    environment = child_environment(
        os.environ, settings.socket_path, os.urandom(16).hex()
    )
    return await declare(reference, environment, timeout)


async def _run(
    settings: ServeSettings,
    declared: Declared,
    log: Destination | None,
    signals: AsyncIterator[int],
) -> None:
    arguments, application = settings.arguments, declared.application
    async with AsyncExitStack() as stack:
        listener = None
        if arguments.http is not None:
            # Imported only with --http.
            from trio_supervisor.web.health import open_http_listener

            listener, where = await stack.enter_async_context(
                open_http_listener(arguments.http)
            )
            logger.info("health checks at http://%s", where)
        reporter = EventReporter(settings.manager, application)
        prepared = Prepared(
            early=settings.early,
            log=log,
            adopted=settings.adopted,
            facts=declared.facts,
            files=declared.files,
            import_seconds=declared.import_seconds,
        )
        controller = await stack.enter_async_context(
            open_prepared(_options(settings, application, reporter), prepared)
        )
        reporter.store_sockets(controller)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_watchdog, settings.manager, controller.attend)
            if listener is not None:
                nursery.start_soon(_serve_health, controller, listener)
            if arguments.watch:
                nursery.start_soon(_watch, controller, settings.source, settings.began)
            nursery.start_soon(_forward_signals, controller)
            reloads = _Reloads(controller)
            hangups = _Hangups(settings, controller, reloads)
            nursery.start_soon(settings.terminal.watch)
            if settings.is_reload_wanted.is_set():
                nursery.start_soon(hangups.take)
            await _obey(controller, hangups, signals, nursery)


def _options(
    settings: ServeSettings, application: Application, reporter: EventReporter
) -> ControllerOptions:
    arguments = settings.arguments
    return ControllerOptions(
        application=application,
        socket_path=settings.socket_path,
        source=settings.source,
        on_event=reporter.on_event,
        log_format=arguments.log_format,
        output=arguments.log_format,
        state_directory=state_path(settings.socket_path, arguments.state),
        import_timeout=arguments.import_timeout,
        owns_process=True,
        otlp=arguments.otlp,
    )


async def _obey(
    controller: Controller,
    hangups: _Hangups,
    signals: AsyncIterator[int],
    nursery: trio.Nursery,
) -> None:
    """Act on signals until cancelled."""
    async for number in signals:
        if number == signal.SIGHUP:
            nursery.start_soon(hangups.take)
        elif number == signal.SIGUSR1:
            if (hub := core_of(controller).hub) is not None:
                hub.reopen()
        elif controller.is_stopping:
            controller.hurry()
        else:
            controller.shutdown(f"received {signal.Signals(number).name}")


async def _forward_signals(controller: Controller) -> None:
    """Forward signals to services that want them (forward_signals).

    A reload may change which ones.
    """
    async with trio.open_nursery() as nursery:
        taken: set[signal.Signals] = set()
        while True:
            services = controller.application.services
            wanted = {s for service in services for s in service.forward_signals}
            if new := wanted - taken:
                taken |= new  # kept for good: its default action would kill us
                nursery.start_soon(_forward, controller, new)
            await core_of(controller).wait_take_over()


async def _forward(controller: Controller, numbers: set[signal.Signals]) -> None:
    with trio.open_signal_receiver(*numbers) as signals:
        async for number in signals:
            controller.forward_signal(number)


@define
class _Hangups:
    """The reaction to SIGHUP."""

    _settings: ServeSettings
    _controller: Controller
    _reloads: _Reloads

    async def take(self) -> None:
        """Reload; or shut down, if the terminal has closed."""
        if self._settings.is_hangup_ignored:
            logger.info(
                "received SIGHUP; ignored, as when this process was started (nohup); "
                "use `trio-supervisor reload` to reload"
            )
        elif await self._settings.terminal.wait_hangup():
            self._controller.shutdown("terminal closed (SIGHUP)")
        else:
            await self._reloads.add()


@define
class _Reloads:
    """Reloads in the background: one at a time, and at most one waiting."""

    _controller: Controller
    _is_waiting: bool = False

    async def add(self) -> None:
        """Reload, after the reload in progress has ended."""
        if self._is_waiting:
            return
        self._is_waiting = True
        try:
            await core_of(self._controller).reloader.wait_idle()
        finally:
            self._is_waiting = False
        try:
            await self._controller.reload()
        except SupervisorError as exc:
            # Most of these have been logged as an event.
            logger.debug("reload failed: %s", exc)


async def _serve_health(controller: Controller, listener: trio.SocketListener) -> None:
    from trio_supervisor.web.health import serve_health

    await serve_health(_ControllerHealth(controller), [listener])


@frozen
class _ControllerHealth:
    """The health and metrics of a controller, for the HTTP endpoints."""

    _controller: Controller

    def report(self, kind: str) -> tuple[bool, dict[str, object]]:
        health = self._controller.health(kind)
        return health.is_ok, health.details

    async def metrics(self, *, per_worker: bool, openmetrics: bool) -> str:
        return await self._controller.metrics(
            per_worker=per_worker, openmetrics=openmetrics
        )


async def _watch(controller: Controller, source: str, began: int) -> None:
    from trio_supervisor.cli.serve_watch import watch

    reloads = _Reloads(controller)
    async for changed in watch(source, began):
        logger.info("code changed: %s; reloading", changed)
        await reloads.add()
