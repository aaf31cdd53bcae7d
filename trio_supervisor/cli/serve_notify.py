"""Log events, and notify the service manager, such as systemd, of some of them."""

from __future__ import annotations

import os
from typing import Final

from attrs import define, field

from trio_supervisor.application import Application
from trio_supervisor.controller.controller import Controller, core_of
from trio_supervisor.controller.events import (
    AllWorkersReady,
    CanaryStarted,
    Event,
    ReloadFailed,
    ReloadFinished,
    ReloadStarted,
    ServingStarted,
    ShutdownStarted,
    log_event,
)
from trio_supervisor.policy.order import start_waves
from trio_supervisor.policy.shutdown import longest_stop
from trio_supervisor.process.notify.service_manager import ServiceManager

# Added to the time that the services may take [s].
_MARGIN: Final = 10.0


@define(eq=False)
class EventReporter:
    """Log every event, and tell the service manager about start, reload and stop."""

    _manager: ServiceManager
    _application: Application
    _controller: Controller | None = field(default=None, init=False)
    _is_stopping: bool = field(default=False, init=False)
    _stored: dict[str, int] = field(factory=dict, init=False)
    """Inodes of the sockets in the manager's file descriptor store, by name."""

    def on_event(self, event: Event) -> None:
        """Log *event*, and notify the manager of a change of state."""
        log_event(event)
        if self._is_stopping:
            return  # the end of a reload is no state change once a shutdown has begun
        manager = self._manager
        match event:
            case ServingStarted():
                manager.extend_timeout(self._start_time())
                manager.status("starting")
            case AllWorkersReady(workers=workers, absent=absent):
                text = "; ".join([f"{workers} workers ready", *absent])
                manager.ready(text, size=workers)
            case ReloadStarted():
                manager.reloading()
                manager.extend_timeout(self._start_time() + self._stop_time())
            case CanaryStarted(generation=generation, seconds=seconds):
                manager.status(f"comparing the canary of generation {generation}")
                manager.extend_timeout(seconds + self._start_time() + self._stop_time())
            case ReloadFinished(generation=generation):
                if self._controller is not None:
                    self.store_sockets(self._controller)
                manager.reloaded(f"generation {generation} is running")
            case ReloadFailed(problem=problem):
                # systemd expects RELOADING=1 first, also if the import has failed.
                manager.reloading()
                manager.reloaded(
                    f"reload failed: {problem}; the previous generation keeps running"
                )
            case ShutdownStarted(reason=reason):
                self._is_stopping = True
                manager.stopping(f"{reason}; shutting down")
                manager.extend_timeout(self._stop_time())

    def store_sockets(self, controller: Controller) -> None:
        """Store the listening sockets in the manager, for the next controller.

        From now on, each reload updates them.
        """
        self._controller = controller
        self._application = controller.application
        core = core_of(controller)
        sockets = core.generation_factory.sockets
        listens = {
            key: service.sockets[name]
            for service in self._application.services
            for name, key in core.members.socket_keys(service.name).items()
        }
        # With reuse_port each worker has a socket of its own: none is stored.
        keys = [key for key, listen in listens.items() if not listen.reuse_port]
        descriptors = sockets.descriptors(keys, 0)
        inodes = {key: os.fstat(descriptors[key]).st_ino for key in keys}
        for key, inode in self._stored.items():
            if inodes.get(key) != inode:
                self._manager.unstore(key)
        for key, inode in inodes.items():
            if self._stored.get(key) != inode:
                self._manager.store(key, descriptors[key])
        self._stored = inodes

    def _start_time(self) -> float:
        """Return how long the start of all services may take [s]."""
        needs = self._application.needs()
        services = {service.name: service for service in self._application.services}
        waves = start_waves(services.keys(), needs)
        longest = (
            max(services[name].startup_timeout or 0.0 for name in wave)
            for wave in waves
        )
        return sum(longest) + _MARGIN

    def _stop_time(self) -> float:
        """Return how long the stop of all services may take [s]."""
        application = self._application
        timeouts = {s.name: s.stop_timeout for s in application.services}
        longest, _ = longest_stop(application.needs(), timeouts)
        limit = application.stop_timeout
        return (longest if limit is None else min(longest, limit)) + _MARGIN
