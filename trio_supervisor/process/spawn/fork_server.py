"""Import the application once, then fork children on request.

``python -m trio_supervisor.process.spawn.fork_server CONTROL PLAN REPORT`` with three
descriptors: a SOCK_SEQPACKET socket to the controller, a file with the `PreloadPlan`,
and the progress report of the import. The process stays single-threaded and never runs
an event loop. `fork_server_loop` serves the requests.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import posix
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from socket import send_fds, socket
from typing import Final, NamedTuple, NoReturn

from trio_supervisor._location import PACKAGE
from trio_supervisor.process.imports.exit_handlers import ExitHandlers
from trio_supervisor.process.imports.fork_findings import Findings, find
from trio_supervisor.process.imports.hard_limits import keep_hard_limits
from trio_supervisor.process.imports.import_effects import (
    ImportEffects,
    StateBeforeImport,
)
from trio_supervisor.process.imports.import_watch import ImportRecord, record_import
from trio_supervisor.process.imports.open_files import ImportedObjects
from trio_supervisor.process.imports.protected_descriptors import keep_open
from trio_supervisor.process.kernel import die_with_parent, forget_parent
from trio_supervisor.process.shortage import shortage_of
from trio_supervisor.process.spawn.documents import open_document
from trio_supervisor.process.spawn.fork_server_loop import ForkServer
from trio_supervisor.process.spawn.fork_server_protocol import (
    DECLARED,
    FAILED,
    Preloaded,
    PreloadPlan,
)
from trio_supervisor.process.spawn.forked_child import (
    ImportState,
    close_on_exec,
    import_entry,
    set_title,
)
from trio_supervisor.process.spawn.process_exit import exit_process
from trio_supervisor.process.spawn.signal_dispositions import reset_ignored

_WARNING: Final = b"w"
_NOTE: Final = b"i"


class _TerminatedError(BaseException):
    """This process has received SIGTERM."""


def _sort_free_memory() -> None:
    """Make the allocator consolidate the memory that imports have freed.

    glibc does so at the next large allocation, and writes to each free chunk then. In
    every child, that copied 320 pages, a fifth of all that it copies.
    """
    bytearray(100_000)


def _rehearse(warm_up: Callable[[], None]) -> None:
    """Run *warm_up*, which prepares memory that all children share."""
    with suppress(Exception):  # what the import has patched will fail in the workers
        warm_up()


class _Import(NamedTuple):
    """Result of an import."""

    loaded: Preloaded
    notes: list[str]
    import_state: ImportState
    """For the children."""
    record: ImportRecord


def _import(
    plan: PreloadPlan, control: int, report: int, handlers: ExitHandlers
) -> _Import:
    """Import the sources of *plan*; *handlers* records the exit handlers.

    The garbage collector is enabled during the import, as in any program.
    """
    before = StateBeforeImport()
    own = {k: v for k, v in sys.modules.items() if k.startswith("trio_supervisor")}
    gc.collect()
    gc.freeze()
    gc.enable()
    with (
        handlers.record(),
        keep_open(control, report),
        keep_hard_limits() as hard_limits,
        record_import(report) as record,
    ):
        loaded: Preloaded = import_entry(plan.preload)(plan.argument)
    sys.modules.update(own)  # an import may remove modules in order to reload them
    effects = ImportEffects(before, hard_limits)
    effects.hold(_terminate)
    handlers.hold()
    imported = ImportedObjects()
    gc.collect()
    imported.find()
    notes = []
    if kept := handlers.describe():
        notes.append(
            f"exit handlers registered by the import run once, when the fork server "
            f"exits, not in each worker: {', '.join(kept)}; to run one in each worker, "
            f'register it in the target function, or set start_method="exec"'
        )
    import_state = ImportState(effects, imported)
    return _Import(loaded, notes, import_state, record)


def _terminate() -> NoReturn:
    # Controller and guardian may both send SIGTERM, but the error is caught only once.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _TerminatedError


def _end(handlers: ExitHandlers) -> NoReturn:
    """Run the exit handlers of the import, and exit."""
    # They may write a file or wait for a process: SIGTERM must not interrupt them.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    handlers.release()
    exit_process(0)


def _send_declaration(control: socket, answer: bytes) -> None:
    """Send *answer* as a file: it may be longer than a packet."""
    try:
        with open_document(answer) as document:
            send_fds(control, [DECLARED], [document])
    except (BrokenPipeError, ConnectionResetError):
        pass  # the controller is gone
    except OSError as exc:
        words = f"the declaration cannot be written: {exc.strerror}"
        _send_failure(control, OSError(exc.errno, words))


def _send_failure(control: socket, exc: OSError) -> None:
    """Report that this server cannot continue, or is of no use."""
    with suppress(OSError):
        control.send(FAILED + f"{exc.errno} {exc.strerror}".encode())


def _fail(control: socket, problem: Exception) -> NoReturn:
    """Exit because of *problem*, which the controller logs."""
    if (short := shortage_of(problem)) is not None:
        _send_failure(control, short)
        posix._exit(1)
    text = f"fork server failed: {problem} ({type(problem).__name__}); exiting"
    with suppress(OSError):
        control.send(_WARNING + text.encode("utf-8", "replace")[:4000])
    posix._exit(1)


def _exit_forked_import(control: socket, place: str) -> NoReturn:
    """Exit a child that the import has forked and that continued the import.

    Only the process that began the import is the fork server.
    """
    text = f"{place}: the import forked, and the child continued it; ending the child"
    with suppress(Exception):
        control.send(_WARNING + text.encode())
        sys.stdout.flush()
    posix._exit(0)


def main() -> None:
    """Import the application, then serve requests."""
    control_descriptor, document, report = map(int, sys.argv[1:4])
    parent, process_id = os.getppid(), os.getpid()
    sys.argv[:] = [_worker_argument()]
    control = socket(fileno=control_descriptor)
    reset_ignored()
    # If the import executes another program, the controller must see end-of-file.
    close_on_exec((control_descriptor, report))
    gc.disable()  # a collection writes to pages, which every child would copy
    with open(document, "rb") as file:
        file.seek(0)
        plan: PreloadPlan = pickle.load(file)
    if plan.is_early:
        die_with_parent(parent)
    handlers = ExitHandlers()
    try:
        set_title(plan.title)
        os.environ.pop("SPT_NOENV", None)  # read by the first call of `set_title`
        for module in plan.modules:
            importlib.import_module(module)
        done = _import(plan, control_descriptor, report, handlers)
        done.record.close()
        if posix.getpid() != process_id:
            _exit_forked_import(control, done.record.forked_at)
        try:
            _serve(plan, control, done, handlers.fork_aware)
        except Exception as exc:  # raised by an audit hook of the import, for example
            _fail(control, exc)
        _end(handlers)
    except _TerminatedError:  # raised at most once: see `_terminate`
        _end(handlers)
    except Exception as exc:
        if posix.getpid() != process_id or shortage_of(exc) is None:
            raise
        _fail(control, exc)


def _serve(
    plan: PreloadPlan, control: socket, done: _Import, fork_aware: set[str]
) -> None:
    """Report the result of the import, then fork until the controller is gone."""
    findings = find({0, 1, 2, control.fileno()}, fork_aware)
    _send_messages(control, done, findings)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, None, or a pipe without a reader
            stream.flush()
    if done.loaded.answer is not None:
        _send_declaration(control, done.loaded.answer)
    if plan.is_early:
        forget_parent()  # from here on, end-of-file of the control socket is noticed
    control.setblocking(True)
    warm_up = import_entry(plan.warm_up)
    _rehearse(warm_up)
    if plan.is_immortal or done.loaded.is_immortal:
        _make_immortal(control)
    gc.freeze()
    _sort_free_memory()
    server = ForkServer(control, warm_up, done.import_state, plan.title)
    try:
        try:
            server.serve()
        finally:
            _exit_unless_server(server)
            server.close_preforked()
    except _TerminatedError:  # SIGTERM may arrive within the block above as well
        _exit_unless_server(server)
        raise


def _make_immortal(control: socket) -> None:
    """Make all objects immortal; if that is impossible, say so and go on."""
    from trio_supervisor.process.spawn.immortal import make_immortal

    try:
        make_immortal()
    except RuntimeError as exc:
        text = f"immortal_preload has no effect: {exc}"
        with suppress(BrokenPipeError, ConnectionResetError):  # controller is gone
            control.send(_WARNING + text.encode())


def _exit_unless_server(server: ForkServer) -> None:
    """Exit a child or standby that has not started its work yet.

    The exit handlers of the import are those of the server.
    """
    if posix.getpid() != server.process_id or server.is_standby:
        posix._exit(1)


def _send_messages(control: socket, done: _Import, findings: Findings) -> None:
    """Send warnings and notes about the import, which the controller logs."""
    if done.import_state.effects.stopped_watchdog:
        findings.unsafe.append("a timer of faulthandler.dump_traceback_later")
    warnings, notes = (
        [*done.loaded.problems, findings.warning],
        [*done.notes, findings.note],
    )
    for kind, texts in ((_WARNING, warnings), (_NOTE, notes)):
        for text in filter(None, texts):
            with suppress(BrokenPipeError, ConnectionResetError):  # controller is gone
                control.send(kind + text.encode("utf-8", "replace")[:4000])


def _worker_argument() -> str:
    """Return the ``sys.argv[0]`` of a worker that is started by exec."""
    return os.path.join(PACKAGE, "worker", "__main__.py")


if __name__ == "__main__":
    main()
