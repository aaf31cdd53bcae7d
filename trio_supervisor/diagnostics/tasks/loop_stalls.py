"""Detect stalls of the main event loop: which task blocked it, and where.

Another thread checks the loop a few times per second. A loop that waits for events is
left alone. A busy one gets a callback to run; if the callback has not run in time, the
loop is blocked, and its stack is recorded.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import Any, Final

from attrs import define, evolve, field

from trio_supervisor.diagnostics.stacks.frames import (
    as_frame,
    short_path,
    stack_of,
    trim,
)
from trio_supervisor.diagnostics.tasks.asyncio_tasks import running_asyncio_task
from trio_supervisor.diagnostics.tasks.main_loop import NO_LOOP, MainLoop
from trio_supervisor.diagnostics.tasks.trio_tasks import running_trio_task
from trio_supervisor.wire.reports import Frame, Stall, StallReport

THRESHOLD: Final = 0.25
"""Shortest stall that is reported [s]."""
INTERVAL: Final = 0.125
"""Time between two checks [s]."""
_WAITS_IN: Final = ("selectors.py", "_io_epoll.py", "_io_kqueue.py", "_io_windows.py")
"""Files in which an event loop waits for events."""
_KEPT: Final = 50
_DEEPEST: Final = 60


@define(eq=False)
class _Ping:
    """A callback for the loop to run. The loop's thread writes, the other one reads."""

    sent: float
    """[s]"""
    ran: float | None = None
    """[s]"""

    def run(self) -> None:
        """Note that the loop runs callbacks."""
        self.ran = time.monotonic()


@define(eq=False)
class StallWatch:
    """Watches one main loop.

    Call `look` every *interval* seconds: a stall longer than *threshold* plus
    *interval* is always found, a shorter one by chance.

    Args:
        main: The main thread; without an event loop it has no stalls.
        threshold: Shortest stall that is reported [s].
        interval: Time between two checks [s].
    """

    _main: MainLoop
    _threshold: float = THRESHOLD
    _interval: float = INTERVAL
    _ping: _Ping | None = field(default=None, init=False)
    _current: Stall | None = field(default=None, init=False)
    """The current stall, once its stack was recorded."""
    _stalls: deque[Stall] = field(factory=lambda: deque(maxlen=_KEPT), init=False)
    _count: int = field(default=0, init=False)
    _longest: float = field(default=0.0, init=False)
    _since: float = field(factory=time.monotonic, init=False)
    _looked: float = field(factory=time.monotonic, init=False)
    _worked: float = field(factory=time.thread_time, init=False)

    def look(self) -> None:
        """Check whether the loop is blocked now, and record its stack."""
        now, worked = time.monotonic(), time.thread_time()
        missed = now - self._looked - self._interval
        # Not if this thread itself was busy.
        is_held = missed >= self._threshold and worked - self._worked < missed / 2
        self._looked, self._worked = now, worked
        frame = self._main.frame() if self._main.soon is not None else None
        if frame is None:
            return
        ping = self._ping
        if ping is not None and ping.ran is not None:
            self._end(ping)
            ping = None
        is_waiting = frame.f_code.co_filename.endswith(_WAITS_IN)
        if ping is not None:
            lasts = now - ping.sent
            if is_held or (self._current is None and lasts >= self._threshold):
                self._current = self._stall(lasts, is_held=is_held)
        elif not is_waiting:
            # The first thread to run after C code released the GIL still sees the main
            # thread in it: record the stack before the ping, which may yield the GIL.
            stall = self._stall(missed, is_held=True) if is_held else None
            if self._send_ping(now):
                self._current = stall

    def report(self) -> StallReport:
        """Return the stalls so far, including the current one."""
        stalls, count, longest = list(self._stalls), self._count, self._longest
        if self._current is not None:
            current = self._lasting(self._current, self._ping)
            stalls.append(current)
            count, longest = count + 1, max(longest, current.duration)
        names = self._main.names if self._main.soon is not None else ()
        return StallReport(
            data=_format(stalls, count, self._threshold) if names else NO_LOOP,
            loop=names[0] if names else None,
            threshold=self._threshold,
            watched=time.monotonic() - self._since,
            count=count,
            longest=longest,
            stalls=tuple(stalls),
        )

    def _send_ping(self, now: float) -> bool:
        """Send a ping; return whether there is a loop to run it."""
        assert self._main.soon is not None
        ping = _Ping(now)
        with suppress(RuntimeError):  # it has ended
            self._main.soon(ping.run)
            self._ping = ping
        return self._ping is not None

    def _end(self, ping: _Ping) -> None:
        """Record the end of a stall: the loop has run the ping."""
        stall, self._current, self._ping = self._current, None, None
        assert ping.ran is not None
        lasts = ping.ran - ping.sent
        if stall is None and lasts >= self._threshold:
            stall = self._stall(lasts, has_stack=False)
        if stall is not None:
            stall = evolve(self._lasting(stall, ping), is_over=True)
            self._stalls.append(stall)
            self._count += 1
            self._longest = max(self._longest, stall.duration)

    def _lasting(self, stall: Stall, ping: _Ping | None) -> Stall:
        if ping is None:
            return stall
        lasts = (ping.ran or time.monotonic()) - ping.sent
        return evolve(
            stall,
            duration=max(stall.duration, lasts),
            is_over=ping.ran is not None,
        )

    def _stall(
        self, duration: float, *, has_stack: bool = True, is_held: bool = False
    ) -> Stall:
        frames: list[Frame] = []
        task = None
        if has_stack:
            positions = stack_of(self._main.frame())
            task = _task_name(self._main)
            frames = [as_frame(position) for position in trim(positions)[:_DEEPEST]]
        return Stall(
            at=time.time() - duration,
            duration=duration,
            is_over=False,
            task=task,
            frames=tuple(reversed(frames)),
            is_interpreter_held=is_held,
        )


def _task_name(main: MainLoop) -> str | None:
    if (task := running_trio_task(main)) is not None:
        return str(task.name)
    if (task := running_asyncio_task(main)) is not None:
        return _asyncio_name(task)
    return None


def _asyncio_name(task: Any) -> str:
    function = getattr(task.get_coro(), "__qualname__", "")
    return f"{task.get_name()} ({function})" if function else str(task.get_name())


def _format(stalls: list[Stall], count: int, threshold: float) -> str:
    if not count:
        return f"the event loop was never blocked for {threshold:.3g} s or longer"
    times = "once" if count == 1 else f"{count} times"
    lines = [f"the event loop was blocked {times} for {threshold:.3g} s or longer"]
    if count > len(stalls):
        lines[0] += f"; the latest {len(stalls)}:"
    for stall in stalls:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stall.at))
        lasts = "" if stall.is_over else ", still blocked"
        task = f" in {stall.task}" if stall.task else ""
        lines.append(f"{when}  at least {stall.duration:.3g} s{task}{lasts}")
        if stall.is_interpreter_held:
            lines.append("    C code held the GIL, or the process was stopped;")
            lines.append("    no other thread could run")
        for frame in stall.frames:
            place = f"{short_path(frame.file)}:{frame.line} in {frame.function}"
            lines.append(f"    {place}")
        if not stall.frames:
            lines.append("    it ended before its stack could be recorded")
    return "\n".join(lines)
