"""Open a controller, with all that it needs from its first child to its last."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Final

import trio
from attrs import frozen

from trio_supervisor.application import Application
from trio_supervisor.controller.calls import answer
from trio_supervisor.controller.capacity import check_capacity
from trio_supervisor.controller.controller import Controller, OnEvent
from trio_supervisor.controller.events import log_event
from trio_supervisor.controller.file_keeper import keep_files
from trio_supervisor.controller.fleet.make_generation import Workshop
from trio_supervisor.controller.launch.context import Surroundings
from trio_supervisor.controller.launch.factory import sources_of
from trio_supervisor.controller.launch.preflight import check_startable
from trio_supervisor.controller.launch.socket_keys import socket_keys
from trio_supervisor.controller.post_mortem.store import EvidenceStore
from trio_supervisor.errors import PlatformError
from trio_supervisor.link.listener import check_socket_path, keep_listener
from trio_supervisor.policy.reload import ServiceFacts
from trio_supervisor.process.cleanup.guardian import Table, end_all
from trio_supervisor.process.cleanup.guardian_client import open_guardian
from trio_supervisor.process.cleanup.stopping import StopDeadline
from trio_supervisor.process.imports.declaration_wait import IMPORT_TIMEOUT
from trio_supervisor.process.inspection.machine_load import LinuxMachine
from trio_supervisor.process.kernel import be_subreaper
from trio_supervisor.process.logs import TEXT
from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.output.hub import open_output_hub
from trio_supervisor.process.output.rendering import Form
from trio_supervisor.process.sockets.sockets import open_sockets
from trio_supervisor.process.sockets.systemd_sockets import AdoptedDescriptors
from trio_supervisor.process.spawn.boot import check_not_importing
from trio_supervisor.process.spawn.code_source import (
    Reference,
    absolute_target,
    split_target,
)
from trio_supervisor.process.spawn.environment import (
    DEFAULT_SOCKET,
    MARKER_VARIABLE,
    SOCKET_VARIABLE,
    unsupervised_environment,
)
from trio_supervisor.process.spawn.fork_server_protocol import EarlyServer
from trio_supervisor.process.spawn.working_directory import (
    absolute,
    import_path,
    working_directory,
)
from trio_supervisor.process.threads import keep_reserve, run_in_thread
from trio_supervisor.tasks import Background, combined, interrupt_safe, open_nursery

logger = logging.getLogger(__name__)

_MOST_NAMED: Final = 10


@interrupt_safe
@asynccontextmanager
async def open_controller(
    application: Application,
    *,
    socket_path: str | None = None,
    source: str | None = None,
    on_event: OnEvent = log_event,
    log_format: str = TEXT,
    early: EarlyServer | None = None,
    owns_process: bool = False,
    output: Form | None = None,
    log: Destination | None = None,
    state_directory: str | None = None,
    adopted: AdoptedDescriptors | None = None,
    facts: Mapping[str, ServiceFacts] | None = None,
    files: Mapping[str, str] | None = None,
    import_timeout: float | None = IMPORT_TIMEOUT,
) -> AsyncIterator[Controller]:
    """Run *application* for the length of the block.

    The block is entered at once; `Controller.wait_ready` waits for the workers. Leaving
    or cancelling it stops everything, dependents first, shielded, which takes at most
    ``stop_timeout`` along the longest chain of dependencies; nothing is left after.
    Signals are not touched, so it works in any thread and in guest mode.

    Args:
        socket_path: Where the supervisor listens; else what ``TRIO_SUPERVISOR_SOCKET``
            says, else ``supervisor.ipc`` in the current directory.
        source: The target, as ``service.py:application``, that *application* comes
            from. Without it its functions and monitors are pickled for the children,
            and so have to be importable.
        on_event: Called with everything that happens; the default logs it.
        log_format: Of the supervisor process, ``"text"`` or ``"json"``.
        early: A fork server that has imported *source*.
        owns_process: Whether nobody else in this process waits for children; then
            orphans that come to it are buried, whoever's they were.
        output: How what the workers print is passed on: ``"text"``, with a name before
            each line, or ``"json"``. None: they write where this program writes, and
            there is nothing for ``logs`` to show.
        log: Where the log goes, if it is a destination of `process.output`: then what
            the workers print keeps its order with it.
        state_directory: Where a file is kept of each process that came to a bad end,
            the newest fifty; made when there is one. None: none is kept.
        adopted: Listening sockets that a service manager handed over.
        facts: What a reload compares, where *application* was not imported here.
        files: A hash of each file of its code, by path: see `process.code.code_files`.
        import_timeout: A reload whose import takes longer fails [s]; None: wait.

    Raises:
        SpecError: something cannot be pickled, or a service needs what is not there: a
            program, a directory, a file that can be written.
        SocketPathError: the socket cannot be made there.
        AlreadyServingError: somebody serves there.
        ListenError: a service's socket cannot be bound.
        RestartLimitError: a worker ended too often, and everything was stopped.
        SignificantServiceError: a significant service failed, and so everything was
            stopped.
        PlatformError: too few file descriptors are allowed for so many workers; or exit
            statuses of children are lost in this process; or this is a
            child that imports a main module without ``if __name__ == "__main__"``.
    """
    path = absolute(socket_path or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET)
    check_not_importing()
    check_socket_path(path)
    _check_platform()
    check_capacity(
        sum(service.count for service in application.services),
        is_captured=output is not None,
        may_raise=owns_process,
    )
    reference = None
    title = application.name
    if source is not None:
        reference = Reference(absolute_target(source), import_path())
        title = os.path.basename(split_target(source)[0])
    setup = _Setup(
        application=application,
        base=_base(),
        path=path,
        source=reference,
        on_event=on_event,
        log_format=log_format,
        title=title,
        early=early,
        owns_process=owns_process,
        output=output,
        log=log,
        state_directory=state_directory,
        adopted=adopted,
        facts=facts,
        files=files,
        import_timeout=import_timeout,
    )
    # Now, where a mistake is the caller's: what cannot be pickled cannot be started.
    sources_of(application, reference)
    await check_startable(
        application,
        [service.name for service in application.services if service.count],
        os.environ,
        with_sockets=adopted is None or adopted.is_empty,
    )
    error: BaseException | None = None
    block = trio.CancelScope()
    background: Background[Controller] = Background(
        partial(_own, setup), _leave, Controller.hurry, block.cancel
    )
    try:
        with block:
            async with background:
                yield await background.wait_started()
    except BaseException as exc:
        error = exc
    if (error := combined(error, background.error)) is not None:
        raise error


def _leave(controller: Controller) -> None:
    controller.shutdown("the block was left")


@frozen(kw_only=True)
class _Setup:
    """What `open_controller` was told, and made of it."""

    application: Application
    base: str | None
    path: str
    source: Reference | None
    on_event: OnEvent
    log_format: str
    title: str
    early: EarlyServer | None
    owns_process: bool
    output: Form | None
    log: Destination | None
    state_directory: str | None
    adopted: AdoptedDescriptors | None
    facts: Mapping[str, ServiceFacts] | None
    files: Mapping[str, str] | None
    import_timeout: float | None


async def _own(setup: _Setup, background: Background[Controller]) -> None:
    """Own everything that a controller has, from before the first child to the last.

    Never cancelled: what cancels or interrupts the block asks for a shutdown, and that
    is waited for with all that it needs.
    """
    marker = setup.early.marker if setup.early else str(uuid.uuid4())
    async with AsyncExitStack() as stack:
        stack.enter_context(keep_reserve())
        kept = stack.enter_context(keep_listener(setup.path))
        directory = _open_directory(stack)
        sockets = await stack.enter_async_context(
            open_sockets(socket_keys(setup.application)[0], setup.adopted)
        )
        surroundings = Surroundings(
            socket_path=setup.path,
            listener=kept.socket,
            directory=directory,
            base=setup.base,
            lifeline=stack.enter_context(_open_lifeline()),
            marker=marker,
            log_format=setup.log_format,
            owns_process=setup.owns_process,
            title=setup.title,
            hub=await stack.enter_async_context(
                open_output_hub(setup.output or "text", stderr=setup.log)
            ),
            is_captured=setup.output is not None,
        )
        guardian = await stack.enter_async_context(
            open_guardian(
                f"{MARKER_VARIABLE}={marker}",
                directory,
                unsupervised_environment(os.environ),
                surroundings.guarded_outputs,
            )
        )
        stop_deadline = StopDeadline()
        can_fork = stack.enter_context(be_subreaper())
        # Behind the fork server, whose spare children have the marker, too.
        stack.push_async_callback(_end_strays, setup.application, marker, stop_deadline)
        async with open_nursery() as nursery:
            workshop = Workshop(
                surroundings,
                sockets,
                setup.source,
                can_fork,
                nursery,
                setup.import_timeout,
                setup.base if setup.owns_process else None,
            )
            controller = Controller(
                setup.path,
                workshop,
                guardian,
                stop_deadline,
                setup.on_event,
                answer,
                _store_in(setup.state_directory),
                owns_process=setup.owns_process,
                machine=LinuxMachine(),
            )
            controller.begin(
                *await workshop.make(
                    1,
                    setup.application,
                    setup.facts,
                    controller.make_child,
                    sockets,
                    setup.early.adopt() if setup.early is not None else None,
                    setup.files,
                )
            )
            nursery.start_soon(controller._reap)
            nursery.start_soon(controller.referee.clock.run)
            nursery.start_soon(keep_files, controller, kept)
            background.started(controller)
            if not background.is_ending:
                await controller._run()
            nursery.cancel_scope.cancel()
    controller._raise_failure()


def _store_in(directory: str | None) -> EvidenceStore | None:
    return None if directory is None else EvidenceStore(directory)


def _open_directory(stack: AsyncExitStack) -> str:
    """Make a directory of ours alone."""
    try:
        return stack.enter_context(
            tempfile.TemporaryDirectory(
                prefix="trio_supervisor-", ignore_cleanup_errors=True
            )
        )
    except OSError as exc:
        raise PlatformError(
            f"nothing can be made in the directory for temporary files, "
            f"{tempfile.gettempdir()} ({exc}); set TMPDIR to another one"
        ) from exc


async def _end_strays(
    application: Application, marker: str, stop_deadline: StopDeadline
) -> None:
    """End what had left the groups of its worker, as a daemon does by setsid(2)."""
    timeouts = [service.stop_timeout for service in application.services]
    grace = stop_deadline.bound(max(timeouts, default=0.0))
    end = partial(end_all, Table(), f"{MARKER_VARIABLE}={marker}", grace)
    if strays := await run_in_thread(end):
        logger.warning("stopped as well, of no running worker: %s", _named(strays))


def _named(programs: Mapping[int, str]) -> str:
    """Return *programs*, by pid, in words; the first of many."""
    named = [f"pid {pid} ({command})" for pid, command in programs.items()]
    more = len(named) - _MOST_NAMED
    return ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def _open_lifeline() -> Iterator[int]:
    """Yield a descriptor that reads end-of-file once this process is gone."""
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)


def _check_platform() -> None:
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        raise PlatformError(
            "SIGCHLD is ignored in this process, so the kernel throws away how a child "
            "ended; call signal.signal(signal.SIGCHLD, signal.SIG_DFL) first"
        )


def _base() -> str | None:
    """Return what relative paths start from, for good; None: it was removed."""
    try:
        return working_directory()
    except FileNotFoundError:
        return None
