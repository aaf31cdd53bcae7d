"""Bury the orphans that a subreaper inherits, and nobody else's children."""

from __future__ import annotations

import os
from collections.abc import Container
from contextlib import suppress
from typing import Final

from attrs import define, field

from trio_supervisor.process.groups import read_stat
from trio_supervisor.process.kernel import child_pids

# An orphan may outlive the worker whose group it is in; not for ever, we trust.
_MAX_GROUPS: Final = 10_000


@define(eq=False)
class Orphans:
    """Zombies that came to this process when their parents ended.

    A program that embeds a controller has children of its own, whose exit status it
    will ask for. So only what is, or was, in a group of ours is buried there, and only
    when it has been a zombie from one call to the next.

    Args:
        is_alone: Whether nobody else in this process waits for children: then all are
            buried for whom nobody waits here.
    """

    _is_alone: bool = False
    _groups: dict[int, None] = field(factory=dict, init=False)
    _suspects: set[int] = field(factory=set, init=False)

    def watch(self, group: int) -> None:
        """Say that *group* is ours."""
        self._groups[group] = None
        if len(self._groups) > _MAX_GROUPS:
            del self._groups[next(iter(self._groups))]

    def reap(self, owned: Container[int], preforked: set[int]) -> None:
        """Bury those that were zombies at the last call already.

        Args:
            owned: Processes that somebody else here waits for.
            preforked: Processes of ours that are in no group of ours.
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
