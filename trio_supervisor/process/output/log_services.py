"""Send output of children to journald or syslog."""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

from attrs import define, field

from trio_supervisor.policy.log_target import LogTarget, parse_log_target
from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.output.journal import journal_notice, render_journal
from trio_supervisor.process.output.log_socket import LogSocket
from trio_supervisor.process.output.pump import Sink
from trio_supervisor.process.output.syslog import syslog_notice, syslog_renderer

logger = logging.getLogger(__name__)

_QUEUE_SIZE: Final = 1024 * 1024


@define(eq=False)
class _Used:
    sink: Sink
    users: set[str] = field(factory=set)


@define(eq=False)
class LogServices:
    """The log services in use. Children that use the same one share a connection."""

    _used: dict[LogTarget, _Used] = field(factory=dict, init=False)

    @property
    def destinations(self) -> list[Destination]:
        """The destinations of all services."""
        return [used.sink.destination for used in self._used.values()]

    def open(self, text: str, user: str) -> Sink:
        """Return the sink for the target *text*, which is kept open for *user*.

        The service need not listen yet: that is tried again while there are lines.

        Args:
            text: See `parse_log_target`.
        """
        target = parse_log_target(text)
        if (used := self._used.get(target)) is None:
            used = self._used[target] = _Used(_sink_of(target))
        used.users.add(user)
        return used.sink

    def release(self, user: str) -> None:
        """Close what is open for *user* only, once its lines are sent."""
        for target, used in list(self._used.items()):
            used.users.discard(user)
            if not used.users:
                self._used.pop(target).sink.destination.close()

    def close(self) -> None:
        """Close all connections, each once its queue is sent."""
        for used in self._used.values():
            used.sink.destination.close()
        self._used.clear()


def _sink_of(target: LogTarget) -> Sink:
    device = LogSocket(target)
    is_local = target.transport == "unix"
    is_journal = target.kind == "journald"
    destination = Destination(
        device.descriptor,
        journal_notice if is_journal else syslog_notice(is_local=is_local),
        limit=_QUEUE_SIZE,
        is_owner=True,
        on_problem=partial(_log_problem, target),
        device=device,
    )
    render = render_journal if is_journal else syslog_renderer(is_local=is_local)
    return Sink(destination, render)


def _log_problem(target: LogTarget, problem: OSError | None) -> None:
    if problem is None:
        logger.warning("writing to %s again", target)
    else:
        logger.error(
            "cannot write to %s: %s; retrying every second, keeping the last 1 MiB",
            target,
            problem.strerror or problem,
        )
