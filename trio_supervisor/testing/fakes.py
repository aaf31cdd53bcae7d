"""A process for tests of what supervises processes. No real process, no real time."""

from __future__ import annotations

import math
import signal
from collections.abc import Collection

import trio
from attrs import define, field

from trio_supervisor.process.cleanup.remaining import Forbidden
from trio_supervisor.process.notify.sd_notify import Notification, parse_fields

# What a process does nothing about unless it has a handler for it.
_HARMLESS = frozenset({signal.SIGCONT, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH})


@define(eq=False, kw_only=True)
class FakeProcess:
    """A process, and perhaps a grandchild in its group, as a `process.child.Process`.

    It ends when it is signalled or told to `exit`, and can ignore signals. As with a
    real one, `returncode` is known once it was waited for.

    Verified: tests/process/test_child.py runs one suite over this class and
    over `ChildProcess`.
    """

    pid: int = 1
    ignores: Collection[int] = ()
    """Signals that it ignores. SIGKILL among them: stuck in the kernel until `exit`."""
    grandchild_ignores: Collection[int] | None = None
    """Signals that a grandchild in its group ignores; None: there is no grandchild."""
    stopping_takes: float = 0.0
    """Time from a signal that it does not ignore to its end; SIGKILL needs none [s]."""
    user: str | None = None
    """Another user, whose processes may not be signalled; None: our own."""
    signals: list[int] = field(factory=list, init=False)
    """Every signal sent to its group, in order."""
    returncode: int | None = field(default=None, init=False)
    is_closed: bool = field(default=False, init=False)
    _ends_at: float = field(default=math.inf, init=False)
    _exit_code: int = field(default=0, init=False)
    _is_paused: bool = field(default=False, init=False)
    _held_back: list[int] = field(factory=list, init=False)
    """Signals that came while it was paused."""
    _has_grandchild: bool = field(init=False)
    _changed: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._has_grandchild = self.grandchild_ignores is not None

    @property
    def is_running(self) -> bool:
        """Whether the process itself, reaped or not, has yet to end."""
        return trio.current_time() < self._ends_at

    @property
    def is_gone(self) -> bool:
        """Whether it was waited for and nothing is left of its group."""
        return self.returncode is not None and not self._has_grandchild

    def exit(self, returncode: int) -> None:
        """End it, unless it has ended; the grandchild stays."""
        self._end(returncode, trio.current_time())

    def says(self, *lines: str) -> Notification:
        """Return what is received when it sends *lines*, as ``"READY=1"``."""
        fields = parse_fields("\n".join(lines).encode())
        return Notification(process_id=self.pid, fields=fields)

    def signal(self, sig: int) -> None:
        """Send *sig* to all of its group."""
        self.signals.append(sig)
        if self.user is not None:
            return
        if sig == signal.SIGKILL:
            self._receive(sig)
        elif sig == signal.SIGSTOP:
            self._is_paused = True
        elif self._is_paused and sig != signal.SIGCONT:
            self._held_back.append(sig)
        else:
            self._is_paused = False
            held_back, self._held_back = self._held_back, []
            for each in [*held_back, sig]:
                self._receive(each)

    def signal_leader(self, sig: int) -> None:
        """Send *sig* to the process alone; a grandchild gets nothing."""
        grandchild, self._has_grandchild = self._has_grandchild, False
        ignored, self.grandchild_ignores = self.grandchild_ignores, None
        self.signal(sig)
        self._has_grandchild, self.grandchild_ignores = grandchild, ignored

    def forbidden(self) -> tuple[Forbidden, ...]:
        """Return itself, if it is another user's and has not ended."""
        if self.user is None or self.is_gone or not self.is_running:
            return ()
        return (Forbidden(self.pid, self.user),)

    def describe_remaining(self) -> str:
        """Return nothing: it has no state in a kernel."""
        return ""

    async def wait(self) -> int:
        """Wait until the process itself ended; return its `returncode`."""
        await trio.lowlevel.checkpoint()
        while self.is_running:
            with trio.move_on_at(self._ends_at):
                await self._changed.wait()
        self.returncode = self._exit_code
        return self.returncode

    async def wait_gone(self) -> None:
        """Wait until `is_gone`."""
        await self.wait()
        while self._has_grandchild:
            await self._changed.wait()

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
        self._tell()

    def _end(self, returncode: int, moment: float) -> None:
        if self.is_running and moment < self._ends_at:
            self._ends_at, self._exit_code = moment, returncode
            self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
