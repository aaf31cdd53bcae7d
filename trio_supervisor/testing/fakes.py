"""A fake process, for tests of supervision in virtual time."""

from __future__ import annotations

import math
import signal
from collections.abc import Collection

import trio
from attrs import define, field

from trio_supervisor.process.cleanup.remaining import Forbidden
from trio_supervisor.process.notify.sd_notify import Notification, parse_fields

# Signals that a process without handler ignores.
_HARMLESS = frozenset({signal.SIGCONT, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH})


@define(eq=False, kw_only=True)
class FakeProcess:
    """A fake `process.child.Process`, optionally with a grandchild in its group.

    It exits when it gets a signal or `exit` is called, and can ignore signals. As with
    a real process, `returncode` is known after `wait`.

    Verified: tests/process/test_child.py runs the same tests for this class and for
    `ChildProcess`.
    """

    pid: int = 1
    ignores: Collection[int] = ()
    """Signals that it ignores. With SIGKILL: in uninterruptible sleep until `exit`."""
    grandchild_ignores: Collection[int] | None = None
    """Signals that a grandchild in its group ignores; None: no grandchild."""
    stopping_takes: float = 0.0
    """Time from a signal that it does not ignore to its exit; 0 for SIGKILL [s]."""
    user: str | None = None
    """Another user, whose processes may not be signalled; None: this user."""
    signals: list[int] = field(factory=list, init=False)
    """Every signal sent to its group, in order."""
    returncode: int | None = field(default=None, init=False)
    is_closed: bool = field(default=False, init=False)
    _ends_at: float = field(default=math.inf, init=False)
    _exit_code: int = field(default=0, init=False)
    is_paused: bool = field(default=False, init=False)
    """Whether SIGSTOP has stopped it."""
    _held_back: list[int] = field(factory=list, init=False)
    """Signals that arrived while it was stopped."""
    _has_grandchild: bool = field(init=False)
    _changed: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )

    def __attrs_post_init__(self) -> None:
        self._has_grandchild = self.grandchild_ignores is not None

    @property
    def is_running(self) -> bool:
        """Whether the process itself has not exited yet."""
        return trio.current_time() < self._ends_at

    @property
    def is_gone(self) -> bool:
        """Whether it was reaped and its group is empty."""
        return self.returncode is not None and not self._has_grandchild

    def exit(self, returncode: int) -> None:
        """Exit, unless it has exited; the grandchild stays."""
        self._end(returncode, trio.current_time())

    def says(self, *lines: str) -> Notification:
        """Return the notification that it sends with *lines* such as ``"READY=1"``."""
        fields = parse_fields("\n".join(lines).encode())
        return Notification(process_id=self.pid, fields=fields)

    def signal(self, sig: int) -> None:
        """Send *sig* to its whole group."""
        self.signals.append(sig)
        if self.user is not None:
            return
        if sig == signal.SIGKILL:
            self._receive(sig)
        elif sig == signal.SIGSTOP:
            self.is_paused = True
        elif self.is_paused and sig != signal.SIGCONT:
            self._held_back.append(sig)
        else:
            self.is_paused = False
            held_back, self._held_back = self._held_back, []
            for each in [*held_back, sig]:
                self._receive(each)

    def signal_leader(self, sig: int) -> None:
        """Send *sig* to the process only, not to a grandchild."""
        grandchild, self._has_grandchild = self._has_grandchild, False
        ignored, self.grandchild_ignores = self.grandchild_ignores, None
        self.signal(sig)
        self._has_grandchild, self.grandchild_ignores = grandchild, ignored

    def forbidden(self) -> tuple[Forbidden, ...]:
        """Return itself, if it belongs to another user and has not exited."""
        if self.user is None or self.is_gone or not self.is_running:
            return ()
        return (Forbidden(self.pid, self.user),)

    def describe_remaining(self) -> str:
        """Return an empty text: a fake process has no kernel state."""
        return ""

    async def wait(self) -> int:
        """Wait until the process itself has exited; return its `returncode`."""
        await trio.lowlevel.checkpoint()
        while self.is_running:
            with trio.move_on_at(self._ends_at):
                await self._changed.park()
        self.returncode = self._exit_code
        return self.returncode

    async def wait_gone(self) -> None:
        """Wait until `is_gone`."""
        await self.wait()
        while self._has_grandchild:
            await self._changed.park()

    def close(self) -> None:
        """Note that it was closed."""
        self.is_closed = True

    def _receive(self, sig: int) -> None:
        if sig in _HARMLESS:
            return
        if self.grandchild_ignores is not None and sig not in self.grandchild_ignores:
            self._has_grandchild = False
        if sig not in self.ignores:
            takes = 0.0 if sig == signal.SIGKILL else self.stopping_takes
            self._end(-sig, trio.current_time() + takes)
        self._changed.unpark_all()

    def _end(self, returncode: int, moment: float) -> None:
        if self.is_running and moment < self._ends_at:
            self._ends_at, self._exit_code = moment, returncode
            self._changed.unpark_all()
