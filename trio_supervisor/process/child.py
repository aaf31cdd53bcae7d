"""Wait for a child process and its group, and send signals to them."""

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
    """The interface of a process; `testing.FakeProcess` implements it as well."""

    @property
    def pid(self) -> int:
        """Its pid, which is also the number of its group."""
        ...

    @property
    def returncode(self) -> int | None:
        """Exit code; -n: killed by signal n; None: still running."""
        ...

    @property
    def is_gone(self) -> bool:
        """Whether it has exited and its group is empty."""
        ...

    def signal(self, sig: int) -> None:
        """Send *sig* to its whole group, if there is any process left."""
        ...

    def signal_leader(self, sig: int) -> None:
        """Send *sig* to the process only, unless it has exited."""
        ...

    def forbidden(self) -> tuple[Forbidden, ...]:
        """Return the remaining processes of its group, if none may be signalled."""
        ...

    def describe_remaining(self) -> str:
        """Return a description of the remaining processes of its group, if any."""
        ...

    async def wait(self) -> int:
        """Wait until the process itself has exited; return its `returncode`.

        A cancellation has no effect on the process.
        """
        ...

    async def wait_gone(self) -> None:
        """Wait until `is_gone`. A cancellation has no effect on the process."""
        ...

    def close(self) -> None:
        """Release the resources of this object; the process is not affected."""
        ...


@define(eq=False)
class ChildProcess:
    """A child of this process that leads its own group.

    Its exit is noticed through a pidfd (Linux), or by polling if that is not supported
    or no descriptor is left. Only `wait` reaps it, and its number is used for signals
    only until it is reaped. One task at a time may wait.
    """

    pid: int
    returncode: int | None = field(default=None, init=False)
    _pidfd: int | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pidfd = open_descriptor(self.pid) if IS_LINUX else None

    @property
    def is_gone(self) -> bool:
        """Whether it has exited and only zombies are left of its group."""
        if self.returncode is None:
            return False
        if not group_exists(self.pid):
            return True
        if not IS_LINUX:
            return False
        with suppress(OSError), ExitStack() as stack:
            return not self._open_remaining(stack)
        return False  # unknown, for lack of descriptors

    def signal(self, sig: int) -> None:
        """Send *sig* to the whole group."""
        if self.returncode is None:  # not reaped, so its number cannot be reused
            try:
                os.killpg(self.pid, sig)
            except (ProcessLookupError, PermissionError):
                # macOS: PermissionError if only zombies are left.
                return
        elif IS_LINUX:
            # By pidfd, since a number may be reused. If none is left, the caller
            # retries.
            with suppress(OSError), ExitStack() as stack:
                for descriptor in self._open_remaining(stack):
                    signal_descriptor(descriptor, sig)
        elif group_exists(self.pid):
            os.killpg(self.pid, sig)

    def signal_leader(self, sig: int) -> None:
        """Send *sig* to the process only."""
        if self.returncode is None:  # not reaped, so its number cannot be reused
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, sig)

    def forbidden(self) -> tuple[Forbidden, ...]:
        """Return the remaining processes of its group, if none may be signalled."""
        return forbidden_of(live_members(self.pid))

    def describe_remaining(self) -> str:
        """Return a description of the remaining processes of its group, if any."""
        return describe_remaining(live_members(self.pid))

    async def wait(self) -> int:
        """Wait until the process itself has exited, and reap it."""
        while self.returncode is None:
            if self._pidfd is None and IS_LINUX:
                self._pidfd = open_descriptor(self.pid)
            if self._pidfd is not None:
                await trio.lowlevel.wait_readable(self._pidfd)
            self._reap()
            if self.returncode is None:  # no pidfd, or not a child of this process yet
                await trio.sleep(0.02 if self._pidfd is None else 0.001)
        return self.returncode

    async def wait_gone(self) -> None:
        """Wait until it has exited and its group is empty."""
        await self.wait()
        pause = 0.001
        while group_exists(self.pid):
            with ExitStack() as stack:
                remaining = self._try_open_remaining(stack)
                if remaining is None:
                    await trio.sleep(pause)
                    pause = min(pause * 2, 0.05)
                    continue
                if not remaining:
                    return
                async with open_nursery() as nursery:
                    for descriptor in remaining:
                        nursery.start_soon(trio.lowlevel.wait_readable, descriptor)

    def close(self) -> None:
        """Close the pidfd, and reap the zombies of the group.

        If this process is a subreaper, members of the group became its children when
        their parents exited, and no other code waits for them.
        """
        if self.returncode is not None:
            reap_group(self.pid)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _try_open_remaining(self, stack: ExitStack) -> list[int] | None:
        """Return pidfds of the remaining processes of the group; None: unknown now."""
        if IS_LINUX:
            with suppress(OSError):
                return self._open_remaining(stack)
        return None

    def _open_remaining(self, stack: ExitStack) -> list[int]:
        descriptors = open_members(is_live_member(self.pid))
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        return descriptors

    def _reap(self) -> None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            # A forked child becomes ours when the process that forked it has exited.
            if not IS_LINUX or not exists(self.pid):
                # Other code in this program reaped it, so its status is lost.
                self.returncode = 255
        else:
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)


def describe_exit(returncode: int | None, kill_reason: str = "") -> str:
    """Return how a process exited: ``exit code 3``, ``killed by SIGKILL``.

    Args:
        kill_reason: Who sent the signal, added in parentheses; empty: unknown.
    """
    how = _describe_exit(returncode)
    return f"{how} ({kill_reason})" if kill_reason else how


def _describe_exit(returncode: int | None) -> str:
    if returncode is None:
        return "not started"
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"
