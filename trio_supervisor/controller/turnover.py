"""Planned restarts, of which only so many may go on at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import trio
from attrs import define, field

from trio_supervisor.controller.child import Child
from trio_supervisor.errors import UnavailableError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.order import Standing
from trio_supervisor.policy.restart import Cause
from trio_supervisor.policy.rolling import RollingLimits, WorkerFacts, next_batch


@define(eq=False)
class Turnover:
    """Replaces workers; all who want that share what may be away at once."""

    _everyone: Callable[[], Iterable[Child]]
    max_concurrently: int | None = None
    """So many planned restarts in all; None: any number."""
    _under_way: dict[Child, int] = field(factory=dict, init=False)
    """Whose restart has begun, and from which incarnation on it is over."""
    _news: trio.Event = field(factory=trio.Event, init=False)
    _is_closed: bool = field(default=False, init=False)

    def on_change(self, child: Child) -> None:
        """Note how far *child* has come, and wake those that wait for room."""
        since = self._under_way.get(child)
        if since is not None and _is_over(child, since):
            del self._under_way[child]
        self._tell()

    def close(self) -> None:
        """Begin no more restarts: those that wait for room fail."""
        self._is_closed = True
        self._tell()

    async def restart(
        self,
        children: Sequence[Child],
        reason: str,
        cause: Cause = Cause.RESTART,
        *,
        max_unavailable: int | None = None,
    ) -> None:
        """Replace *children*; return when the new ones are ready.

        A cancellation leaves those going on that have begun, and the others untouched.

        Args:
            max_unavailable: So many workers of one service may be away; the next one
                is replaced when the one before is ready. None: any number.

        Raises:
            UnavailableError: one ended for good instead, or everything is being
                stopped, and the rest was left alone.
        """
        limits = RollingLimits(
            max_unavailable=max_unavailable, max_concurrently=self.max_concurrently
        )
        waiting = {child.name: child for child in children}
        before = {c: (c.incarnation, c.is_wanted) for c in children}
        begun: dict[Child, int] = {}
        while True:
            if self._is_closed:
                raise UnavailableError("everything is being stopped")
            for child, since in list(begun.items()):
                if _is_over(child, since):
                    del begun[child]
                    self._under_way.pop(child, None)
                    _check_ready(child)
            for child in list(waiting.values()):
                incarnation, was_wanted = before[child]
                if was_wanted and not child.is_wanted:  # stopped, or gone, meanwhile
                    del waiting[child.name]
                elif child.incarnation > incarnation:  # another one took its place
                    begun[waiting.pop(child.name)] = child.incarnation
            under_way = [child.name for child in self._under_way]
            # Who is not to run would be waited for in vain.
            everyone = self._everyone()
            present = [c for c in everyone if c.is_wanted or c.name in waiting]
            facts = [_facts_of(child) for child in present]
            for name in next_batch(tuple(waiting), under_way, facts, limits):
                child = waiting.pop(name)
                begun[child] = self._under_way[child] = child.incarnation + 1
                child.request_restart(reason, cause)
            if not (waiting or begun):
                return
            if not any(_is_over(child, since) for child, since in begun.items()):
                news = self._news
                await news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()


def _facts_of(child: Child) -> WorkerFacts:
    is_available = child.state is State.READY
    return WorkerFacts(child.name, child.plan.service, is_available)


def _is_over(child: Child, since: int) -> bool:
    if not child.is_wanted and child.is_at_rest:
        return True  # a stop has overtaken us, or it ended for good
    is_settled = child.state is State.READY or child.is_at_rest
    return child.incarnation >= since and is_settled


def _check_ready(child: Child) -> None:
    if child.state is not State.READY and child.standing is not Standing.EXITED_OK:
        raise UnavailableError(
            f"{child.name} is not ready, but {child.state.value} ({child.last_exit})"
        )
