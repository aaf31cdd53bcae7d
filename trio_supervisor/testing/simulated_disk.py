"""Stand for the disk on which a controller keeps its files; it may be full."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.controller.due_times import DUE_TIMES, DueTimesFile
from trio_supervisor.controller.post_mortem.store import PostMortemStore, surplus

STATE: Final = "/simulated"
"""Directory of the controller's files."""


@define(eq=False)
class SimulatedDisk:
    """Files in memory, which outlive nothing."""

    _fillings: int = field(default=0, init=False)
    files: dict[str, str] = field(factory=dict, init=False)
    """Text by path."""
    refused: int = field(default=0, init=False)
    """How many writes failed."""

    @property
    def is_full(self) -> bool:
        """Whether writes fail."""
        return self._fillings > 0

    def fill(self) -> None:
        """Leave no room, until `free` is called as often."""
        self._fillings += 1

    def free(self) -> None:
        """Take back one `fill`."""
        self._fillings -= 1

    def write(self, path: str, text: str) -> None:
        """Write a file.

        Raises:
            OSError: ENOSPC, the disk is full.
        """
        if self.is_full:
            self.refused += 1
            raise OSError(errno.ENOSPC, "no space left on device (in this simulation)")
        self.files[path] = text


@define(eq=False)
class SimulatedDueTimes(DueTimesFile):
    """The moments of the next runs, on a simulated disk."""

    _disk: SimulatedDisk = field(kw_only=True)

    @classmethod
    def on(cls, disk: SimulatedDisk) -> SimulatedDueTimes:
        """Return the file on *disk*."""
        return cls(f"{STATE}/{DUE_TIMES}", disk=disk)

    async def _read(self, path: str) -> dict[str, float]:
        await trio.lowlevel.checkpoint()
        found: dict[str, float] = json.loads(self._disk.files.get(path, "{}"))
        return found

    async def _write(self, path: str, text: str) -> None:
        await trio.lowlevel.checkpoint()
        self._disk.write(path, text)


@define(eq=False)
class SimulatedPostMortems(PostMortemStore):
    """Post-mortems on a simulated disk."""

    _disk: SimulatedDisk = field(kw_only=True)

    @classmethod
    def on(cls, disk: SimulatedDisk, wall: Callable[[], float]) -> SimulatedPostMortems:
        """Return the directory on *disk*, of a host with the clock *wall*."""
        return cls(f"{STATE}/post-mortems", wall, disk=disk)

    async def _write(self, path: str, text: str, superseded: str | None) -> None:
        await trio.lowlevel.checkpoint()
        self._disk.write(path, text)
        if superseded is not None:
            self._disk.files.pop(superseded, None)
        names = [os.path.basename(path) for path in self._disk.files]
        for name in surplus(names):
            del self._disk.files[f"{self.directory}/{name}"]
