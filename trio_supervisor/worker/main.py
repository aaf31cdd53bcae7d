"""Run a worker process, from its start to its exit."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from trio_supervisor._location import PREFIX
from trio_supervisor.application import Application, Service
from trio_supervisor.errors import SupervisorError
from trio_supervisor.process.inspection.black_box import use_black_box
from trio_supervisor.process.notify.sd_notify import Notifier, open_notifier
from trio_supervisor.process.shared_numbers import Numbers, use_numbers
from trio_supervisor.process.shared_values import ValueTable, use_values
from trio_supervisor.process.spawn.boot import WorkerBoot
from trio_supervisor.process.spawn.preload import load_source
from trio_supervisor.process.spawn.process_exit import call_excepthook
from trio_supervisor.worker.agent import Agent
from trio_supervisor.worker.diagnostics import WorkerDiagnostics
from trio_supervisor.worker.forked_children import end_forked_children_by
from trio_supervisor.worker.handlers import Handlers
from trio_supervisor.worker.instance import SyncWorker, Worker
from trio_supervisor.worker.operations import Operations, Run
from trio_supervisor.worker.runtimes import (
    AsyncRuntime,
    Runtime,
    SyncRuntime,
    do_nothing,
)

logger = logging.getLogger(__name__)


def run_worker(boot: WorkerBoot, descriptors: Sequence[int]) -> None:
    """Run the worker until its target returns; exit the process if it fails.

    Args:
        descriptors: The lifeline, which reads end-of-file when the controller exits,
            then those that *boot* lists.
    """
    _run(boot, descriptors, is_forked=False)


def run_forked(boot: WorkerBoot, descriptors: Sequence[int]) -> None:
    """Run the worker in a child of the fork server."""
    _run(boot, descriptors, is_forked=True)


def _run(boot: WorkerBoot, descriptors: Sequence[int], *, is_forked: bool) -> None:
    lifeline, *listening = descriptors
    if not is_forked:  # a forked worker keeps the mask that its import may have set
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _show_lines_at_once()
    channel = [listening.pop(0) for _ in range(2 * boot.has_channel)]
    if boot.has_black_box:
        use_black_box(listening.pop(0))
    numbers = None
    if boot.metrics is not None:
        numbers = use_numbers(listening.pop(0), boot.metrics.slots)
    table = use_values(listening.pop(0)) if boot.has_values else None
    sockets = {
        name: socket.socket(fileno=descriptor)
        for name, descriptor in zip(boot.sockets, listening, strict=True)
    }
    with open_notifier(boot.notify_path, channel) as notifier:
        main = _Main(boot, notifier, lifeline, sockets, numbers, table)
        try:
            main.run(is_forked=is_forked)
        except SupervisorError as exc:
            sys.exit(f"{boot.name}: {exc}")
        except Exception as exc:
            print_error(boot.name, exc)
            sys.exit(1)


class _Main:
    def __init__(
        self,
        boot: WorkerBoot,
        notifier: Notifier,
        lifeline: int,
        sockets: Mapping[str, socket.socket],
        numbers: Numbers | None,
        table: ValueTable | None,
    ) -> None:
        self._boot = boot
        self._numbers = numbers
        self._table = table
        self._sockets = sockets
        self._process_id = os.getpid()
        self._notifier = notifier
        self._runtime: Runtime | None = None
        self._read_state: Callable[[], dict[str, Any]] = lambda: boot.state
        self._is_stopped = False
        self._looking = WorkerDiagnostics(boot.name, notifier.held)
        self._handlers = Handlers()
        self._agent = Agent(
            boot,
            lifeline,
            lambda: self._read_state(),
            self._stop,
            Operations(self._looking, self._handlers, self._runner).dispatch,
            self._look,
        )

    def run(self, *, is_forked: bool) -> None:
        if not is_forked:
            # Diagnostics must work while the application imports slowly, or hangs.
            self._agent.start()
        try:
            if not (is_forked and _was_moved(self._boot)):
                _enter_directory(self._boot.directory)
            target = _load_target(self._boot)
            if self._table is not None:
                # Imported here: it is loaded in workers that use it.
                from trio_supervisor.worker.client_values import count_in

                count_in(self._table)
            self._runtime = runtime = self._make_runtime(target)
            stop_signals = {signal.SIGTERM, signal.SIGINT, self._boot.stop_signal}
            stop_signals -= {signal.SIGKILL}
            for sig in stop_signals:
                signal.signal(sig, self._handle_signal)
            end_forked_children_by(stop_signals, self._handle_signal)
            if self._is_stopped:
                return
            # A forked child has imported everything: the rest of its start should not
            # share the CPU with the agent.
            runtime.run(self._agent.start if is_forked else do_nothing)
        finally:
            # It must not run during interpreter shutdown. A forked child just exits,
            # and the kernel closes its connection.
            if not is_forked:
                self._agent.stop()

    def _make_runtime(self, target: Callable[[Any], Any]) -> Runtime:
        boot, notifier = self._boot, self._notifier
        if boot.backend == "sync":
            sync_worker = SyncWorker._create(
                boot, notifier, self._sockets, self._handlers, self._numbers
            )
            self._read_state = lambda: sync_worker.state
            self._looking.stop_checks = lambda: sync_worker._stopping.checks
            return SyncRuntime(sync_worker, target)

        def make_worker() -> Worker:
            # Within the loop, since its event belongs to the loop.
            worker = Worker._create(
                boot, notifier, self._sockets, self._handlers, self._numbers
            )
            self._read_state = lambda: worker.state
            return worker

        return AsyncRuntime(
            boot, make_worker, notifier, target, boot.backend, self._looking.begin
        )

    def _runner(self) -> Run | None:
        return self._runtime.call if self._runtime is not None else None

    def _handle_signal(self, sig: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process_id:
            # This is a child that C code of the target has forked.
            signal.signal(sig, signal.SIG_DFL)
            os.kill(os.getpid(), sig)
            return
        assert self._runtime is not None
        self._agent.request_stop()
        self._runtime.handle_signal()

    def _look(self) -> float:
        if self._boot.backend == "sync":  # there is no loop to watch
            return float("inf")
        return self._looking.look()

    def _stop(self, is_forced: bool) -> None:
        self._is_stopped = True
        if self._runtime is not None:
            self._runtime.stop(is_forced)


def _show_lines_at_once() -> None:
    """Flush standard output after each line, although it is a pipe."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        with suppress(ValueError):  # the import has closed it
            sys.stdout.reconfigure(line_buffering=True)


def _was_moved(boot: WorkerBoot) -> bool:
    """Return whether the import has changed this forked worker's directory."""
    try:
        return os.getcwd() != boot.started_in
    except FileNotFoundError:
        return bool(boot.started_in)


def _enter_directory(directory: str | None) -> None:
    if directory is not None:
        try:
            os.chdir(directory)
        except OSError as exc:
            raise SupervisorError(
                f"directory: cannot change to {directory}: {exc}"
            ) from exc


def _load_target(boot: WorkerBoot) -> Callable[[Any], Any]:
    source = load_source(boot.source)
    if not isinstance(source, Application):
        target: Callable[[Any], Any] = source
        return target
    try:
        service = source.service(boot.service)
    except KeyError:
        raise SupervisorError(
            f"the application no longer has a service {boot.service!r}"
        ) from None
    if not isinstance(service, Service):
        raise SupervisorError(
            f"{boot.service!r} is now a command, not a service; reload the application"
        )
    return service.target


def print_error(name: str, exc: BaseException) -> None:
    """Print a traceback that begins in the application's code."""
    frames = traceback.extract_tb(exc.__traceback__)
    first = max(
        (i + 1 for i, f in enumerate(frames) if f.filename.startswith(PREFIX)),
        default=0,
    )
    skipped = exc.__traceback__
    for _ in range(first):
        skipped = skipped and skipped.tb_next
    error = exc.with_traceback(skipped or exc.__traceback__)
    if sys.excepthook is not sys.__excepthook__:
        call_excepthook(error)
        return
    text = "".join(traceback.format_exception(error))
    print(f"{name} failed\n{text}", end="", file=sys.stderr, flush=True)
