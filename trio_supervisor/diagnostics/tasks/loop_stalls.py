"""Stalls of the main loop: which task kept it from coming round, and where.

Watched all the time, from another thread, which looks a few times a second. A loop that
waits for events is left alone. One that does not is asked for a sign, which it gives
when it next comes round; where none comes in time, there is a stack of the reason.
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
"""What is called a stall [s]."""
INTERVAL: Final = 0.125
"""Between two looks [s]."""
_WAITS_IN: Final = ("selectors.py", "_io_epoll.py", "_io_kqueue.py", "_io_windows.py")
"""Files in which a loop waits for events."""
_KEPT: Final = 50
_DEEPEST: Final = 60


@define(eq=False)
class _Question:
    """Asks the loop for a sign. The loop's thread writes, the watching one reads."""

    asked: float
    """[s]"""
    answered: float | None = None
    """[s]"""

    def answer(self) -> None:
        """Give the sign."""
        self.answered = time.monotonic()


@define(eq=False)
class StallWatch:
    """Watches one main loop.

    Call `look` every *interval* seconds: a stall that is longer than both together is
    found for sure, and shorter ones by chance.

    Args:
        main: The loop; one without a loop is never stalled.
        threshold: What is called a stall [s].
        interval: Between two looks [s].
    """

    _main: MainLoop
    _threshold: float = THRESHOLD
    _interval: float = INTERVAL
    _question: _Question | None = field(default=None, init=False)
    _present: Stall | None = field(default=None, init=False)
    """The stall that lasts, once there is a stack of it."""
    _stalls: deque[Stall] = field(factory=lambda: deque(maxlen=_KEPT), init=False)
    _count: int = field(default=0, init=False)
    _longest: float = field(default=0.0, init=False)
    _since: float = field(factory=time.monotonic, init=False)
    _looked: float = field(factory=time.monotonic, init=False)
    _worked: float = field(factory=time.thread_time, init=False)

    def look(self) -> None:
        """See whether the loop is stalled at the moment, and by what."""
        now, worked = time.monotonic(), time.thread_time()
        missed = now - self._looked - self._interval
        # Not when it was the watching thread that had so much to do.
        is_held = missed >= self._threshold and worked - self._worked < missed / 2
        self._looked, self._worked = now, worked
        frame = self._main.frame() if self._main.soon is not None else None
        if frame is None:
            return
        question = self._question
        if question is not None and question.answered is not None:
            self._end(question)
            question = None
        is_waiting = frame.f_code.co_filename.endswith(_WAITS_IN)
        if question is not None:
            lasts = now - question.asked
            if is_held or (self._present is None and lasts >= self._threshold):
                self._present = self._stall(lasts, is_held=is_held)
        elif not is_waiting:
            # The first to run after C code that let nobody sees the main thread where
            # it was: before it asks, which lets that go on.
            stall = self._stall(missed, is_held=True) if is_held else None
            if self._ask(now):
                self._present = stall

    def report(self) -> StallReport:
        """Return the stalls so far, with one that still lasts."""
        stalls, count, longest = list(self._stalls), self._count, self._longest
        if self._present is not None:
            present = self._lasting(self._present, self._question)
            stalls.append(present)
            count, longest = count + 1, max(longest, present.duration)
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

    def _ask(self, now: float) -> bool:
        """Ask for a sign; say whether there is a loop to ask."""
        assert self._main.soon is not None
        question = _Question(now)
        with suppress(RuntimeError):  # it has ended
            self._main.soon(question.answer)
            self._question = question
        return self._question is not None

    def _end(self, question: _Question) -> None:
        """The loop has come round."""
        stall, self._present, self._question = self._present, None, None
        assert question.answered is not None
        lasts = question.answered - question.asked
        if stall is None and lasts >= self._threshold:
            stall = self._stall(lasts, has_stack=False)
        if stall is not None:
            stall = evolve(self._lasting(stall, question), is_over=True)
            self._stalls.append(stall)
            self._count += 1
            self._longest = max(self._longest, stall.duration)

    def _lasting(self, stall: Stall, question: _Question | None) -> Stall:
        if question is None:
            return stall
        lasts = (question.answered or time.monotonic()) - question.asked
        return evolve(
            stall,
            duration=max(stall.duration, lasts),
            is_over=question.answered is not None,
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
        return f"the main loop never stalled for {threshold:.3g} s"
    lines = [f"the main loop stalled {count} times for {threshold:.3g} s or more"]
    if count > len(stalls):
        lines[0] += f"; the latest {len(stalls)} of them:"
    for stall in stalls:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stall.at))
        lasts = "" if stall.is_over else ", still"
        task = f" in {stall.task}" if stall.task else ""
        lines.append(f"{when}  at least {stall.duration:.3g} s{task}{lasts}")
        if stall.is_interpreter_held:
            lines.append("    no other thread could run: C code held the interpreter,")
            lines.append("    or the process was stopped")
        for frame in stall.frames:
            place = f"{short_path(frame.file)}:{frame.line} in {frame.function}"
            lines.append(f"    {place}")
        if not stall.frames:
            lines.append("    it was over before it could be looked at")
    return "\n".join(lines)
