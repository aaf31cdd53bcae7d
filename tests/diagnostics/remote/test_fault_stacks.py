"""Test which thread holds the GIL, by the output of faulthandler."""

from __future__ import annotations

import pytest

from trio_supervisor.diagnostics.locations import CodeLocation
from trio_supervisor.diagnostics.remote.fault_stacks import (
    FaultStack,
    gil_holder,
    parse_stacks,
)
from trio_supervisor.worker import agent

HEAD = "Stack (most recent call first):"
MAIN = ("/python/re/__init__.py 166 match", "/app/my work.py 9 work")
IDLE = (
    "/site/trio/_core/_io_epoll.py 243 get_events",
    "/site/trio/_core/_run.py 1 run",
)
BOOT = "/python/threading.py 1002 _bootstrap"
THREAD = (
    "/app/service.py 3 matches",
    "/site/trio/_core/_thread_cache.py 1 _work",
    BOOT,
)
RESTING = ("/site/trio/_core/_thread_cache.py 112 _work", BOOT)
AGENT = (f"{agent.__file__} 96 _run", BOOT)


def written(*stacks: tuple[str, ...]) -> str:
    """What faulthandler writes of threads in such frames, the innermost first."""
    lines = []
    for stack in stacks:
        lines.append(HEAD)
        for frame in stack:
            file, line, function = frame.rsplit(" ", 2)
            lines.append(f'  File "{file}", line {line} in {function}')
    return "\n".join(lines)


def test_parse_stacks_innermost_first() -> None:
    (stack,) = parse_stacks(written(MAIN))
    assert stack == FaultStack(
        locations=(
            CodeLocation("/python/re/__init__.py", 166, "match"),
            CodeLocation("/app/my work.py", 9, "work"),
        )
    )


@pytest.mark.parametrize("text", ["", HEAD, f"{HEAD}\n  <no Python frame>", "rubbish"])
def test_parse_stacks_without_frames_is_empty(text: str) -> None:
    assert parse_stacks(text) == ()
    assert gil_holder(text) is None


@pytest.mark.parametrize(
    ("stacks", "function", "is_main"),
    [
        pytest.param([MAIN], "match", True, id="the main thread alone"),
        pytest.param([MAIN, AGENT], "match", True, id="beside the agent"),
        pytest.param([AGENT, MAIN], "match", True, id="the agent wrote first"),
        pytest.param([THREAD, MAIN], "match", True, id="the main thread wrote last"),
        pytest.param([IDLE, RESTING, THREAD], "matches", False, id="another thread"),
    ],
)
def test_gil_holder_is_found(
    stacks: list[tuple[str, ...]], function: str, is_main: bool
) -> None:
    found = gil_holder(written(*stacks))
    assert found is not None
    assert (found.locations[0].function, found.is_main) == (function, is_main)


@pytest.mark.parametrize("stacks", [[IDLE], [AGENT], [IDLE, RESTING, AGENT]])
def test_gil_holder_is_none_if_all_threads_wait(stacks: list[tuple[str, ...]]) -> None:
    assert gil_holder(written(*stacks)) is None
