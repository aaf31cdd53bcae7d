"""Restart workers that run out of file descriptors."""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal, TypeAlias, get_args

import psutil
import trio
from attrs import define, field

from trio_supervisor.errors import SpecError, SupervisorError
from trio_supervisor.supervisor.monitors.arguments import one_of, whole
from trio_supervisor.supervisor.monitors.base import Monitor, MonitoredWorker

logger = logging.getLogger(__name__)

OnLimit: TypeAlias = Literal["report", "restart"]

# Workers sampled in one turn of the event loop.
_AT_ONCE: Final = 50


@define(eq=False)
class _Counted:
    """A worker, and what is known of its descriptors."""

    worker: MonitoredWorker
    open: int | None = None
    limit: int | None = None
    most: int = 0
    at_first: int | None = None
    """How many were open in the first sample: a restart does not help below it."""
    samples_over_limit: int = 0
    """In a row."""
    has_warned: bool = field(default=False)


class DescriptorMonitor(Monitor):
    """Counts the open file descriptors of all workers; acts before a limit is reached.

    A worker at its limit cannot accept a connection or open a file. One that had as
    many descriptors in its first sample is left alone: a restart would not help.

    Args:
        interval: Time between two samples [s].
        share: Part of the worker's own limit (``RLIMIT_NOFILE``, soft) above which it
            acts.
        maximum: Number of descriptors above which it acts as well; None: no such limit.
        samples: Samples in a row above a limit before it acts.
        on_limit: ``restart`` restarts the worker gracefully, ``report`` only logs.

    Raises:
        SpecError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        *,
        interval: float = 10.0,
        share: float = 0.9,
        maximum: int | None = None,
        samples: int = 3,
        on_limit: OnLimit = "restart",
    ) -> None:
        super().__init__(interval=interval)
        if isinstance(share, bool) or not isinstance(share, int | float):
            raise SpecError("share", f"expected a number, got {share!r:.80}")
        if not 0 < share <= 1:
            raise SpecError("share", f"expected more than 0, up to 1, got {share}")
        if maximum is not None:
            whole("maximum", maximum, least=1)
        whole("samples", samples, least=1)
        one_of("on_limit", on_limit, get_args(OnLimit))
        self.share = float(share)
        self.maximum = maximum
        self.samples = samples
        self.on_limit = on_limit
        self._watched: dict[str, _Counted] = {}

    def register(self, worker: MonitoredWorker) -> None:
        """Sample *worker* from now on."""
        self._watched[worker.connection_id] = _Counted(worker)

    def remove(self, worker: MonitoredWorker) -> None:
        """Forget *worker*."""
        self._watched.pop(worker.connection_id, None)

    async def run_once(self) -> None:
        """Sample all workers that are ready; have at most one restarted."""
        for index, (key, watched) in enumerate(list(self._watched.items())):
            if index % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            if watched.worker.is_ready and key in self._watched:
                _sample(watched)
        for watched in list(self._watched.values()):
            if (reason := self._reason(watched)) and await self._act(watched, reason):
                return  # the others next time

    def status(self) -> Mapping[str, object]:
        """Return the last counts of each process id."""
        return {
            "processes": {
                str(each.worker.process_id): {
                    "name": each.worker.name,
                    "open": each.open,
                    "most": each.most,
                    "limit": each.limit,
                }
                for each in self._watched.values()
            }
        }

    def _reason(self, watched: _Counted) -> str:
        """Note whether *watched* is above a limit; return why to act, or nothing."""
        count, limit = watched.open, watched.limit
        reason = ""
        if count is not None and self.maximum is not None and count > self.maximum:
            reason = f"{count} descriptors open (maximum={self.maximum})"
        elif count is not None and limit is not None and count > limit * self.share:
            reason = f"{count} of {limit} descriptors open (share={self.share:g})"
        watched.samples_over_limit = watched.samples_over_limit + 1 if reason else 0
        return reason if watched.samples_over_limit >= self.samples else ""

    async def _act(self, watched: _Counted, reason: str) -> bool:
        """Report *reason*; return whether the worker was restarted."""
        worker, name = watched.worker, watched.worker.name
        is_grown = (watched.open or 0) > (watched.at_first or 0)
        if self.on_limit == "report" or not worker.is_managed or not is_grown:
            if not watched.has_warned:
                watched.has_warned = True
                more = "" if is_grown else "; it had as many from its start"
                logger.warning("%s: %s%s", name, reason, more)
            return False
        logger.warning("%s: %s; restarting", name, reason)
        try:
            await worker.restart(reason)
        except SupervisorError as exc:
            logger.error("%s: restart failed: %s", name, exc)
            return False
        return True


def _sample(watched: _Counted) -> None:
    found = count_descriptors(watched.worker.process_id)
    if found is None:
        return
    watched.open, watched.limit = found
    watched.most = max(watched.most, watched.open)
    if watched.at_first is None:
        watched.at_first = watched.open


def count_descriptors(process_id: int) -> tuple[int, int | None] | None:
    """Return the open descriptors of a process and its limit; None: not readable."""
    limit: int | None = None
    with suppress(OSError, AttributeError, ValueError):
        soft, _ = resource.prlimit(process_id, resource.RLIMIT_NOFILE)
        limit = None if soft == resource.RLIM_INFINITY else soft
    try:
        return len(os.listdir(f"/proc/{process_id}/fd")), limit
    except FileNotFoundError:
        pass  # it has exited, or there is no /proc
    except OSError:
        return None  # a process of another user
    try:
        return psutil.Process(process_id).num_fds(), limit
    except (psutil.Error, AttributeError):
        return None
