"""A process that has imported the application once, and forks children from it.

``python -m trio_supervisor.process.spawn.fork_server CONTROL SOURCES`` with two
descriptors: a SOCK_SEQPACKET socket to the controller, and a file with what to import.
It stays single-threaded and never runs an event loop. Each request is one packet
with the descriptors of `ForkRequest`; its outcome is reported over its ``birth``
socket, by the child itself, so that a child is born exactly once or not at all:

    child -> controller    its pid
    controller -> child    a byte: go on      (end-of-file: never mind, and it ends)

A child is forked twice, so that it is nobody's but the controller's, which is a
subreaper: it can be waited for there, and outlives this process. One spare child is
always ready, forked and parked, so that what follows a crash has no fork to wait for.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import pickle
import posix
import signal
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from select import POLLIN, poll
from socket import MSG_CTRUNC, recv_fds, send_fds, socket
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
from trio_supervisor.process.spawn.fork_server_protocol import (
    DECLARED,
    FAILED,
    STANDBY,
    PreloadPlan,
)
from trio_supervisor.process.spawn.forked_child import (
    MAX_DESCRIPTORS,
    ForkRequest,
    ImportState,
    close_on_exec,
    close_request,
    fork,
    import_entry,
    run_child,
    set_title,
    socket_pair,
    wait_for_request,
)
from trio_supervisor.process.spawn.process_exit import exit_process
from trio_supervisor.process.spawn.signal_dispositions import reset_ignored
from trio_supervisor.process.spawn.standby import fork_standby

# Two, so that a second crash right after the first finds one, too.
_PREFORKED: Final = 2
# How long nothing may have been asked for before a spare is made [s].
_IDLE: Final = 0.02
# So many children have one process in between. All wait for it to end.
_BATCH: Final = 8
_PREFORKED_PID: Final = b"s"
_WARNING: Final = b"w"
_NOTE: Final = b"i"


class _TerminatedError(BaseException):
    """Somebody has sent this process a SIGTERM."""


class ForkServer:
    """The server's side.

    An import may have replaced any name in `os` and `socket` (as gevent does, and proxy
    libraries), so it uses those of `posix`, and what it has taken before.
    """

    def __init__(
        self,
        control: socket,
        warm_up: Callable[[], None],
        import_state: ImportState,
        title: str,
    ) -> None:
        self._control = control
        self._warm_up = warm_up
        self._import_state = import_state
        self._title = title
        self._preforked: deque[socket] = deque()
        self._has_standby = False
        self.process_id = posix.getpid()
        """Of the process that is this server."""
        self.is_standby = False
        """Whether it is a twin that was not needed yet."""

    def serve(self) -> None:
        """Answer requests until the controller is gone."""
        while True:
            requests = self._receive()
            if requests is None:
                return
            if self.is_standby:
                set_title(self._title)
                self.is_standby = False
            if len(requests) > 1 or (
                requests and not self._give_to_preforked(requests[0])
            ):
                for first in range(0, len(requests), _BATCH):
                    self._fork(requests[first : first + _BATCH], requests)
                for request in requests:
                    close_request(request)
            while len(self._preforked) < _PREFORKED:
                # The first one at once: a process that crashes again and again must not
                # find none. The others when what was asked for has had the processor.
                if self._is_readable(_IDLE if self._preforked else 0.0):
                    break
                if not self._prefork():
                    break
            else:
                if not self._has_standby and not self._is_readable(_IDLE):
                    self._fork_standby()

    def _fork_standby(self) -> None:
        """Fork a twin; in the twin, serve its own controller's end from now on."""
        try:
            control = fork_standby(self._control)
        except OSError:  # tried again after the next request
            return
        self._has_standby = True
        if control is not None:
            self._leave()
            self._control, self._has_standby = control, False
            self.process_id, self.is_standby = posix.getpid(), True
            set_title(f"twin of the {self._title}")

    def _receive(self) -> list[ForkRequest] | None:
        """Wait for a request, and take all that are there; None: nobody asks.

        May return none: a twin was woken, or is missed.
        """
        requests: list[ForkRequest] = []
        while not requests or self._is_readable():
            try:
                data, descriptors, flags, _ = recv_fds(
                    self._control, 1, MAX_DESCRIPTORS
                )
            except ConnectionResetError:  # it left what we had to say unread
                return None
            if not data:
                return None
            close_on_exec(descriptors)
            if flags & MSG_CTRUNC:  # this process may open no more
                self._refuse_cut(descriptors)
                continue
            if not descriptors:
                self._has_standby = self._has_standby and data != STANDBY
                return requests
            if len(descriptors) >= 2:
                document, birth, *others = descriptors
                requests.append(ForkRequest(document, birth, tuple(others)))
        return requests

    def _refuse_cut(self, descriptors: list[int]) -> None:
        """Refuse a request of which descriptors were lost."""
        problem = OSError(errno.EMFILE, posix.strerror(errno.EMFILE))
        if len(descriptors) >= 2:
            _refuse([ForkRequest(descriptors[0], descriptors[1], ())], problem)
        for descriptor in descriptors:
            posix.close(descriptor)

    def _is_readable(self, timeout: float = 0.0) -> bool:
        poller = poll()
        poller.register(self._control, POLLIN)
        return bool(poller.poll(round(timeout * 1000)))

    def _give_to_preforked(self, request: ForkRequest) -> bool:
        descriptors = [request.document, request.birth, *request.others]
        while self._preforked:
            with self._preforked.popleft() as spare:
                try:
                    send_fds(spare, [b"r"], descriptors)
                except OSError:  # somebody killed it
                    continue
            close_request(request)
            return True
        return False

    def _fork(self, requests: list[ForkRequest], everyone: list[ForkRequest]) -> None:
        """Fork a child for each request; one process in between for all of them.

        A child begins when that one has ended, and so is the controller's: its end is
        read off a pipe. Of *everyone* that asked, it keeps what is its own alone.
        """
        try:
            read, write = posix.pipe()
        except OSError as exc:
            _refuse(requests, exc)
            return
        try:
            is_between = _fork_between()
        except OSError as exc:
            posix.close(read)
            posix.close(write)
            _refuse(requests, exc)
            return
        if is_between:
            for request in requests:
                try:
                    is_child = fork() == 0
                except OSError as exc:
                    _refuse([request], exc)
                    continue
                if is_child:
                    for other in everyone:
                        if other is not request:
                            close_request(other)
                    self._leave()
                    posix.close(write)
                    posix.read(read, 1)
                    posix.close(read)
                    run_child(request, self._import_state)
            posix._exit(0)
        posix.close(read)
        posix.close(write)

    def _prefork(self) -> bool:
        """Fork a spare child; say whether that was possible."""
        try:
            ours, theirs = socket_pair()
        except OSError:  # the next request will say so
            return False
        try:
            is_between = _fork_between()
        except OSError:
            ours.close()
            theirs.close()
            return False
        if is_between:
            try:
                pid = fork()
            except OSError:  # the socket of the spare is closed, and tells
                posix._exit(1)
            if pid == 0:
                ours.close()
                self._leave()
                wait_for_request(theirs, self._warm_up, self._import_state)
            with suppress(OSError):
                self._control.send(_PREFORKED_PID + str(pid).encode())
            posix._exit(0)
        theirs.close()
        self._preforked.append(ours)
        return True

    def _leave(self) -> None:
        """In a child: let go of what is the server's."""
        self._control.close()
        self.close_preforked()

    def close_preforked(self) -> None:
        """Have the spare children end."""
        while self._preforked:
            self._preforked.pop().close()


def _fork_between() -> bool:
    """Fork the process in between, and wait until it ended; True: this is it."""
    pid = fork()
    if pid == 0:
        return True
    with suppress(ChildProcessError):  # SIGCHLD is ignored: the kernel has reaped it
        posix.waitpid(pid, 0)
    return False


def _refuse(requests: list[ForkRequest], problem: OSError) -> None:
    """Say why no child can be forked: the errno, and words."""
    text = f"!{problem.errno or 0} the fork server cannot fork: {problem.strerror}"
    for request in requests:
        # Not a copy: there may be no descriptor for it.
        birth = socket(fileno=request.birth)
        with suppress(OSError):
            birth.send(text.encode())
        birth.detach()


def _sort_free_memory() -> None:
    """Have the allocator put in order what imports have freed.

    glibc leaves that to the next large request, and writes to each free piece then: in
    every child, which copied 320 more pages for it, a fifth of all that it copies.
    """
    bytearray(100_000)


class _Import(NamedTuple):
    """What came of an import."""

    problems: list[str]
    notes: list[str]
    answer: bytes | None
    """What is declared, for the controller."""
    import_state: ImportState
    """What children are to know."""
    record: ImportRecord


def _import(
    plan: PreloadPlan, control: int, report: int, handlers: ExitHandlers
) -> _Import:
    """Import what *plan* says; *handlers* takes in what it registers.

    The collector runs during an import as it does in any program: the import may look.
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
        problems, answer = import_entry(plan.preload)(plan.argument)
    sys.modules.update(own)  # an import may throw modules away to have them reloaded
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
            f"ends, and not in each worker: {', '.join(kept)}; to have one run in each "
            f'worker, register it in the target, or use start_method="exec"'
        )
    import_state = ImportState(effects, imported)
    return _Import(problems, notes, answer, import_state, record)


def _terminate() -> NoReturn:
    # The controller and the guardian may both ask, and one error is caught once.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _TerminatedError


def _end(handlers: ExitHandlers) -> NoReturn:
    """End the server, with the exit handlers of the import."""
    # They may write a file or wait for a process: a SIGTERM is not to interrupt them.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    handlers.release()
    exit_process(0)


def _tell_declared(control: socket, answer: bytes) -> None:
    """Send *answer*, which may be longer than a packet, as a file."""
    try:
        with open_document(answer) as document:
            send_fds(control, [DECLARED], [document])
    except (BrokenPipeError, ConnectionResetError):
        pass  # nobody is there
    except OSError as exc:
        words = f"the declaration cannot be written: {exc.strerror}"
        _tell_failure(control, OSError(exc.errno, words))


def _tell_failure(control: socket, exc: OSError) -> None:
    """Say that this server cannot go on, or not be of use."""
    with suppress(OSError):
        control.send(FAILED + f"{exc.errno} {exc.strerror}".encode())


def _fail(control: socket, problem: Exception) -> NoReturn:
    """End the server for *problem*, which the controller logs."""
    if (short := shortage_of(problem)) is not None:
        _tell_failure(control, short)
        posix._exit(1)
    text = f"the fork server cannot go on: {problem} ({type(problem).__name__})"
    with suppress(OSError):
        control.send(_WARNING + text.encode("utf-8", "replace")[:4000])
    posix._exit(1)


def _leave_import(control: socket, place: str) -> NoReturn:
    """End a child that the import has forked, and that went on with it.

    There is one fork server: the process that began the import.
    """
    text = f"{place}: the import forked, and the child went on with it; it was ended"
    with suppress(Exception):
        control.send(_WARNING + text.encode())
        sys.stdout.flush()
    posix._exit(0)


def main() -> None:
    """Import everything, then serve."""
    control_descriptor, document, report = map(int, sys.argv[1:4])
    parent, process_id = os.getppid(), os.getpid()
    sys.argv[:] = [_worker_argument()]
    control = socket(fileno=control_descriptor)
    reset_ignored()
    # An import that becomes another program must not keep the controller waiting.
    close_on_exec((control_descriptor, report))
    gc.disable()  # what it would collect is copied by every child
    with open(document, "rb") as file:
        file.seek(0)
        plan: PreloadPlan = pickle.load(file)
    if plan.is_early:
        die_with_parent(parent)
    handlers = ExitHandlers()
    try:
        set_title(plan.title)
        os.environ.pop("SPT_NOENV", None)  # read when the title was set first
        for module in plan.modules:
            importlib.import_module(module)
        done = _import(plan, control_descriptor, report, handlers)
        done.record.close()
        if posix.getpid() != process_id:
            _leave_import(control, done.record.forked_at)
        try:
            _serve(plan, control, done, handlers.fork_aware)
        except Exception as exc:  # of an audit hook of the import, for example
            _fail(control, exc)
        _end(handlers)
    except _TerminatedError:  # at most once: it cannot interrupt what follows
        _end(handlers)
    except Exception as exc:
        if posix.getpid() != process_id or shortage_of(exc) is None:
            raise
        _fail(control, exc)


def _serve(
    plan: PreloadPlan, control: socket, done: _Import, fork_aware: set[str]
) -> None:
    """Say what came of the import, then fork until the controller is gone."""
    findings = find({0, 1, 2, control.fileno()}, fork_aware)
    _tell(control, done, findings)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or a pipe that nobody reads
            stream.flush()
    if done.answer is not None:
        _tell_declared(control, done.answer)
    if plan.is_early:
        forget_parent()  # from here on the end of the control socket tells
    gc.freeze()
    _sort_free_memory()
    control.setblocking(True)
    warm_up = import_entry(plan.warm_up)
    server = ForkServer(control, warm_up, done.import_state, plan.title)
    try:
        server.serve()
    finally:
        if posix.getpid() != server.process_id or server.is_standby:
            posix._exit(1)  # a child that does not know yet what it is to be
        server.close_preforked()


def _tell(control: socket, done: _Import, findings: Findings) -> None:
    """Have the controller log what there is to be said about an import."""
    if done.import_state.effects.stopped_watchdog:
        findings.unsafe.append("a timer of faulthandler.dump_traceback_later")
    warnings, notes = [*done.problems, findings.warning], [*done.notes, findings.note]
    for kind, texts in ((_WARNING, warnings), (_NOTE, notes)):
        for text in filter(None, texts):
            with suppress(BrokenPipeError, ConnectionResetError):  # nobody is there
                control.send(kind + text.encode("utf-8", "replace")[:4000])


def _worker_argument() -> str:
    """Return what a worker that is started by exec has as its ``sys.argv[0]``."""
    return os.path.join(PACKAGE, "worker", "__main__.py")


if __name__ == "__main__":
    main()
