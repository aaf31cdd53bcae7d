"""What is above us, as systemd, is told of what happens below."""

from __future__ import annotations

import os
from typing import Final

from attrs import define, field

from trio_supervisor.application import Application
from trio_supervisor.controller.controller import Controller
from trio_supervisor.controller.events import (
    AllWorkersReady,
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

# On top of what the services may take [s].
_MARGIN: Final = 10.0


@define(eq=False)
class Reporter:
    """Hears all events: logs them, and tells a service manager what concerns it."""

    _manager: ServiceManager
    _application: Application
    _controller: Controller | None = field(default=None, init=False)
    _is_stopping: bool = field(default=False, init=False)
    _stored: dict[str, int] = field(factory=dict, init=False)
    """The inodes of the sockets that the manager keeps, by name."""

    def on_event(self, event: Event) -> None:
        """Take in *event*."""
        log_event(event)
        if self._is_stopping:
            return  # what ends a reload that was under way is no news of ours any more
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
            case ReloadFinished(generation=generation):
                if self._controller is not None:
                    self.store_sockets(self._controller)
                manager.reloaded(f"generation {generation} serves")
            case ReloadFailed(problem=problem):
                # One that does not import never began; it was asked for all the same.
                manager.reloading()
                manager.reloaded(f"the reload failed: {problem}")
            case ShutdownStarted(reason=reason):
                self._is_stopping = True
                manager.stopping(f"stopping: {reason}")
                manager.extend_timeout(self._stop_time())

    def store_sockets(self, controller: Controller) -> None:
        """Have the manager keep the listening sockets for a controller after us.

        From now on with each reload, too.
        """
        self._controller = controller
        self._application = controller.application
        sockets = controller.workshop.sockets
        listens = {
            key: service.sockets[name]
            for service in self._application.services
            for name, key in controller.socket_keys(service.name).items()
        }
        # Where each worker has one of its own, none is kept.
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
        """Return how long it may take until all are ready [s]."""
        needs = self._application.needs()
        services = {service.name: service for service in self._application.services}
        waves = start_waves(services.keys(), needs)
        longest = (
            max(services[name].startup_timeout or 0.0 for name in wave)
            for wave in waves
        )
        return sum(longest) + _MARGIN

    def _stop_time(self) -> float:
        """Return how long it may take until all are gone [s]."""
        application = self._application
        timeouts = {s.name: s.stop_timeout for s in application.services}
        longest, _ = longest_stop(application.needs(), timeouts)
        limit = application.stop_timeout
        return (longest if limit is None else min(longest, limit)) + _MARGIN
