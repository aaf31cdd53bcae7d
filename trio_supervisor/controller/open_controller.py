"""Open a controller, with all that it needs from its first child to its last."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from functools import partial
from typing import Final

import trio
from attrs import frozen
from trio.lowlevel import enable_ki_protection

from trio_supervisor.application import Application
from trio_supervisor.controller.calls import answer
from trio_supervisor.controller.capacity import check_capacity
from trio_supervisor.controller.controller import Controller
from trio_supervisor.controller.core import ControllerCore, OnEvent
from trio_supervisor.controller.events import log_event
from trio_supervisor.controller.file_keeper import keep_files
from trio_supervisor.controller.fleet.make_generation import GenerationFactory
from trio_supervisor.controller.launch.context import LaunchContext
from trio_supervisor.controller.launch.factory import sources_of
from trio_supervisor.controller.launch.preflight import check_startable
from trio_supervisor.controller.launch.socket_keys import socket_keys
from trio_supervisor.controller.post_mortem.store import PostMortemStore
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


@enable_ki_protection
def open_controller(
    application: Application,
    *,
    socket_path: str | None = None,
    source: str | None = None,
    on_event: OnEvent = log_event,
    log_format: str = TEXT,
    output: Form | None = None,
    state_directory: str | None = None,
    import_timeout: float | None = IMPORT_TIMEOUT,
    owns_process: bool = False,
) -> AbstractAsyncContextManager[Controller]:
    """Run *application* for the length of the block.

    The block is entered at once; `Controller.wait_ready` waits for the workers. Leaving
    or cancelling the block stops all workers, dependents first, under a shield. That
    takes at most the sum of ``stop_timeout`` along the longest chain of dependencies;
    no process, file or descriptor is left. Signal handlers are not changed, so it works
    in any thread and in guest mode. Example::

        async with open_controller(Application(services=[Service("web", serve)])) as c:
            with trio.fail_after(60):
                await c.wait_ready()
            await trio.sleep_forever()

    Args:
        application: What to run.
        socket_path: Path of the supervisor's socket. None: ``TRIO_SUPERVISOR_SOCKET``
            from the environment, or ``supervisor.ipc`` in the current directory.
        source: The target, such as ``service.py:application``, that *application* comes
            from. Without it, functions and monitors are pickled for the children and
            have to be importable.
        on_event: Called with each event (see `trio_supervisor.events`) in the
            controller's task. The default logs it.
        log_format: Log format of the supervisor process, ``"text"`` or ``"json"``.
        output: Format in which the output of workers is passed on: ``"text"``, with the
            worker's name before each line, or ``"json"``. None: workers write directly
            where this program writes, and ``logs`` has nothing to show.
        state_directory: Directory for post-mortems of workers that crashed, the newest
            fifty; created when the first one is written. None: none is kept.
        import_timeout: Time limit for the import of *source* in a reload [s]. None: no
            limit.
        owns_process: Whether no other code in this process waits for children. The
            controller then reaps every orphan that the process inherits.

    Raises:
        SpecError: something cannot be pickled, or a service needs what does not exist:
            a program, a directory, a file that can be written.
        SocketPathError: the socket cannot be created at *socket_path*.
        AlreadyServingError: another controller serves at *socket_path*.
        ListenError: a listening socket of a service cannot be bound.
        RestartLimitError: a worker reached its restart limit.
        SignificantServiceError: a significant service failed.
        PlatformError: the limit of file descriptors is too low for the number of
            workers; or this process loses exit statuses of children (SIGCHLD is
            ignored); or it is a child that imports a main module without ``if __name__
            == "__main__"``.
    """
    options = ControllerOptions(
        application=application,
        socket_path=socket_path,
        source=source,
        on_event=on_event,
        log_format=log_format,
        output=output,
        state_directory=state_directory,
        import_timeout=import_timeout,
        owns_process=owns_process,
    )
    return open_prepared(options, Prepared())


@frozen(kw_only=True)
class ControllerOptions:
    """Arguments of `open_controller`."""

    application: Application
    socket_path: str | None
    source: str | None
    on_event: OnEvent
    log_format: str
    output: Form | None
    state_directory: str | None
    import_timeout: float | None
    owns_process: bool


@frozen(kw_only=True)
class Prepared:
    """What ``serve`` has prepared before it opens a controller."""

    early: EarlyServer | None = None
    """A fork server that has imported the target."""
    log: Destination | None = None
    """Where the log goes: output of workers keeps its order with it."""
    adopted: AdoptedDescriptors | None = None
    """Listening sockets that a service manager has passed."""
    facts: Mapping[str, ServiceFacts] | None = None
    """What a reload compares, where the application was imported elsewhere."""
    files: Mapping[str, str] | None = None
    """A hash of each file of its code, by path: see `process.code.code_files`."""


@interrupt_safe
@asynccontextmanager
async def open_prepared(
    options: ControllerOptions, prepared: Prepared
) -> AsyncIterator[Controller]:
    """Open a controller as `open_controller` does, with what is there already."""
    application = options.application
    path = absolute(
        options.socket_path or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET
    )
    check_not_importing()
    check_socket_path(path)
    _check_platform()
    check_capacity(
        sum(service.count for service in application.services),
        is_captured=options.output is not None,
        may_raise=options.owns_process,
    )
    reference = None
    title = application.name
    if options.source is not None:
        reference = Reference(absolute_target(options.source), import_path())
        title = os.path.basename(split_target(options.source)[0])
    setup = _Setup(
        options=options,
        prepared=prepared,
        base=_base(),
        path=path,
        source=reference,
        title=title,
    )
    # Before any process starts: what cannot be pickled is the caller's mistake.
    sources_of(application, reference)
    await check_startable(
        application,
        [service.name for service in application.services if service.count],
        os.environ,
        socket_path=path,
        with_sockets=prepared.adopted is None or prepared.adopted.is_empty,
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
    controller.shutdown("the open_controller() block was left")


@frozen(kw_only=True)
class _Setup:
    """ControllerOptions of a controller, and what follows from them."""

    options: ControllerOptions
    prepared: Prepared
    base: str | None
    """Directory that relative paths start from; None: it was removed."""
    path: str
    source: Reference | None
    title: str


async def _own(setup: _Setup, background: Background[Controller]) -> None:
    """Own everything that a controller has, from before the first child to the last.

    Never cancelled: what cancels or interrupts the block asks for a shutdown, and that
    is waited for with all that it needs.
    """
    options, prepared = setup.options, setup.prepared
    marker = prepared.early.marker if prepared.early else str(uuid.uuid4())
    async with AsyncExitStack() as stack:
        stack.enter_context(keep_reserve())
        kept = stack.enter_context(keep_listener(setup.path))
        directory = _open_directory(stack)
        sockets = await stack.enter_async_context(
            open_sockets(socket_keys(options.application)[0], prepared.adopted)
        )
        context = LaunchContext(
            socket_path=setup.path,
            listener=kept.socket,
            directory=directory,
            base=setup.base,
            lifeline=stack.enter_context(_open_lifeline()),
            marker=marker,
            log_format=options.log_format,
            owns_process=options.owns_process,
            title=setup.title,
            hub=await stack.enter_async_context(
                open_output_hub(options.output or "text", stderr=prepared.log)
            ),
            is_captured=options.output is not None,
            admit_other_users=kept.admit_other_users,
        )
        guardian = await stack.enter_async_context(
            open_guardian(
                f"{MARKER_VARIABLE}={marker}",
                directory,
                unsupervised_environment(os.environ),
                context.guarded_outputs,
            )
        )
        stop_deadline = StopDeadline()
        can_fork = stack.enter_context(be_subreaper())
        # Behind the fork server, whose spare children have the marker, too.
        stack.push_async_callback(
            _end_strays, options.application, marker, stop_deadline
        )
        async with open_nursery() as nursery:
            generation_factory = GenerationFactory(
                context,
                sockets,
                setup.source,
                can_fork,
                nursery,
                options.import_timeout,
                setup.base if options.owns_process else None,
            )
            core = ControllerCore(
                setup.path,
                generation_factory,
                guardian,
                stop_deadline,
                options.on_event,
                answer,
                _store_in(options.state_directory),
                owns_process=options.owns_process,
                machine=LinuxMachine(),
            )
            core.begin(
                *await generation_factory.make(
                    1,
                    options.application,
                    prepared.facts,
                    core.make_child,
                    sockets,
                    prepared.early.adopt() if prepared.early is not None else None,
                    prepared.files,
                )
            )
            nursery.start_soon(core.reap)
            nursery.start_soon(core.load_control.clock.run)
            nursery.start_soon(keep_files, core, kept)
            background.started(Controller._create(core))
            if not background.is_ending:
                await core.run()
            nursery.cancel_scope.cancel()
    core.shutdown.raise_failure()


def _store_in(directory: str | None) -> PostMortemStore | None:
    return None if directory is None else PostMortemStore(directory)


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
        logger.warning(
            "stopped processes that workers had left behind: %s", _named(strays)
        )


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
