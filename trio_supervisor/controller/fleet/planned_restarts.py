"""Planned restarts, of which only so many may go on at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

import trio
from attrs import define, field

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.fleet.ordered_stop import crash_of
from trio_supervisor.errors import UnavailableError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.order import Needs, Standing, dependents, needs_of
from trio_supervisor.policy.restart import Cause
from trio_supervisor.policy.rolling import RollingLimits, WorkerFacts, next_batch


class StartGate(Protocol):
    """What is asked of the relations between workers."""

    def hold(self, child: Child) -> None:
        """Keep *child* from being started."""
        ...

    def release(self, child: Child) -> None:
        """Do so no more."""
        ...

    def failed_needs_of(self, child: Child) -> str:
        """Return why *child* waits for others in vain, if so."""
        ...


@define(eq=False)
class PlannedRestarts:
    """Replaces workers; all who want that share what may be away at once."""

    _everyone: Callable[[], Iterable[Child]]
    _gate: StartGate
    max_concurrently: int | None = None
    """So many planned restarts in all; None: any number."""
    lost_code: Callable[[Child], str] = field(default=lambda _: "", init=False)
    """Why *child* could not be started again, once ended; empty: it could."""
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
        needs: Needs | None = None,
        max_unavailable: int | None = None,
    ) -> None:
        """Replace *children*; return when the new ones are ready.

        A cancellation leaves those going on that have begun, and the others untouched.

        Args:
            needs: What depends on what: of *children*, none is then ended before all
                that need it have ended, nor started before all that it needs have.
                Where only so many may be away, what is needed is replaced first, and
                ready again, before those that need it are ended.
            max_unavailable: So many workers of one service may be away; the next one
                is replaced when the one before is ready. None: any number.

        Raises:
            UnavailableError: one ended for good instead, or everything is being
                stopped, and the rest was left alone; or none could be started again.
        """
        for child in children:
            if problem := self.lost_code(child):
                raise UnavailableError(f"{child.name} keeps running: {problem}")
        limits = RollingLimits(
            max_unavailable=max_unavailable, max_concurrently=self.max_concurrently
        )
        order = _Order(children, needs or {}, self._gate, limits.are_any)
        try:
            await self._restart(children, reason, cause, limits, order)
        finally:
            order.close()

    async def _restart(
        self,
        children: Sequence[Child],
        reason: str,
        cause: Cause,
        limits: RollingLimits,
        order: _Order,
    ) -> None:
        waiting = {child.name: child for child in children}
        before = {c: (c.incarnation, c.is_wanted) for c in children}
        begun: dict[Child, int] = {}
        while True:
            if self._is_closed:
                raise UnavailableError("the controller is shutting down")
            for child, since in list(begun.items()):
                if _is_over(child, since):
                    del begun[child]
                    self._under_way.pop(child, None)
                    _check_ready(child)
                elif child.last_crash >= since:
                    # It stays under way: no other goes before it is back.
                    raise UnavailableError(crash_of(child))
                elif problem := self._gate.failed_needs_of(child):
                    self._under_way.pop(child, None)
                    raise UnavailableError(f"{child.name} {problem}")
            for child in list(waiting.values()):
                incarnation, was_wanted = before[child]
                is_stopped = was_wanted and not child.is_wanted
                if is_stopped or child.is_retired:  # or gone, meanwhile
                    del waiting[child.name]
                elif child.incarnation > incarnation:  # another one took its place
                    begun[waiting.pop(child.name)] = child.incarnation
            under_way = [child.name for child in self._under_way]
            # Who is not to run would be waited for in vain.
            everyone = self._everyone()
            present = [c for c in everyone if c.is_wanted or c.name in waiting]
            facts = [_facts_of(child) for child in present]
            free = order.update(waiting, begun)
            batch = next_batch(free, under_way, facts, limits)
            for name in batch:
                child = waiting.pop(name)
                begun[child] = self._under_way[child] = child.incarnation + 1
                order.begin(child)
                child.request_restart(reason, cause)
            if batch:
                continue  # where one of them had no process, it is the next one's turn
            if not (waiting or begun):
                return
            if not any(_is_over(child, since) for child, since in begun.items()):
                news = self._news
                await news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()


@define(eq=False)
class _Order:
    """Who of those that are replaced together has to end before whom."""

    _children: Sequence[Child]
    _needs: Needs
    _gate: StartGate
    _is_gradual: bool
    """Whether one service after the other is replaced, those that are needed first."""
    _before: dict[Child, int] = field(init=False)
    _behind: dict[str, frozenset[str]] = field(init=False)
    """By service: those that have to end before it does."""
    _ahead: dict[str, frozenset[str]] = field(init=False)
    """By service: those that have to end before it is started again."""
    _present: set[str] = field(factory=set, init=False)
    """Services of which a worker has not ended yet."""
    _held: set[Child] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._before = {child: child.incarnation for child in self._children}
        together = {child.plan.service for child in self._children}
        self._behind = {s: dependents({s}, self._needs) & together for s in together}
        self._ahead = {s: needs_of({s}, self._needs) & together for s in together}

    def update(
        self, waiting: Mapping[str, Child], begun: Collection[Child]
    ) -> list[str]:
        """Look who has ended; return the names of *waiting* whose turn it is."""
        if self._is_gradual:
            busy = {child.plan.service for child in (*waiting.values(), *begun)}
            return [
                name
                for name, child in waiting.items()
                if self._ahead[child.plan.service].isdisjoint(busy)
            ]
        self._present = {
            child.plan.service
            for child in self._children
            if waiting.get(child.name) is child or not self._has_ended(child)
        }
        for child in list(self._held):
            if self._ahead[child.plan.service].isdisjoint(self._present):
                self._held.discard(child)
                self._gate.release(child)
        return [
            name
            for name, child in waiting.items()
            if self._behind[child.plan.service].isdisjoint(self._present)
        ]

    def begin(self, child: Child) -> None:
        """Have *child*, which is about to be ended, started at its turn."""
        if self._is_gradual:
            return
        if self._behind[child.plan.service]:
            child.reset_start(is_forgiven=False)
        if not self._ahead[child.plan.service].isdisjoint(self._present):
            self._held.add(child)
            self._gate.hold(child)

    def close(self) -> None:
        """Hold nobody any more."""
        while self._held:
            self._gate.release(self._held.pop())

    def _has_ended(self, child: Child) -> bool:
        return child.incarnation > self._before[child] or not child.has_process


def _facts_of(child: Child) -> WorkerFacts:
    is_available = child.state is State.READY
    return WorkerFacts(child.name, child.plan.service, is_available)


def _is_over(child: Child, since: int) -> bool:
    if not child.is_wanted and child.is_down:
        return True  # a stop has overtaken us, or it ended for good
    if child.incarnation >= since and child.is_in_crash_loop:
        return True  # it is tried again, and the others do not wait for that
    is_settled = child.is_stable or child.is_down
    return child.incarnation >= since and is_settled


def _check_ready(child: Child) -> None:
    if child.is_retired:
        return  # scaled away, or replaced by a reload: nobody misses it
    if child.state is not State.READY and child.standing is not Standing.EXITED_OK:
        raise UnavailableError(
            f"{child.name} is not ready: {child.state.value} ({child.trouble})"
        )
