"""Reap the orphans that a subreaper inherits, but no other children."""

from __future__ import annotations

import os
from collections.abc import Container
from contextlib import suppress
from typing import Final

from attrs import define, field

from trio_supervisor.process.groups import read_stat
from trio_supervisor.process.kernel import child_pids

# Groups of exited workers are remembered, since an orphan may outlive its worker.
_MAX_GROUPS: Final = 10_000


@define(eq=False)
class Orphans:
    """Zombies that became children of this process when their parents exited.

    A program that embeds a controller has its own children, and waits for their exit
    status. So only zombies in a group of the controller are reaped, and only if they
    were zombies at the previous call already.

    Args:
        is_alone: Whether no other code in this process waits for children: then all
            zombies that the controller does not wait for are reaped.
    """

    _is_alone: bool = False
    _groups: dict[int, None] = field(factory=dict, init=False)
    _suspects: set[int] = field(factory=set, init=False)

    def watch(self, group: int) -> None:
        """Reap zombies of *group* from now on."""
        self._groups[group] = None
        if len(self._groups) > _MAX_GROUPS:
            del self._groups[next(iter(self._groups))]

    def reap(self, owned: Container[int], preforked: set[int]) -> None:
        """Reap the children that were zombies at the last call already.

        Args:
            owned: Processes that other code waits for.
            preforked: Preforked children, which are not in a watched group.
        """
        suspects = set()
        for pid in child_pids():
            if pid in owned or (stat := read_stat(pid)) is None:
                continue
            is_ours = self._is_alone or stat.group in self._groups or pid in preforked
            if stat.state == "Z" and not stat.is_alive and is_ours:
                suspects.add(pid)
        for pid in suspects & self._suspects:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            preforked.discard(pid)
        self._suspects = suspects - self._suspects
