"""Run tests in virtual time: days pass in milliseconds, with reproducible results."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec

import trio
from trio.testing import MockClock

P = ParamSpec("P")

_LIMIT: Final = 30 * 86_400.0


def in_virtual_time(
    test: Callable[P, Awaitable[None]], limit: float = _LIMIT
) -> Callable[P, None]:
    """Run an async test in virtual time, which starts at 0 and skips all waits.

    A deadlock fails immediately: the clock jumps to *limit* [s], and the test raises
    `trio.TooSlowError`. Apply it below ``@hypothesis.given`` and
    ``@pytest.mark.parametrize``. Do not use it with real processes, sockets or threads:
    the clock would jump while these work.
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            with trio.fail_after(limit):
                await test(*args, **kwargs)

        trio.run(main, clock=MockClock(autojump_threshold=0))

    return run


def sleep_through(seconds: float) -> None:
    """Let *seconds* [s] pass without running any task, as on a suspended host.

    Raises:
        RuntimeError: the test does not run in virtual time.
    """
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, MockClock):
        raise RuntimeError("sleep_through() needs virtual time: use @in_virtual_time")
    clock.jump(seconds)
