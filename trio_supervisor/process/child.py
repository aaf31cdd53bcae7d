"""A child process and its group: wait for it, signal it, know when nothing is left."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, suppress
from typing import Protocol

import trio
from attrs import define, field

from trio_supervisor.process.cleanup.remaining import (
    Forbidden,
    describe_remaining,
    forbidden_of,
)
from trio_supervisor.process.groups import (
    IS_LINUX,
    exists,
    group_exists,
    is_live_member,
    live_members,
    open_descriptor,
    open_members,
    signal_descriptor,
)
from trio_supervisor.process.kernel import reap_group
from trio_supervisor.tasks import open_nursery


class Process(Protocol):
    """What a controller uses of a process; ``testing.FakeProcess`` has it too."""

    @property
    def pid(self) -> int:
        """Its number, and that of its group."""
        ...

    @property
    def returncode(self) -> int | None:
        """0 is success, -n is "killed by signal n", None is "still running"."""
        ...

    @property
    def is_gone(self) -> bool:
        """Whether it ended and nothing is left of its group."""
        ...

    def signal(self, sig: int) -> None:
        """Send *sig* to all of its group; nothing, where nothing is left."""
        ...

    def signal_leader(self, sig: int) -> None:
        """Send *sig* to the process alone; nothing, where it has ended."""
        ...

    def forbidden(self) -> tuple[Forbidden, ...]:
        """Return what is left of its group, if none of it may be signalled."""
        ...

    def describe_remaining(self) -> str:
        """Return what is known of what is left of its group; may be empty."""
        ...

    async def wait(self) -> int:
        """Wait until the process itself ended; return its `returncode`.

        A cancellation leaves everything as it was.
        """
        ...

    async def wait_gone(self) -> None:
        """Wait until `is_gone`. A cancellation leaves everything as it was."""
        ...

    def close(self) -> None:
        """Give back what this object holds; the process is not touched."""
        ...


@define(eq=False)
class ChildProcess:
    """A child of this process that leads a group of its own.

    Its end is seen through a pidfd (Linux), or by asking every now and then. Only
    `wait` reaps it, and its number is used for signals only as long as it is not
    reaped. One task at a time may wait. Where no descriptor is left for all that, it is
    asked every now and then until there is one.
    """

    pid: int
    returncode: int | None = field(default=None, init=False)
    _pidfd: int | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pidfd = open_descriptor(self.pid) if IS_LINUX else None

    @property
    def is_gone(self) -> bool:
        """Whether it ended and nothing but zombies is left of its group."""
        if self.returncode is None:
            return False
        if not group_exists(self.pid):
            return True
        if not IS_LINUX:
            return False
        with suppress(OSError), ExitStack() as stack:
            return not self._open_rest(stack)
        return False  # unknown, for lack of descriptors

    def signal(self, sig: int) -> None:
        """Send *sig* to all of the group."""
        if self.returncode is None:  # not reaped: the number is still its own
            try:
                os.killpg(self.pid, sig)
            except (ProcessLookupError, PermissionError):
                # macOS: not permitted where only zombies are left.
                return
        elif IS_LINUX:
            # Without a descriptor its number may be another one's: the caller, who
            # wants it gone, tries again.
            with suppress(OSError), ExitStack() as stack:
                for descriptor in self._open_rest(stack):
                    signal_descriptor(descriptor, sig)
        elif group_exists(self.pid):
            os.killpg(self.pid, sig)

    def signal_leader(self, sig: int) -> None:
        """Send *sig* to the process alone."""
        if self.returncode is None:  # not reaped: the number is still its own
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, sig)

    def forbidden(self) -> tuple[Forbidden, ...]:
        """Return what is left of its group, if none of it may be signalled."""
        return forbidden_of(live_members(self.pid))

    def describe_remaining(self) -> str:
        """Return what is known of what is left of its group; may be empty."""
        return describe_remaining(live_members(self.pid))

    async def wait(self) -> int:
        """Wait until the process itself ended, and reap it."""
        while self.returncode is None:
            if self._pidfd is None and IS_LINUX:
                self._pidfd = open_descriptor(self.pid)
            if self._pidfd is not None:
                await trio.lowlevel.wait_readable(self._pidfd)
            self._reap()
            if self.returncode is None:  # no pidfds here, or not ours to reap yet
                await trio.sleep(0.02 if self._pidfd is None else 0.001)
        return self.returncode

    async def wait_gone(self) -> None:
        """Wait until it ended and nothing is left of its group."""
        await self.wait()
        pause = 0.001
        while group_exists(self.pid):
            with ExitStack() as stack:
                rest = self._look_for_rest(stack)
                if rest is None:
                    await trio.sleep(pause)
                    pause = min(pause * 2, 0.05)
                    continue
                if not rest:
                    return
                async with open_nursery() as nursery:
                    for descriptor in rest:
                        nursery.start_soon(trio.lowlevel.wait_readable, descriptor)

    def close(self) -> None:
        """Close the pidfd, and reap what is left of the group.

        Those of the group whose parents have ended became children of this process,
        where it is a subreaper: nobody else waits for them.
        """
        if self.returncode is not None:
            reap_group(self.pid)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _look_for_rest(self, stack: ExitStack) -> list[int] | None:
        """Return what is left of the group; None: there is no way to know now."""
        if IS_LINUX:
            with suppress(OSError):
                return self._open_rest(stack)
        return None

    def _open_rest(self, stack: ExitStack) -> list[int]:
        descriptors = open_members(is_live_member(self.pid))
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        return descriptors

    def _reap(self) -> None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            # A forked one is ours once the process that forked it has ended, too.
            if not IS_LINUX or not exists(self.pid):
                # Somebody else in this program reaped it: its status is lost.
                self.returncode = 255
        else:
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)


def describe_exit(returncode: int | None) -> str:
    """Return how a process exited: ``exit code 3``, ``killed by SIGKILL``."""
    if returncode is None:
        return "not started"
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"
