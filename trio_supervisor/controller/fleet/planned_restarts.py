"""Run planned restarts within the limits on concurrent ones."""

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
    """Callbacks to the relations between workers."""

    def hold(self, child: Child) -> None:
        """Hold back the start of *child*."""
        ...

    def release(self, child: Child) -> None:
        """Release *child* again."""
        ...

    def failed_needs_of(self, child: Child) -> str:
        """Describe the failed dependencies of *child*; empty: none."""
        ...


@define(eq=False)
class PlannedRestarts:
    """Planned restarts of all callers, sharing one limit on concurrent ones."""

    _everyone: Callable[[], Iterable[Child]]
    _gate: StartGate
    max_concurrently: int | None = None
    """Maximum number of planned restarts at once; None: no limit."""
    lost_code: Callable[[Child], str] = field(default=lambda _: "", init=False)
    """Returns why *child* could not start again after a stop; empty: it could."""
    _under_way: dict[Child, int] = field(factory=dict, init=False)
    """Restarts in progress: the incarnation with which each is complete."""
    _news: trio.Event = field(factory=trio.Event, init=False)
    _is_closed: bool = field(default=False, init=False)

    def on_change(self, child: Child) -> None:
        """Note the progress of *child*, and wake restarts that wait for a slot."""
        since = self._under_way.get(child)
        if since is not None and _is_over(child, since):
            del self._under_way[child]
        self._tell()

    def close(self) -> None:
        """Begin no more restarts; those waiting for a slot fail."""
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
        """Restart *children*; return when the new processes are ready.

        If cancelled, restarts in progress continue and no further one begins.

        Args:
            needs: Dependencies between services. Dependents stop before the workers
                that they need, and start after them. With *max_unavailable*,
                dependencies are restarted first and are ready again before their
                dependents stop.
            max_unavailable: Maximum number of workers per service restarted at once;
                the next restart begins when the one before is ready. None: no limit.

        Raises:
            UnavailableError: a worker exited for good instead, or a shutdown began,
                and the remaining workers were not restarted; or the workers could
                not have started again.
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
                    # It keeps its slot: no other restart begins before it is ready.
                    raise UnavailableError(crash_of(child))
                elif problem := self._gate.failed_needs_of(child):
                    self._under_way.pop(child, None)
                    raise UnavailableError(f"{child.name} {problem}")
            for child in list(waiting.values()):
                incarnation, was_wanted = before[child]
                is_stopped = was_wanted and not child.is_wanted
                if is_stopped or child.is_retired:  # or removed while waiting
                    del waiting[child.name]
                elif child.incarnation > incarnation:  # already restarted
                    begun[waiting.pop(child.name)] = child.incarnation
            under_way = [child.name for child in self._under_way]
            # A stopped worker never becomes ready; do not wait for it.
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
                continue  # a worker without a process frees its slot immediately
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
    """Stop and start order of the workers that are restarted together."""

    _children: Sequence[Child]
    _needs: Needs
    _gate: StartGate
    _is_gradual: bool
    """Whether services are restarted one after the other, dependencies first."""
    _before: dict[Child, int] = field(init=False)
    _behind: dict[str, frozenset[str]] = field(init=False)
    """Services that must stop before a service does, by name."""
    _ahead: dict[str, frozenset[str]] = field(init=False)
    """Services that must stop before a service starts again, by name."""
    _present: set[str] = field(factory=set, init=False)
    """Services that still have a running worker."""
    _held: set[Child] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._before = {child: child.incarnation for child in self._children}
        together = {child.plan.service for child in self._children}
        self._behind = {s: dependents({s}, self._needs) & together for s in together}
        self._ahead = {s: needs_of({s}, self._needs) & together for s in together}

    def update(
        self, waiting: Mapping[str, Child], begun: Collection[Child]
    ) -> list[str]:
        """Update which services have stopped; return the names that may go next."""
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
        """Hold back *child*, which is about to be stopped, until its turn to start."""
        if self._is_gradual:
            return
        if self._behind[child.plan.service]:
            child.reset_start(is_forgiven=False)
        if not self._ahead[child.plan.service].isdisjoint(self._present):
            self._held.add(child)
            self._gate.hold(child)

    def close(self) -> None:
        """Release all workers."""
        while self._held:
            self._gate.release(self._held.pop())

    def _has_ended(self, child: Child) -> bool:
        return child.incarnation > self._before[child] or not child.has_process


def _facts_of(child: Child) -> WorkerFacts:
    is_available = child.state is State.READY
    return WorkerFacts(child.name, child.plan.service, is_available)


def _is_over(child: Child, since: int) -> bool:
    if not child.is_wanted and child.is_down:
        return True  # stopped by another request, or exited for good
    if child.incarnation >= since and child.is_in_crash_loop:
        return True  # it is retried; the others do not wait for it
    is_settled = child.is_stable or child.is_down
    return child.incarnation >= since and is_settled


def _check_ready(child: Child) -> None:
    if child.is_retired:
        return  # removed by a scale-down or a reload
    if child.state is not State.READY and child.standing is not Standing.EXITED_OK:
        raise UnavailableError(
            f"{child.name} is not ready: {child.state.value} ({child.trouble})"
        )
