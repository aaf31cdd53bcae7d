"""Run one worker in the foreground, without a controller: ``trio-supervisor run``.

``python -m trio_supervisor.worker.foreground TARGET SERVICE``, with the service's
sockets as in sd_listen_fds(3).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from types import FrameType

from trio_supervisor.application import Service
from trio_supervisor.errors import SupervisorError
from trio_supervisor.process.notify.sd_notify import Notifier
from trio_supervisor.process.spawn.boot import WorkerBoot
from trio_supervisor.process.spawn.load import load_application
from trio_supervisor.worker.handlers import Handlers
from trio_supervisor.worker.instance import SyncWorker, Worker
from trio_supervisor.worker.main import print_error
from trio_supervisor.worker.runtimes import AsyncRuntime, Runtime, SyncRuntime

_FIRST_SOCKET = 3


class _Shown(Notifier):
    """Shows what the worker reports on standard error, instead of sending it."""

    name = ""

    def send(self, text: str) -> bool:
        for line in text.splitlines():
            word, _, value = line.partition("=")
            shown = {"READY=1": "ready", "READY=0": "not ready"}.get(line)
            if word == "STATUS" and value:
                shown = value
            if shown is not None:
                print(f"{self.name}: {shown}", file=sys.stderr, flush=True)
        return True

    def beat(self) -> None:
        """Show nothing."""


def main() -> None:
    """Run the target of the service until it returns."""
    target, name = sys.argv[1:3]
    sys.argv[:] = [target]
    try:
        service = load_application(target).service(name)
    except SupervisorError as exc:
        sys.exit(f"trio-supervisor: {exc}")
    assert isinstance(service, Service)
    sockets = _sockets()
    notifier = _Shown(None)
    notifier.name = f"{name}.0"
    runtime = _runtime(service, notifier, sockets)

    def stop(_number: int, _frame: FrameType | None) -> None:
        runtime.handle_signal()

    for number in {signal.SIGTERM, service.stop_signal} - {signal.SIGKILL}:
        signal.signal(number, stop)
    # SIGINT stays Python's own: a debugger needs it.
    try:
        runtime.run()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as exc:
        print_error(notifier.name, exc)
        sys.exit(1)


def _runtime(
    service: Service, notifier: Notifier, sockets: dict[str, socket.socket]
) -> Runtime:
    boot = WorkerBoot.alone(
        f"{service.name}.0",
        backend=service.backend,
        state=service.state,
        stop_signal=service.stop_signal,
        stop_timeout=service.stop_timeout,
        metrics=service.metrics,
    )
    if service.backend == "sync":
        worker = SyncWorker._create(boot, notifier, sockets, Handlers())
        return SyncRuntime(worker, service.target)
    return AsyncRuntime(
        boot,
        lambda: Worker._create(boot, notifier, sockets, Handlers()),
        notifier,
        service.target,
        service.backend,
        lambda _loop: None,
    )


def _sockets() -> dict[str, socket.socket]:
    """Return the sockets that this process has inherited, by name."""
    names = os.environ.pop("LISTEN_FDNAMES", "")
    for variable in ("LISTEN_FDS", "LISTEN_PID"):
        os.environ.pop(variable, None)
    return {
        name: socket.socket(fileno=descriptor)
        for descriptor, name in enumerate(filter(None, names.split(":")), _FIRST_SOCKET)
    }


if __name__ == "__main__":
    main()
