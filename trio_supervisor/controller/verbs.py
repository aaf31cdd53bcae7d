"""What an operator does with workers: restart, stop, start and scale them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import frozen

from trio_supervisor.application import MAX_COUNT
from trio_supervisor.controller.capacity import check_capacity
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.fleet.make_generation import GenerationFactory
from trio_supervisor.controller.fleet.members import Members
from trio_supervisor.controller.fleet.ordered_stop import check_ended, stop_operation
from trio_supervisor.controller.fleet.reload import Reloader
from trio_supervisor.controller.shutdown import OrderedShutdown
from trio_supervisor.errors import NoSuchWorkerError, UnavailableError
from trio_supervisor.policy.addressing import is_pattern
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.operations import StartOperation
from trio_supervisor.policy.restart import Cause

_RUNNING: Final = (State.STARTING, State.READY, State.UNREADY, State.UNHEALTHY)


@frozen(eq=False)
class Verbs:
    """Carries out requests; see the methods of the same names of `Controller`."""

    _members: Members
    _reloader: Reloader
    _shutdown: OrderedShutdown
    _generation_factory: GenerationFactory
    _owns_process: bool

    async def restart(
        self,
        names: Sequence[str] | None,
        reason: str,
        max_unavailable: int | None = None,
    ) -> None:
        """Restart workers, and start their stopped dependencies."""
        chosen = self._members.choose(names)
        self._shutdown.check_open()
        self._members.check_has_workers(names or (), "restart")
        await self.check_startable(child.service for child in chosen)
        self._shutdown.check_open()
        generation = self._members.generation
        await self._members.fleet.restart(
            [*self._members.missing_needs(chosen), *chosen],
            generation,
            reason,
            needs=generation.needs,
            max_unavailable=max_unavailable,
        )

    async def restart_for_monitor(
        self,
        names: Sequence[str] | None,
        incarnation: int,
        number: int | None,
        reason: str,
    ) -> None:
        """Restart the workers of *names* that are still of that *incarnation*.

        Args:
            number: Generation of the workers; None: the current one.
        """
        members = self._members
        if number is None or names is None:
            chosen = members.choose(names)
        else:  # also a worker of the next generation
            every = [c for c in members.everyone() if c.plan.generation == number]
            chosen = [child for child in every if child.name in names]
        self._shutdown.check_open()
        chosen = [child for child in chosen if child.incarnation == incarnation]
        homes = {members.fleet.generation_of(child) for child in chosen}
        home = next(filter(None, homes), members.generation)
        await members.fleet.restart(chosen, home, reason, Cause.MONITOR)

    def request_restart(self, reason: str) -> None:
        """Begin to restart all workers that should run, unless a shutdown has begun."""
        if self._shutdown.is_requested:
            return
        home = self._members.generation
        wanted = [child for child in home.children if child.is_wanted]
        begin = self._members.fleet.begin_restart
        begin(wanted, home, reason, Cause.RESTART, home.needs)

    async def stop(self, names: Sequence[str], reason: str) -> tuple[str, ...]:
        """Stop workers and their dependents, and keep them stopped."""
        self._reloader.check_idle()
        generation = self._members.generation
        chosen = self._members.choose(names)
        operation = stop_operation(generation, chosen, reason)
        stopped = await self._members.fleet.carry_out(operation)
        concerned = set(operation.members)
        check_ended(child for child in generation.children if child in concerned)
        return tuple(c.name for c in dict.fromkeys(stopped) if not c.is_wanted)

    async def start(self, names: Sequence[str], undo_cause: Cause = Cause.STOP) -> None:
        """Start stopped workers, and their dependencies.

        Args:
            undo_cause: Cause for which they are stopped again if one fails. With IDLE,
                of a service on demand, they are started while a canary is tried, too.
        """
        members = self._members
        self._reloader.check_idle(but_canary=undo_cause is Cause.IDLE)
        members.check_has_workers(names, "start")
        chosen = self._startable(names)
        absent = [c for c in [*members.missing_needs(chosen), *chosen] if not c.process]
        await self.check_startable(child.service for child in absent)
        chosen = self._startable(names)
        self._shutdown.check_open()
        needed = members.missing_needs(chosen)
        begun = [c for c in [*needed, *chosen] if not c.is_wanted]
        since = [(c, c.incarnation + (c.state not in _RUNNING)) for c in chosen]
        for child in dict.fromkeys([*begun, *chosen]):
            child.request_start()
        try:
            await members.fleet.carry_out(StartOperation(since))
        except UnavailableError as exc:
            undone = [child for child in begun if child.is_wanted]
            if not undone or self._shutdown.is_requested:
                raise
            home, why = members.generation, "start failed"
            undo = stop_operation(home, undone, why, undo_cause)
            await members.fleet.carry_out(undo)
            names_of = ", ".join(child.name for child in undone)
            raise UnavailableError(f"{exc}; stopped again: {names_of}") from exc

    def _startable(self, names: Sequence[str]) -> list[Child]:
        """Return the workers to start; a pattern only ends the pause of schedules."""
        chosen = self._members.choose(names)
        named = set(self._members.choose(n for n in names if not is_pattern(n)))
        for child in chosen:
            if child.plan.is_scheduled and child not in named:
                child.resume()
        return [c for c in chosen if c in named or not c.plan.is_scheduled]

    async def scale(self, counts: Mapping[str, int]) -> None:
        """Change the number of workers of services."""
        self._reloader.check_idle()
        self._shutdown.check_open()
        self._check_counts(counts)
        units = self._members.generation.units
        before = {name: len(units[name].children) for name in counts}
        growing = [name for name, count in counts.items() if count > before[name]]
        await self.check_startable(growing)
        self._reloader.check_idle()
        self._shutdown.check_open()
        self.check_capacity(sum(counts[name] - before[name] for name in growing))
        scaled = dict(self._reloader.scaled)
        changes = [self._scale(name, count) for name, count in counts.items()]
        try:
            begun = [(child, 1) for more, _ in changes for child in more]
            await self._members.fleet.carry_out(StartOperation(begun))
            for _, leaving in changes:
                await self._members.wait_forgotten(leaving)
        except UnavailableError as exc:
            if not self._is_still(counts):
                raise
            for name, count in before.items():
                _, leaving = self._scale(name, count)
                await self._members.wait_forgotten(leaving)
            self._reloader.scaled = scaled
            again = ", ".join(f"{name}={count}" for name, count in before.items())
            raise UnavailableError(f"{exc}; scaled back to {again}") from exc
        check_ended(child for _, leaving in changes for child in leaving)

    async def check_startable(self, services: Iterable[str]) -> None:
        """Check that everything that processes of *services* need is present.

        Raises:
            SpecError: something is missing; the message lists all of it.
        """
        await self._generation_factory.check_startable(
            self._members.generation.application, set(services), were_started=True
        )

    def check_capacity(self, more: int) -> None:
        """Check that there are file descriptors for *more* workers.

        Raises:
            PlatformError: there are too few.
        """
        check_capacity(
            len(list(self._members.everyone())) + more,
            is_captured=self._generation_factory.context.is_captured,
            may_raise=self._owns_process,
            more=more,
        )

    def _check_counts(self, counts: Mapping[str, int]) -> None:
        units = self._members.generation.units
        for name, count in counts.items():
            if name not in units:
                known = ", ".join(units) or "none"
                raise NoSuchWorkerError(
                    f"no service has the name {name!r:.80}; services: {known}"
                )
            if units[name].service.schedule is not None:
                raise UnavailableError(f"{name} has a schedule; it cannot be scaled")
            if not 0 <= count <= MAX_COUNT:
                raise UnavailableError(f"{name}: expected 0 to {MAX_COUNT} workers")

    def _is_still(self, counts: Mapping[str, int]) -> bool:
        """Return whether no other call, reload or shutdown has changed *counts*."""
        units = self._members.generation.units
        return not self._shutdown.is_requested and all(
            name in units and len(units[name].children) == count
            for name, count in counts.items()
        )

    def _scale(self, name: str, count: int) -> tuple[list[Child], list[Child]]:
        generation = self._members.generation
        self._reloader.scaled[name] = count
        return self._members.set_count(generation, generation.units[name], count)
