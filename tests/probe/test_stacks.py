"""Stacks of threads: of this one, of another, and what is left out."""

from __future__ import annotations

import threading

from trio_supervisor.probe.stacks import thread_report


def test_every_thread_is_there_with_its_innermost_line_last() -> None:
    entered, leave = threading.Event(), threading.Event()

    def linger() -> None:
        entered.set()
        leave.wait()

    thread = threading.Thread(target=linger, name="lingering", daemon=True)
    thread.start()
    entered.wait()
    try:
        report = thread_report()
    finally:
        leave.set()
        thread.join()
    main, *others = report.threads
    assert main.is_main
    assert not main.is_daemon
    # The frames that take the report are left out: the last is this test's own.
    assert main.frames[-1].source == "report = thread_report()"
    (other,) = [stack for stack in others if stack.name == "lingering"]
    assert other.is_daemon
    functions = [frame.function for frame in other.frames]
    assert any(function.endswith("linger") for function in functions)
    lingering = next(frame for frame in other.frames if "linger" in frame.function)
    assert lingering.source == "leave.wait()"
    assert lingering.file == __file__


def test_the_text_has_every_line_of_every_thread() -> None:
    report = thread_report()
    for stack in report.threads:
        assert f"Thread {stack.name} (ident {stack.ident}" in report.data
        for frame in stack.frames:
            assert f"{frame.file}:{frame.line} in {frame.function}" in report.data
