"""One generation: the services as one import of the application declares them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import define, field

from trio_supervisor.application import AnyService, Application
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.launch.factory import Launchers
from trio_supervisor.policy.order import Condition, Standing, needs_of, unmet
from trio_supervisor.policy.reload import ServiceFacts
from trio_supervisor.policy.strategy import Tree

MakeChild = Callable[[AnyService, int], Child]
"""Makes worker number so and so of a service."""


@define(eq=False)
class Unit:
    """The workers of one service."""

    service: AnyService
    children: list[Child] = field(factory=list)
    """By index."""


@define(eq=False)
class Generation:
    """The services of one import, and how they depend on each other."""

    number: int
    application: Application
    make_child: MakeChild
    launchers: Launchers
    facts: Mapping[str, ServiceFacts] | None
    """Of each service, as far as a reload compares them; None: `learn_facts`."""
    close: Callable[[], None] = field(default=lambda: None)
    """Gives up what forks its workers."""
    import_seconds: float | None = None
    """How long the import of the application took [s]; None: unknown."""
    units: dict[str, Unit] = field(factory=dict)
    """By the name of the service, in the order of declaration."""
    successors: dict[str, Unit] = field(factory=dict)
    """Of a generation that comes: those whose own workers have given way for them."""
    needs: dict[str, dict[str, Condition]] = field(init=False)
    rank: dict[str, int] = field(init=False)
    """The place of each service in the declaration."""
    tree: Tree = field(init=False)
    autostarted: frozenset[str] = field(init=False)
    """Services that start on their own, or because one of these depends on them."""
    waiting: dict[str, list[str]] = field(init=False)
    """Services, by what they need directly."""

    def __attrs_post_init__(self) -> None:
        self.needs = self.application.needs()
        self.rank = {s.name: i for i, s in enumerate(self.application.services)}
        self.tree = Tree(self.application.tree())
        services = self.application.services
        scheduled = {s.name for s in services if s.schedule is not None}
        wanted = {
            s.name
            for s in services
            if (s.autostart and not s.on_demand) or s.schedule is not None
        }
        started = wanted | needs_of(wanted, self.needs)
        self.autostarted = frozenset(started - scheduled)
        self.waiting = {}
        for name, needed in self.needs.items():
            for other in needed:
                self.waiting.setdefault(other, []).append(name)

    @property
    def children(self) -> Iterator[Child]:
        """All workers, in the order of declaration."""
        for unit in self.units.values():
            yield from unit.children

    def learn_facts(self) -> Mapping[str, ServiceFacts]:
        """Return the facts; the code is what its files say when first asked."""
        if self.facts is None:
            # Only for an application that was imported here.
            from trio_supervisor.process.imports.declaration_answer import declared

            self.facts = declared(self.application).facts
        return self.facts

    def adopt(self, unit: Unit, service: AnyService) -> None:
        """Take over *unit* as it runs; what it starts from now on is of this import."""
        unit.service = service
        self.units[service.name] = unit
        for index, child in enumerate(unit.children):
            # It keeps its number: it is what the generation before has started.
            child.spawn = self.launchers.worker(service, index, child.plan)
            child.needs = self.launchers.needs_of(service)

    def make_unit(self, service: AnyService, count: int) -> Unit:
        """Take in *service* with *count* workers, which do not run yet."""
        children = [self.make_child(service, index) for index in range(count)]
        unit = self.units[service.name] = Unit(service, children)
        return unit

    def unit_of(self, name: str) -> Unit:
        """Return the workers that are *name* for those that depend on it."""
        return self.successors.get(name) or self.units[name]

    def members_of(self, service: str) -> Sequence[Child]:
        """Return the workers that are *service* for its dependents; may be none."""
        return self.unit_of(service).children if service in self.units else ()

    def dependents_of(self, service: str) -> Iterator[Child]:
        """Return the workers of the services that need *service* directly."""
        for name in self.waiting.get(service, ()):
            if name in self.units:
                yield from self.units[name].children

    def unmet(self, service: str) -> tuple[tuple[str, Condition], ...]:
        """Return what still keeps the workers of *service* from being started."""
        if not self.needs.get(service):
            return ()
        standing: dict[str, list[Standing]] = {
            name: [child.standing for child in self.unit_of(name).children]
            if name in self.units
            else [Standing.NOT_STARTED]
            for name in self.needs[service]
        }
        return unmet(service, self.needs, standing)
