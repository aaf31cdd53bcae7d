"""Check that there are enough file descriptors before workers are started."""

from __future__ import annotations

import logging
import os
import resource
from typing import Final

from trio_supervisor.errors import PlatformError
from trio_supervisor.policy.reload import ReloadPlan

logger = logging.getLogger(__name__)

# Beside those of each worker: its pidfd, its black box, its two notification sockets
# and two pipes here, its connection in the supervisor.
_DESCRIPTORS: Final = 64
_EACH: Final = 4
_EACH_CAPTURED: Final = 6
# For what is open for a moment: probes, files of /proc, clients.
_SPARE: Final = 16


def check_capacity(
    workers: int, *, is_captured: bool, may_raise: bool, more: int | None = None
) -> None:
    """Check that *workers* can run at the same time; raise the limit if needed.

    Args:
        is_captured: Whether what they print passes through this process.
        may_raise: Whether the limit of this process is ours to raise.
        more: How many of them are to be started now, beside what is open; None: none
            runs yet.

    Raises:
        PlatformError: too few descriptors are allowed; the message has the numbers.
    """
    each = _EACH_CAPTURED if is_captured else _EACH
    needed = _DESCRIPTORS + each * workers
    if more is not None:
        if not more:
            return
        needed = max(needed, _count_open() + each * more + _SPARE)
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if may_raise and limit < needed <= most:
        logger.info(
            "raising the file descriptor limit (RLIMIT_NOFILE) to %d", 2 * needed
        )
        limit = min(2 * needed, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    if needed > limit:
        raise PlatformError(
            f"too few file descriptors for {workers} workers: the controller and the "
            f"supervisor need {needed} each, RLIMIT_NOFILE is {limit}; raise it with "
            f"`ulimit -n {2 * needed}`, or LimitNOFILE= in a systemd unit"
        )


def added_by(plan: ReloadPlan) -> int:
    """Return the maximum number of extra workers during a reload."""
    return sum(
        service.count
        if service.is_replaced and service.overlap
        else max(0, service.count - service.old_count)
        for service in plan.services
    )


def _count_open() -> int:
    """Return how many descriptors this process has open; 0: unknown."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
