"""Own everything that a controller has, from before its first child to the last."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from trio_supervisor.application import Application
from trio_supervisor.controller.autoscaling import Autoscaling
from trio_supervisor.controller.calls import answer
from trio_supervisor.controller.controller import Controller
from trio_supervisor.controller.core import ControllerCore, OnEvent
from trio_supervisor.controller.due_times import DUE_TIMES, DueTimesFile
from trio_supervisor.controller.event_history import open_event_history
from trio_supervisor.controller.event_hooks import EventHooks
from trio_supervisor.controller.file_keeper import keep_files
from trio_supervisor.controller.fleet.make_generation import GenerationFactory
from trio_supervisor.controller.launch.context import LaunchContext
from trio_supervisor.controller.launch.socket_keys import socket_keys
from trio_supervisor.controller.on_demand import OnDemand
from trio_supervisor.controller.post_mortem.store import PostMortemStore
from trio_supervisor.controller.scheduled_runs import ScheduledRuns
from trio_supervisor.errors import PlatformError
from trio_supervisor.link.listener import ControlSocket, keep_listener
from trio_supervisor.policy.reload import ServiceFacts
from trio_supervisor.process.cgroups.tree import CgroupTree, open_cgroups
from trio_supervisor.process.cleanup.guardian import Table, end_all
from trio_supervisor.process.cleanup.guardian_client import (
    GuardianClient,
    open_guardian,
)
from trio_supervisor.process.cleanup.stopping import StopDeadline
from trio_supervisor.process.inspection.machine_load import LinuxMachine
from trio_supervisor.process.kernel import be_subreaper
from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.output.hub import open_output_hub
from trio_supervisor.process.output.rendering import Form
from trio_supervisor.process.sockets.sockets import SocketSet, open_sockets
from trio_supervisor.process.sockets.systemd_sockets import AdoptedDescriptors
from trio_supervisor.process.spawn.code_source import Reference
from trio_supervisor.process.spawn.environment import (
    MARKER_VARIABLE,
    unsupervised_environment,
)
from trio_supervisor.process.spawn.fork_server_protocol import EarlyServer
from trio_supervisor.process.threads import keep_reserve, run_in_thread
from trio_supervisor.tasks import Background, ProtectedNursery, open_nursery

if TYPE_CHECKING:  # imported only where it is used
    from trio_supervisor.controller.telemetry.settings import TelemetrySettings
    from trio_supervisor.controller.telemetry.telemetry import Telemetry

logger = logging.getLogger(__name__)

_MOST_NAMED: Final = 10


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
    otlp: str | None = None


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
    import_seconds: float | None = None
    """How long the import of the application took [s]; None: unknown."""


@frozen(kw_only=True)
class Setup:
    """Options of a controller, and what follows from them."""

    options: ControllerOptions
    prepared: Prepared
    base: str | None
    """Directory that relative paths start from; None: it was removed."""
    path: str
    """Path of the supervisor's socket."""
    source: Reference | None
    title: str
    telemetry: TelemetrySettings | None
    """What to export by OTLP; None: nothing."""
    marker: str = field(init=False)
    """Value of an environment variable that all processes have."""

    @marker.default
    def _make_marker(self) -> str:
        early = self.prepared.early
        return str(uuid.uuid4()) if early is None else early.marker


@frozen(kw_only=True)
class _Surroundings:
    """What is open for as long as any child may run."""

    kept: ControlSocket
    sockets: SocketSet
    context: LaunchContext
    guardian: GuardianClient
    stop_deadline: StopDeadline
    can_fork: bool


async def own(setup: Setup, background: Background[Controller]) -> None:
    """Open all that a controller needs, and run it until it has shut down.

    Never cancelled: what cancels or interrupts the block requests a shutdown, and that
    is waited for with all that it needs.
    """
    async with AsyncExitStack() as stack:
        around = await _open_surroundings(setup, stack)
        kept_in = open_event_history(setup.options.state_directory)
        history = await stack.enter_async_context(kept_in)
        async with open_nursery() as nursery:
            core = await _make_core(setup, around, nursery)
            if history is not None:
                core.event_log.keep = history.add
            nursery.start_soon(core.reap)
            nursery.start_soon(core.load_control.clock.run)
            nursery.start_soon(keep_files, core, around.kept)
            hooks = EventHooks(core)
            nursery.start_soon(hooks.run)
            nursery.start_soon(ScheduledRuns(core, _due_times(setup)).run)
            nursery.start_soon(Autoscaling(core).run)
            nursery.start_soon(OnDemand(core).run)
            telemetry = _telemetry(setup, core)
            if telemetry is not None:
                nursery.start_soon(telemetry.run)
            background.started(Controller._create(core))
            if not background.is_ending:
                await core.run()
            await hooks.finish()
            if telemetry is not None:
                with around.stop_deadline.scope(math.inf):
                    await telemetry.finish()
            nursery.cancel_scope.cancel()
    core.shutdown.raise_failure()


async def _open_surroundings(setup: Setup, stack: AsyncExitStack) -> _Surroundings:
    options, marker = setup.options, setup.marker
    stack.enter_context(keep_reserve())
    cgroups = await stack.enter_async_context(open_cgroups())
    kept = stack.enter_context(keep_listener(setup.path))
    directory = _open_directory(stack)
    keys = socket_keys(options.application)[0]
    opening = open_sockets(keys, setup.prepared.adopted)
    sockets = await stack.enter_async_context(opening)
    context = await _open_context(setup, stack, kept, directory, cgroups)
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
    stack.push_async_callback(_end_strays, options.application, marker, stop_deadline)
    return _Surroundings(
        kept=kept,
        sockets=sockets,
        context=context,
        guardian=guardian,
        stop_deadline=stop_deadline,
        can_fork=can_fork,
    )


async def _open_context(
    setup: Setup,
    stack: AsyncExitStack,
    kept: ControlSocket,
    directory: str,
    cgroups: CgroupTree,
) -> LaunchContext:
    options = setup.options
    lifeline = stack.enter_context(_open_lifeline())
    hub = await stack.enter_async_context(
        open_output_hub(options.output or "text", stderr=setup.prepared.log)
    )
    return LaunchContext(
        socket_path=setup.path,
        listener=kept.socket,
        directory=directory,
        base=setup.base,
        lifeline=lifeline,
        cgroups=cgroups,
        marker=setup.marker,
        log_format=options.log_format,
        owns_process=options.owns_process,
        sampling=None if setup.telemetry is None else setup.telemetry.sampling,
        title=setup.title,
        hub=hub,
        is_captured=options.output is not None,
        admit_other_users=kept.admit_other_users,
    )


async def _make_core(
    setup: Setup, around: _Surroundings, nursery: ProtectedNursery
) -> ControllerCore:
    options, prepared = setup.options, setup.prepared
    generation_factory = GenerationFactory(
        around.context,
        around.sockets,
        setup.source,
        around.can_fork,
        nursery,
        options.import_timeout,
        setup.base if options.owns_process else None,
    )
    core = ControllerCore(
        setup.path,
        generation_factory,
        around.guardian,
        around.stop_deadline,
        options.on_event,
        answer,
        _store_in(options.state_directory),
        owns_process=options.owns_process,
        machine=LinuxMachine(),
    )
    made = await generation_factory.make(
        1,
        options.application,
        prepared.facts,
        core.make_child,
        around.sockets,
        prepared.early.adopt() if prepared.early is not None else None,
        prepared.files,
    )
    made[0].import_seconds = prepared.import_seconds
    core.begin(*made)
    return core


def _telemetry(setup: Setup, core: ControllerCore) -> Telemetry | None:
    if setup.telemetry is None:
        return None
    from trio_supervisor.controller.telemetry.telemetry import Telemetry

    telemetry = Telemetry(core, setup.telemetry)
    core.observer.on_event = telemetry.on_event
    core.observer.on_spans = telemetry.on_spans
    return telemetry


def _due_times(setup: Setup) -> DueTimesFile:
    directory = setup.options.state_directory
    return DueTimesFile(None if directory is None else f"{directory}/{DUE_TIMES}")


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
