"""Explain a SIGKILL that the controller did not send."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from attrs import define, evolve, field, frozen

from trio_supervisor.policy.out_of_memory import OUTSIDE, CgroupMemory, kill_reason
from trio_supervisor.process.inspection.cgroup_memory import (
    ROOT,
    memory_cgroup,
    read_cgroup_memory,
)
from trio_supervisor.process.inspection.kernel_log import KERNEL_LOG, read_kernel_log
from trio_supervisor.process.threads import run_in_thread

# Difference of the kernel log's clock to the monotonic one, with some to spare [s].
_CLOCK_DIFFERENCE: Final = 2.0


@frozen
class _Start:
    """What was known when a process was started."""

    time: float
    group: Path | None
    memory: CgroupMemory | None
    claimed: int
    """Kills in its cgroup that had ended other workers by then."""
    at_exit: CgroupMemory | None = None
    """Counters when it had exited, of a cgroup that is removed; None: not read yet."""


@define(eq=False)
class Kills:
    """Explanation of kills: compares counters at the start and the exit of a process.

    Workers may share a cgroup and its counter, so each kill explains one exit only.
    """

    _root: Path = ROOT
    _kernel_log: Path = KERNEL_LOG
    _starts: dict[int, _Start] = field(factory=dict, init=False)
    """By process id."""
    _claimed: dict[Path, int] = field(factory=dict, init=False)
    """Kills that ended a worker, by cgroup."""

    def watch(self, process_id: int) -> None:
        """Note the counters of a process that was started."""
        group = memory_cgroup(process_id, self._root)
        memory = None if group is None else read_cgroup_memory(group)
        claimed = 0 if group is None else self._claimed.get(group, 0)
        self._starts[process_id] = _Start(time.monotonic(), group, memory, claimed)

    def note_exit(self, process_id: int) -> None:
        """Note the counters of a process that has exited: its cgroup is removed."""
        start = self._starts.get(process_id)
        if start is not None and start.group is not None:
            at_exit = read_cgroup_memory(start.group)
            self._starts[process_id] = evolve(start, at_exit=at_exit)

    def forget(self, process_id: int) -> None:
        """Forget a process that has exited."""
        self._starts.pop(process_id, None)

    async def explain(self, process_id: int) -> str:
        """Return who sent the SIGKILL that ended a process, as far as it is known."""
        start = self._starts.get(process_id)
        if start is None:
            return OUTSIDE
        group = start.group
        after = start.at_exit
        if after is None and group is not None:
            after = read_cgroup_memory(group)
        claimed = 0 if group is None else self._claimed.get(group, 0) - start.claimed
        reason = kill_reason(process_id, start.memory, after, claimed=claimed)
        if start.memory is None or after is None:  # else the counters are conclusive
            since = start.time - _CLOCK_DIFFERENCE
            messages = await run_in_thread(lambda: [*read_kernel_log(self._kernel_log)])
            reason = kill_reason(
                process_id, None, after, messages=messages, since=since
            )
        if reason != OUTSIDE and group is not None:
            self._claimed[group] = self._claimed.get(group, 0) + 1
        return reason
