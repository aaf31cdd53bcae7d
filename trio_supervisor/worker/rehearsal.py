"""Rehearse a worker: run what every worker runs at its start, with an empty target.

A fork server does so before it forks, and each preforked child again: the interpreter
has then specialised the code and filled its caches in memory that the workers share,
and a preforked child has copied the pages that it is going to write to.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import anyio

from trio_supervisor.process.notify.sd_notify import Notifier
from trio_supervisor.process.spawn.boot import WorkerBoot
from trio_supervisor.worker.diagnostics import WorkerDiagnostics
from trio_supervisor.worker.handlers import Handlers
from trio_supervisor.worker.instance import SyncWorker, Worker
from trio_supervisor.worker.runtimes import AsyncRuntime, SyncRuntime
from trio_supervisor.worker.standby import rehearse_registration

_ASYNCIO: Final = "anyio._backends._asyncio"


def rehearse() -> None:
    """Run a worker that does nothing under each backend whose library is loaded.

    It leaves no thread, event loop, descriptor or signal handler behind.
    """
    with _without_signals(), _without_log(), _open_notifier() as notifier:
        _run_sync(_boot("sync"), notifier)
        _run_async(_boot("trio"), notifier)
        if _ASYNCIO in sys.modules:
            _run_async(_boot("asyncio"), notifier)
        rehearse_registration()


async def _do_little(worker: Worker) -> None:
    await worker.ready()
    with anyio.move_on_after(0):
        await worker.stopping.wait()


def _do_less(worker: SyncWorker) -> None:
    worker.ready()
    worker.stopping.is_set()


def _run_async(boot: WorkerBoot, notifier: Notifier) -> None:
    looking = WorkerDiagnostics(boot.name, notifier.held)
    AsyncRuntime(
        boot,
        lambda: Worker._create(boot, notifier, {}, Handlers()),
        notifier,
        _do_little,
        boot.backend,
        looking.begin,
    ).run(partial(_look, looking))


def _look(looking: WorkerDiagnostics) -> None:
    looking.look()


def _run_sync(boot: WorkerBoot, notifier: Notifier) -> None:
    worker = SyncWorker._create(boot, notifier, {}, Handlers())
    SyncRuntime(worker, _do_less).run()


def _boot(backend: str) -> WorkerBoot:
    return WorkerBoot.alone(
        "rehearsal.0", backend=backend, stop_timeout=1.0, heartbeat=60.0
    )


@contextmanager
def _open_notifier() -> Iterator[Notifier]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs, Notifier(None, ours) as notifier:
        yield notifier


@contextmanager
def _without_log() -> Iterator[None]:
    """Drop log records, such as those of asyncio at level DEBUG."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _without_signals() -> Iterator[None]:
    """Block signals: a handler that raises must not do so within an event loop."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
