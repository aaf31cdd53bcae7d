"""Send to a receiver that may be slow or absent: nothing else waits for it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.process.threads import run_in_thread

logger = logging.getLogger(__name__)

_FIRST_DELAY: Final = 1.0
"""After the first failure; doubles with each one after it [s]."""
_MOST_DELAY: Final = 60.0
_LAST_OF_FAILING: Final = 1.0
"""How long the last attempt may take if the one before has failed [s]."""
_LONGEST: Final = 200
"""Of a problem in the log [characters]."""

Send = Callable[[], str]
"""Sends once, in a thread; returns what went wrong, or an empty string."""


class Refusal(str):
    """A problem that would be the same at the next attempt: the data is not taken."""

    __slots__ = ()


@define(eq=False)
class Delivery:
    """The sending of one signal, such as metrics, to one receiver.

    A failure is logged once; then each attempt waits longer, up to a minute, and the
    first success is logged again.
    """

    _what: str
    _receiver: str
    _failures: int = field(default=0, init=False)
    """In a row."""
    is_refused: bool = field(default=False, init=False)
    """Whether the receiver refused what was sent last, for good."""
    _is_sending: trio.Lock = field(factory=trio.Lock, init=False)

    @property
    def delay(self) -> float:
        """How long to wait before the next attempt [s]; 0: nothing is wrong."""
        if not self._failures:
            return 0.0
        return min(_FIRST_DELAY * 2.0 ** min(self._failures - 1, 10), _MOST_DELAY)

    async def send(self, send: Send) -> bool:
        """Send once, in a thread that a cancellation abandons; return the success.

        An attempt begins only when the one before has ended.
        """
        async with self._is_sending:
            self.is_refused = False
            try:
                problem = await run_in_thread(send, abandon_on_cancel=True)
            except OSError as exc:  # no thread can be started
                problem = str(exc)
            except Exception as exc:  # must not end the controller
                logger.debug("the export of %s failed", self._what, exc_info=exc)
                problem = f"{type(exc).__name__}: {exc}"
        self.is_refused = isinstance(problem, Refusal)
        if problem:
            self._fail(problem)
            return False
        if self._failures:
            logger.info(
                "%s are exported to %s again, after %d failures",
                *(self._what, self._receiver, self._failures),
            )
        self._failures = 0
        return True

    async def finish(
        self, send_rest: Callable[[], Awaitable[object]], within: float
    ) -> None:
        """Have *send_rest* send what is left, for at most *within* seconds."""
        within = min(within, _LAST_OF_FAILING) if self._failures else within
        with trio.move_on_after(within) as scope:
            await send_rest()
        if scope.cancelled_caught:
            self._fail(f"no answer within {within:g} s")

    def _fail(self, problem: str) -> None:
        self._failures += 1
        if self._failures > 1:
            logger.debug("%s are not exported: %s", self._what, problem)
            return
        logger.warning(
            "%s are not exported to %s: %s; retrying (logged once)",
            *(self._what, self._receiver, problem[:_LONGEST]),
        )
