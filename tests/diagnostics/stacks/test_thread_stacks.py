"""Stacks of threads: of this one, of another, and what is left out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kits.diagnostics import look_until, threads
from trio_supervisor.diagnostics.stacks.thread_stacks import thread_report
from trio_supervisor.wire.reports import ThreadReport, ThreadStack


class Unprintable:
    """A value whose repr must not be asked for."""

    def __repr__(self) -> str:
        raise AssertionError("asked for its repr")


@contextmanager
def lingering() -> Iterator[None]:
    """Have another thread stand still in a line of this file."""
    leave = threading.Event()

    def linger() -> None:
        count, odd, password = 3, Unprintable(), "hunter2"
        leave.wait()
        del count, odd, password

    with threads(lingering=linger):
        yield
        leave.set()


def stack_of(report: ThreadReport, name: str) -> ThreadStack:
    (stack,) = [stack for stack in report.threads if stack.name == name]
    return stack


def is_lingering(report: ThreadReport) -> bool:
    frames = [f for stack in report.threads for f in stack.frames]
    return any(frame.source == "leave.wait()" for frame in frames)


def test_thread_report_has_all_threads_innermost_last() -> None:
    with lingering():
        report = look_until(lambda: thread_report(), is_lingering)
    main, *_ = report.threads
    assert main.is_main
    assert not main.is_daemon
    other = stack_of(report, "lingering")
    assert other.is_daemon
    functions = [frame.function for frame in other.frames]
    assert any(function.endswith("linger") for function in functions)
    frame = next(frame for frame in other.frames if "linger" in frame.function)
    assert frame.source == "leave.wait()"
    assert frame.file == __file__
    assert functions.index(frame.function) < functions.index("Event.wait")


def test_thread_report_omits_its_own_frames() -> None:
    report = thread_report()
    main, *_ = report.threads
    assert main.frames[-1].source == "report = thread_report()"


def test_thread_report_text_has_all_lines() -> None:
    report = thread_report()
    for stack in report.threads:
        assert f"Thread {stack.name} (ident {stack.ident}" in report.data
        for frame in stack.frames:
            assert f"{frame.file}:{frame.line} in {frame.function}" in report.data


def test_thread_report_has_variables_on_request() -> None:
    """Cut short, a secret hidden, and no repr of the application's is asked for."""
    with lingering():
        look_until(lambda: thread_report(), is_lingering)
        plain, full = thread_report(), thread_report(with_locals=True)
    assert all(f.locals is None for s in plain.threads for f in s.frames)
    frames = stack_of(full, "lingering").frames
    found = next(f.locals for f in frames if f.function.endswith("linger"))
    assert found is not None
    assert found["count"] == "3"
    assert "Unprintable at 0x" in found["odd"]
    assert found["password"] == "<hidden>"
    assert "      count = 3" in full.data.splitlines()


def test_thread_report_limits_variables() -> None:
    """A deep recursion does not make a report that no message can carry."""

    def descend(depth: int) -> ThreadReport:
        text = [str(depth) * 20] * 20
        report = descend(depth - 1) if depth else thread_report(with_locals=True)
        del text
        return report

    report = descend(300)
    assert len(report.data) < 2_000_000
