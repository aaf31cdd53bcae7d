"""Run the supervisor process."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import trio

from trio_supervisor._version import __version__
from trio_supervisor.application.worker_policy import Policy
from trio_supervisor.errors import SupervisorError
from trio_supervisor.policy.supervisor_metrics import SUPERVISOR_METRICS
from trio_supervisor.process.cleanup.ancestry import own_marker
from trio_supervisor.process.logs import configure_logging
from trio_supervisor.process.notify.sd_notify import Notifier, open_notifier
from trio_supervisor.process.shared_numbers import use_numbers
from trio_supervisor.process.spawn.boot import SupervisorBoot, SupervisorCode
from trio_supervisor.process.spawn.environment import MARKER_VARIABLE
from trio_supervisor.process.spawn.preload import load_source
from trio_supervisor.supervisor.call_stats import CallStats
from trio_supervisor.supervisor.monitoring import Monitoring
from trio_supervisor.supervisor.policy_calls import PolicyCalls
from trio_supervisor.supervisor.registry import Registry
from trio_supervisor.supervisor.server import Server, serve_listener

logger = logging.getLogger(__name__)

# How long a controller that does not read may delay the end [s].
_LAST_REPORT: Final = 0.5


def run_supervisor(boot: SupervisorBoot, descriptors: Sequence[int]) -> None:
    """Run the supervisor until the controller stops it or exits.

    Args:
        descriptors: The lifeline, the listening socket, the stream to the controller,
            the memory of `SUPERVISOR_METRICS`, then those that *boot* names.
    """
    configure_logging(boot.log_format)
    _raise_limits()
    # The controller stops this process, not a Ctrl-C to the whole process group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trio.run(_main, boot, descriptors, _load_code(boot))


run_forked = run_supervisor
"""Entry point of a child of the fork server."""


def _raise_limits() -> None:
    """Raise the limit of open descriptors: each worker's connection takes one."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < most:
        with suppress(ValueError, OSError):  # macOS has another, lower limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _load_code(boot: SupervisorBoot) -> SupervisorCode:
    """Import the monitors and the policy; if that fails, run without them."""
    try:
        source = load_source(boot.source)
    except SupervisorError as exc:
        logger.error("cannot load the monitors; running without them: %s", exc)
    except Exception:
        logger.exception("cannot load the monitors; running without them")
    else:
        return SupervisorCode(source.monitors, source.policy)
    return SupervisorCode((), None)


async def _main(
    boot: SupervisorBoot, descriptors: Sequence[int], code: SupervisorCode
) -> None:
    lifeline, listening, controlling, counts, *channel = descriptors
    numbers = use_numbers(counts, SUPERVISOR_METRICS.slots)
    monitoring = Monitoring(code.monitors)
    policy = None
    if isinstance(code.policy, Policy):
        policy = PolicyCalls(code.policy)
        policy.decide_leaks_of(code.monitors)
    server = Server(
        registry=Registry(),
        monitoring=monitoring,
        process_id=os.getpid(),
        incarnation=boot.incarnation,
        controller_pid=boot.controller_pid,
        version=__version__,
        owns_process=boot.owns_process,
        marker=own_marker(MARKER_VARIABLE),
        policy=policy,
        stats=CallStats(numbers),
        sampling=boot.sampling,
    )
    listener = trio.SocketListener(
        trio.socket.from_stdlib_socket(socket.socket(fileno=listening))
    )
    control = trio.SocketStream(
        trio.socket.from_stdlib_socket(socket.socket(fileno=controlling))
    )
    with (
        open_notifier(boot.notify_path, channel) as notifier,
        trio.open_signal_receiver(signal.SIGTERM) as signals,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve_controller, server, control, nursery)
            nursery.start_soon(_watch_lifeline, lifeline, nursery)
            nursery.start_soon(monitoring.run)
            nursery.start_soon(server.watch.run)
            nursery.start_soon(server.spans.run)
            nursery.start_soon(serve_listener, server, listener)
            nursery.start_soon(_notify, notifier, boot.heartbeat)
            async for _ in signals:
                await server.finish_calls()
                with trio.move_on_after(_LAST_REPORT):
                    await server.finish()
                nursery.cancel_scope.cancel()


async def _serve_controller(
    server: Server, control: trio.abc.Stream, nursery: trio.Nursery
) -> None:
    await server.serve_controller(control)
    nursery.cancel_scope.cancel()  # the controller has exited


async def _watch_lifeline(lifeline: int, nursery: trio.Nursery) -> None:
    await trio.lowlevel.wait_readable(lifeline)
    nursery.cancel_scope.cancel()


async def _notify(notifier: Notifier, heartbeat: float | None) -> None:
    while not notifier.send("READY=1"):  # noqa: ASYNC110 (a full socket)
        await trio.sleep(0.01)
    while heartbeat is not None:
        notifier.beat_every(heartbeat)
        await trio.sleep(heartbeat)
