"""The cgroup of one worker: put a process in, end what is left there, remove it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from attrs import frozen

from trio_supervisor.process.cleanup.stopping import StopDeadline, StopPlan
from trio_supervisor.process.groups import (
    command_of,
    is_alive,
    open_descriptor,
    signal_descriptor,
)

# How often it is checked whether a cgroup is empty [s].
_LOOK: Final = 0.01
_LONGEST_LOOK: Final = 1.0


@frozen
class Leaf:
    """The cgroup of one worker."""

    path: Path

    def add(self, process_id: int) -> None:
        """Put a process in; its threads and later children are there, too.

        Raises:
            ProcessLookupError: it has exited.
            OSError: the kernel refuses it.
        """
        try:
            (self.path / "cgroup.procs").write_text(str(process_id))
        except FileNotFoundError:  # elsewhere that means that a process has exited
            raise OSError(errno.ENODEV, "its cgroup was removed") from None

    def processes(self) -> list[int]:
        """Return the processes in there; empty if it was removed."""
        return processes_in(self.path)

    @property
    def is_populated(self) -> bool:
        """Whether any process is in there that is not a zombie."""
        with suppress(OSError):
            return "populated 1" in (self.path / "cgroup.events").read_text()
        return False

    def kill(self) -> None:
        """Send SIGKILL to all processes in there, those of other users included."""
        with suppress(OSError):
            if (self.path / "cgroup.kill").exists():
                (self.path / "cgroup.kill").write_text("1")
                return
            for process_id in self.processes():  # before Linux 5.14
                self._signal(process_id, (signal.SIGKILL,))

    def remove(self) -> bool:
        """Remove it; return False if it has processes still."""
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    async def end_rest(
        self, plan: StopPlan, stop_deadline: StopDeadline
    ) -> dict[int, str]:
        """Stop all processes in there; return their program names, by pid.

        As `stop` does, it sends the stop signal first and SIGKILL later. Call it under
        a shield.
        """
        found = {pid: command_of(pid) for pid in self.processes() if is_alive(pid)}
        if not found:
            await trio.lowlevel.checkpoint()
            return {}
        with stop_deadline.scope(plan.timeout):
            for process_id in found:
                self._signal(process_id, (plan.signal, signal.SIGCONT))
            while self.is_populated:  # noqa: ASYNC110 (in a file of the kernel)
                await trio.sleep(_LOOK)
        pause = _LOOK
        while self.is_populated:
            self.kill()
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_LOOK)
        return found

    def _signal(self, process_id: int, signals: Sequence[int]) -> None:
        """Send *signals* to one of its processes, not to one that reuses its number."""
        if (descriptor := open_descriptor(process_id)) is None:
            return
        try:
            if process_id in self.processes():
                for each in signals:
                    signal_descriptor(descriptor, each)
        finally:
            os.close(descriptor)


def processes_in(directory: Path) -> list[int]:
    """Return the processes in the cgroup *directory*; empty if it was removed."""
    with suppress(OSError, ValueError):
        return [int(word) for word in (directory / "cgroup.procs").read_text().split()]
    return []
