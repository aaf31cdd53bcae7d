"""Which workers there are: of the current generation, of the next, and leaving ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from attrs import define, field

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.events import Event, ServiceScaled
from trio_supervisor.controller.fleet.crash_review import CrashReview
from trio_supervisor.controller.fleet.fleet import Fleet
from trio_supervisor.controller.fleet.generation import Generation, Unit
from trio_supervisor.controller.fleet.health import Readiness
from trio_supervisor.controller.fleet.selectors import choose
from trio_supervisor.controller.supervisor_link import SupervisorLink
from trio_supervisor.errors import RestartLimitError, UnavailableError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.order import Standing, needs_of
from trio_supervisor.policy.restart import Cause
from trio_supervisor.process.output.hub import OutputHub
from trio_supervisor.process.sockets.sockets import SocketSet
from trio_supervisor.tasks import ProtectedNursery


@define(eq=False)
class Members:
    """All workers, and the changes to their set."""

    _on_event: Callable[[Event], None]
    _on_failure: Callable[[RestartLimitError], None]
    """Called when a worker has reached its restart limit."""
    _nursery: Callable[[], ProtectedNursery]
    """Returns the nursery that runs the workers."""
    _sockets: SocketSet
    hub: OutputHub | None
    """Hub that drains the children's output; None: output is not captured."""
    generation: Generation = field(init=False)
    """The current generation."""
    incoming: Generation | None = field(default=None, init=False)
    """The generation of the reload in progress."""
    leaving: set[Child] = field(factory=set, init=False)
    """Workers that are being stopped for good."""
    fleet: Fleet = field(init=False)
    readiness: Readiness = field(init=False)
    link: SupervisorLink = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.fleet = Fleet(
            CrashReview(self._on_event), self._retire_one, self._lost_code
        )

    def begin(self, generation: Generation) -> None:
        """Make the workers of the first generation, which do not run yet."""
        self.generation = generation
        for service in generation.application.services:
            unit = generation.make_unit(service, service.count)
            if service.name not in generation.autostarted:
                for child in unit.children:
                    child.stay_stopped()
            self.fleet.assign(unit.children, generation)

    # Who is there.

    @property
    def by_name(self) -> Mapping[str, Child]:
        """Workers of the current generation."""
        return {child.name: child for child in self.generation.children}

    def everyone(self) -> Iterator[Child]:
        """Return all workers, including those of a reload and those being stopped."""
        every = dict.fromkeys(self.generation.children)
        if self.incoming is not None:
            every |= dict.fromkeys(self.incoming.children)
        every |= dict.fromkeys(self.leaving)
        yield from filter(self.knows, every)

    def knows(self, child: Child) -> bool:
        """Return whether *child* is one of `everyone`."""
        return self.fleet.generation_of(child) is not None

    def counts(self, child: Child) -> bool:
        """Return whether *child* is in the current generation and not being removed."""
        home = self.fleet.generation_of(child)
        return home is self.generation and child not in self.leaving

    def choose(self, names: Iterable[str] | None) -> list[Child]:
        """Return the workers of *names*; None: all except finished one-shot jobs.

        Raises:
            NoSuchWorkerError: a name is unknown.
        """
        if names is None:
            every = self.generation.children
            return [c for c in every if c.standing is not Standing.EXITED_OK]
        services = {n: unit.children for n, unit in self.generation.units.items()}
        return choose(names, self.by_name, services)

    def missing_needs(self, chosen: Collection[Child]) -> list[Child]:
        """Return the stopped dependencies of *chosen*, except finished jobs."""
        needed = needs_of({c.service for c in chosen}, self.generation.needs)
        return [
            child
            for name in needed
            for child in self.generation.units[name].children
            if not (child.is_wanted or child.standing is Standing.EXITED_OK)
            and child not in chosen
        ]

    def not_ready(self, services: Iterable[str]) -> dict[str, str]:
        """Return the workers of *services* that are not ready, with their states."""
        units = self.generation.units
        return {
            child.name: child.state.value
            for name in services
            if name in units
            for child in units[name].children
            if child.state is not State.READY
        }

    def check_has_workers(self, names: Iterable[str], verb: str) -> None:
        """Check that each service in *names* has workers to *verb*.

        Raises:
            UnavailableError: one of the services has no workers.
        """
        for name in names:
            unit = self.generation.units.get(name)
            if unit is not None and not unit.children:
                raise UnavailableError(
                    f"{name} has no workers to {verb} (count=0); scale {name}=1 first"
                )

    def generations(self) -> list[Generation]:
        """Return all generations that have workers, the oldest first."""
        homes = {self.fleet.generation_of(child) for child in self.leaving}
        old = [g for g in homes if g not in (None, self.generation, self.incoming)]
        return [
            *sorted(filter(None, old), key=lambda g: g.number),
            self.generation,
            *([self.incoming] if self.incoming is not None else []),
        ]

    # Changes to the set of workers.

    def launch(self, children: Iterable[Child]) -> None:
        """Run *children*; report each, even while it waits for its dependencies."""
        for child in children:
            if self.fleet.generation_of(child) is self.generation:
                self.readiness.expect(child)
            self.link.tell(child)
            self._nursery().start_soon(self.run_child, child)

    def set_count(
        self, generation: Generation, unit: Unit, count: int
    ) -> tuple[list[Child], list[Child]]:
        """Resize *unit*; return the workers to start and the workers to stop."""
        before = len(unit.children)
        if count == before:
            return [], []
        name = unit.service.name
        self._on_event(ServiceScaled(name=name, before=before, count=count))
        leaving = unit.children[count:]
        del unit.children[count:]
        begun = [generation.make_child(unit.service, i) for i in range(before, count)]
        unit.children += begun
        self.fleet.assign(begun, generation)
        self.launch(begun)
        self.dismiss(leaving)
        for child in leaving:
            child.retire(Cause.SCALE)
            self.fleet.on_change(child)  # wake its dependents
            index = int(child.name.rpartition(".")[2])
            release = self._release_sockets
            self._nursery().start_soon(release, generation, child, index)
        return begun, leaving

    def dismiss(self, children: Collection[Child]) -> None:
        """Exclude *children* from readiness; they are about to be stopped for good."""
        self.leaving.update(children)
        self.fleet.crashes.dismissed.update(children)
        for child in children:
            self.readiness.dismiss(child)
        self.readiness.tell()
        self.link.tell_together(children)

    def announce(self, children: Iterable[Child]) -> None:
        """Show *children*, which are not running yet, in `status`."""
        self.link.tell_together(children)

    def forget(self, children: Iterable[Child]) -> None:
        """Remove *children*, whose processes are gone, from `status`."""
        for child in children:
            self.fleet.forget(child)
            self.link.tell_gone(child)

    async def wait_forgotten(self, children: Collection[Child]) -> None:
        """Wait until *children*, which were retired, have been removed from `status`.

        A client that then learns of their exit no longer finds them in `status`.
        """
        while any(child in self.leaving for child in children):
            await self.readiness.wait_news()
        self.link.flush()

    async def run_child(self, child: Child) -> None:
        """Run *child* until it is retired and has exited; the caller cancels others."""
        while any(_is_namesake(child, other) for other in self.leaving):
            await self.readiness.wait_news()
        try:
            await child.run()
        except RestartLimitError as exc:
            self._on_failure(exc)
        if child in self.leaving:
            self.leaving.discard(child)
            self.forget([child])
            if self.hub is not None and child.name not in self.by_name:
                self.hub.forget(child.name)
            self.readiness.tell()

    def forward_signal(self, number: int) -> None:
        """Forward a signal to the processes of the services that subscribe to it."""
        for unit in self.generation.units.values():
            if number in unit.service.forward_signals:
                for child in unit.children:
                    if child.process is not None:
                        child.process.signal_leader(number)

    def socket_keys(self, service: str) -> Mapping[str, str]:
        """Return a mapping from *service*'s socket names to their keys here."""
        return self.generation.launchers.socket_keys.get(service, {})

    def _retire_one(self, child: Child, cause: Cause, reason: str) -> None:
        if child not in self.leaving:
            self.dismiss([child])
        child.retire(cause, reason)

    def _lost_code(self, child: Child) -> str:
        if child.process is None:
            return ""  # about to be started anyway, and reports the error itself
        return self.generation.launchers.forkers.problem_of(child.service)

    async def _release_sockets(
        self, generation: Generation, child: Child, index: int
    ) -> None:
        await child.wait_state(State.STOPPED, State.FAILED)
        unit = generation.units.get(child.service)
        if unit is not None and len(unit.children) <= index:
            keys = self.socket_keys(child.service)
            self._sockets.release(keys.values(), index)


def _is_namesake(child: Child, other: Child) -> bool:
    plan, known = child.plan, other.plan
    is_other = child is not other
    return is_other and (plan.name, plan.generation) == (known.name, known.generation)
