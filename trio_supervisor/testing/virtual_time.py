"""Days in milliseconds: tests that wait for nothing, and give the same result again."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec

import trio
from trio.testing import MockClock

P = ParamSpec("P")

_LIMIT: Final = 30 * 86_400.0


def simulated(
    test: Callable[P, Awaitable[None]], limit: float = _LIMIT
) -> Callable[P, None]:
    """Run an async test in virtual time, which starts at 0 and jumps over every wait.

    A deadlock fails at once: with nothing else to wait for, the clock jumps to *limit*
    [s] and the test ends in `trio.TooSlowError`. Goes under ``@hypothesis.given`` and
    under ``@pytest.mark.parametrize``. Not for tests with real processes, sockets or
    threads: the clock would jump while these work.
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            with trio.fail_after(limit):
                await test(*args, **kwargs)

        trio.run(main, clock=MockClock(autojump_threshold=0))

    return run


def sleep_through(seconds: float) -> None:
    """Let *seconds* pass without running anything, as a suspended host does [s].

    Raises:
        RuntimeError: the time is real.
    """
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, MockClock):
        raise RuntimeError("only virtual time can be slept through: use @simulated")
    clock.jump(seconds)
