"""Test which running functions count as called after a moment."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from queue import Queue
from types import FrameType

from trio_supervisor.diagnostics.memory.running_frames import FrameMarks, is_unmarked
from trio_supervisor.diagnostics.stacks.frames import running_threads


class Caller:
    """A thread that calls `inner` again whenever it is told to."""

    def __init__(self) -> None:
        self._told = Queue[bool]()
        self._arrived = threading.Semaphore(0)
        self._thread = threading.Thread(target=self.outer, daemon=True)

    def outer(self) -> None:
        while self.inner():
            pass

    def inner(self) -> bool:
        self._arrived.release()
        return self._told.get()

    def call_again(self, again: bool = True) -> None:
        self._told.put(again)
        if again:
            assert self._arrived.acquire(timeout=60)

    def frame(self, name: str) -> FrameType:
        assert self._thread.ident is not None
        frame: FrameType | None = sys._current_frames()[self._thread.ident]
        while frame is not None and frame.f_code.co_name != name:
            frame = frame.f_back
        assert frame is not None
        return frame


@contextmanager
def calling() -> Iterator[Caller]:
    caller = Caller()
    caller._thread.start()
    assert caller._arrived.acquire(timeout=60)
    yield caller
    caller.call_again(False)
    caller._thread.join(60)


def test_only_functions_called_later_are_unmarked() -> None:
    with calling() as caller:
        marks = FrameMarks.place(running_threads())
        assert not is_unmarked(caller.frame("outer"))
        assert not is_unmarked(caller.frame("inner"))

        for _ in range(10):  # a frame takes the address of the one before
            caller.call_again()
            assert is_unmarked(caller.frame("inner"))
        assert not is_unmarked(caller.frame("outer"))
        marks.remove()


def test_removed_marks_leave_frames_as_they_were() -> None:
    with calling() as caller:
        caller.frame("inner").f_trace_lines = False
        marks = FrameMarks.place(running_threads())
        marks.remove()

        assert caller.frame("outer").f_trace_lines
        assert not caller.frame("inner").f_trace_lines


def test_traced_functions_and_generators_are_never_new() -> None:
    def trace(*_: object) -> None:
        """Trace nothing."""

    def generate() -> Generator[bool]:
        yield is_unmarked(sys._getframe())

    with calling() as caller:
        caller.frame("inner").f_trace = trace
        marks = FrameMarks.place(running_threads())
        assert caller.frame("inner").f_trace_lines
        assert not is_unmarked(caller.frame("inner"))
        marks.remove()
    assert list(generate()) == [False]
