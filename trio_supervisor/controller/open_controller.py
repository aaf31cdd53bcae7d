"""Open a controller, with all that it needs from its first child to its last."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
)
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import enable_ki_protection

from trio_supervisor.application import Application
from trio_supervisor.controller.capacity import check_capacity
from trio_supervisor.controller.controller import Controller
from trio_supervisor.controller.core import OnEvent
from trio_supervisor.controller.events import log_event
from trio_supervisor.controller.launch.factory import sources_of
from trio_supervisor.controller.launch.preflight import check_startable
from trio_supervisor.controller.ownership import (
    ControllerOptions,
    Prepared,
    Setup,
    own,
)
from trio_supervisor.errors import PlatformError
from trio_supervisor.link.listener import check_socket_path
from trio_supervisor.process.imports.declaration_wait import IMPORT_TIMEOUT
from trio_supervisor.process.logs import TEXT
from trio_supervisor.process.output.rendering import Form
from trio_supervisor.process.spawn.boot import check_not_importing
from trio_supervisor.process.spawn.code_source import (
    Reference,
    absolute_target,
    split_target,
)
from trio_supervisor.process.spawn.environment import (
    DEFAULT_SOCKET,
    SOCKET_VARIABLE,
)
from trio_supervisor.process.spawn.working_directory import (
    absolute,
    import_path,
    working_directory,
)
from trio_supervisor.tasks import Background, combined, interrupt_safe

if TYPE_CHECKING:  # imported only where it is used
    from trio_supervisor.controller.telemetry.settings import TelemetrySettings

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
    otlp: str | None = None,
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
        otlp: Where to export metrics and traces by OpenTelemetry, such as
            ``http://localhost:4318``, or ``"env"``: what ``OTEL_EXPORTER_OTLP_…`` in
            the environment say. Needs ``trio_supervisor[otel]``. None: nothing.

    Raises:
        SpecError: something cannot be pickled, or a service needs what does not exist:
            a program, a directory, a file that can be written; or *otlp*, or a variable
            ``OTEL_…``, is invalid.
        SocketPathError: the socket cannot be created at *socket_path*.
        AlreadyServingError: another controller serves at *socket_path*.
        ListenError: a listening socket of a service cannot be bound.
        RestartLimitError: a worker reached its restart limit.
        SignificantServiceError: a significant service failed.
        PlatformError: the limit of file descriptors is too low for the number of
            workers; or this process loses exit statuses of children (SIGCHLD is
            ignored); or it is a child that imports a main module without ``if __name__
            == "__main__"``; or *otlp* needs OpenTelemetry, which is not installed.
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
        otlp=otlp,
    )
    return open_prepared(options, Prepared())


@interrupt_safe
@asynccontextmanager
async def open_prepared(
    options: ControllerOptions, prepared: Prepared
) -> AsyncIterator[Controller]:
    """Open a controller as `open_controller` does, with what is there already."""
    setup = await _check(options, prepared)
    error: BaseException | None = None
    block = trio.CancelScope()
    background: Background[Controller] = Background(
        partial(own, setup), _leave, Controller.hurry, block.cancel
    )
    try:
        with block:
            async with background:
                yield await background.wait_started()
    except BaseException as exc:
        error = exc
    if (error := combined(error, background.error)) is not None:
        raise error


async def _check(options: ControllerOptions, prepared: Prepared) -> Setup:
    """Check all that can be checked before any process starts."""
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
    telemetry = _telemetry(options)
    reference = None
    title = application.name
    if options.source is not None:
        reference = Reference(absolute_target(options.source), import_path())
        title = os.path.basename(split_target(options.source)[0])
    setup = Setup(
        options=options,
        prepared=prepared,
        base=_base(),
        path=path,
        source=reference,
        title=title,
        telemetry=telemetry,
    )
    # What cannot be pickled is the caller's mistake.
    sources_of(application, reference)
    await check_startable(
        application,
        [service.name for service in application.services if service.count],
        os.environ,
        socket_path=path,
        with_sockets=prepared.adopted is None or prepared.adopted.is_empty,
    )
    return setup


def _telemetry(options: ControllerOptions) -> TelemetrySettings | None:
    if options.otlp is None:
        return None
    from trio_supervisor.controller.telemetry.settings import TelemetrySettings

    return TelemetrySettings.read(options.otlp, os.environ)


def _leave(controller: Controller) -> None:
    controller.shutdown("the open_controller() block was left")


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
