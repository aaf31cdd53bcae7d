"""Decide whether the kernel killed a process for lack of memory. Pure.

Source: the kernel's cgroup-v2.rst (``memory.events``), cgroup-v1/memory.rst
(``memory.oom_control``) and the messages of mm/oom_kill.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from attrs import frozen

OUTSIDE: Final = "sent from outside"
"""The kernel does not tell a parent who sent the signal that killed its child."""

# "Memory cgroup out of memory: Killed process 4711 (python) total-vm:...", and before
# Linux 4.19 "Memory cgroup out of memory: Kill process 4711 (python) score 900 ...".
_KILLED: Final = re.compile(
    r"(?P<cgroup>Memory cgroup o|O)ut of memory(?: \([^)]*\))?: "
    r"Kill(?:ed)? process (?P<pid>\d+) "
)


@frozen(kw_only=True)
class CgroupMemory:
    """Memory counters of one cgroup at one moment."""

    kills: int
    """Processes of this cgroup that the kernel killed for lack of memory."""
    reached: tuple[tuple[int, int], ...] = ()
    """How often each limit [bytes] was reached, from this cgroup to the root."""

    @property
    def smallest_limit(self) -> int | None:
        """The limit that is reached first [bytes]; None: there is none."""
        return min((limit for limit, _ in self.reached), default=None)


@frozen(kw_only=True)
class KernelMessage:
    """A message of the kernel log."""

    time: float
    """Time since the machine booted [s]."""
    text: str


def kill_reason(
    process_id: int,
    before: CgroupMemory | None,
    after: CgroupMemory | None,
    *,
    claimed: int = 0,
    messages: Iterable[KernelMessage] = (),
    since: float = 0.0,
) -> str:
    """Return who sent the SIGKILL that ended a process, as far as it is known.

    Args:
        process_id: The killed process.
        before: The counters of its cgroup when it was started; None: unknown.
        after: The counters of that cgroup now; None: unknown.
        claimed: Kills since its start that ended other workers in that cgroup.
        messages: The kernel log; empty if it cannot be read.
        since: Start of the process: an older message means another process that had
            the same process id [s].
    """
    if (
        before is not None
        and after is not None
        and after.kills - before.kills > claimed
    ):
        return _text_of_limit(_reached_limit(before, after))
    for message in messages:
        found = _KILLED.search(message.text)
        if found is None or message.time < since or int(found["pid"]) != process_id:
            continue
        if found["cgroup"].startswith("O"):
            return _text_of_limit(None)
        limit = None if after is None else after.smallest_limit
        return _text_of_limit(limit, unknown="cgroup limit")
    return OUTSIDE


def _reached_limit(before: CgroupMemory, after: CgroupMemory) -> int | None:
    """Return the first limit that was reached [bytes]; None: the host was short."""
    # A limit may have been changed, or a cgroup moved: compare by position.
    past = [count for _, count in before.reached]
    for index, (limit, count) in enumerate(after.reached):
        if count > (past[index] if index < len(past) else 0):
            return limit
    return None


def _text_of_limit(limit: int | None, unknown: str = "host") -> str:
    if limit is None:
        return f"out of memory: {unknown}"
    size = f"{limit / 2**20:.1f}".removesuffix(".0")
    return f"out of memory: cgroup limit {size} MiB"
