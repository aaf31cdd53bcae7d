"""Walk the tree of groups and services, and check that they fit together. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from trio_supervisor.application.group import AnyService, Group
from trio_supervisor.application.listen import Listen
from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.order import Condition, Needs, find_cycle
from trio_supervisor.policy.restart import RestartPolicy
from trio_supervisor.policy.strategy import GroupNode


@frozen
class Placed:
    """A service and its place in the tree."""

    path: str
    """Path such as ``services[1].children[0]``."""
    service: AnyService
    places: tuple[tuple[Group, int], ...]
    """The enclosing groups, from the outermost in, each with the index of the child."""


def walk(root: Group) -> Iterator[Placed | tuple[str, Group]]:
    """Yield all services, and each group with its path before its children."""
    yield from _walk(root, "services", ())


def _walk(
    group: Group, path: str, places: tuple[tuple[Group, int], ...]
) -> Iterator[Placed | tuple[str, Group]]:
    for index, child in enumerate(group.children):
        where = f"{path}[{index}]"
        inner = (*places, (group, index))
        if isinstance(child, Group):
            yield where, child
            yield from _walk(child, f"{where}.children", inner)
        else:
            yield Placed(where, child, inner)


def placed_services(root: Group) -> dict[str, Placed]:
    """Return all services by name, in the order of their declaration.

    Raises:
        SpecError: two services, or groups, have the same name.
    """
    seen: dict[str, str] = {}
    found: dict[str, Placed] = {}
    for item in walk(root):
        path, owner = (item.path, item.service) if isinstance(item, Placed) else item
        if owner.name is not None:
            if owner.name in seen:
                problem = f"{seen[owner.name]} has the name {owner.name!r} already"
                raise SpecError(f"{path}.name", problem)
            seen[owner.name] = path
        if isinstance(item, Placed):
            found[item.service.name] = item
    return found


def needs_of_application(root: Group) -> dict[str, dict[str, Condition]]:
    """Return what each service depends on, with what ``rest_for_one`` adds.

    In a group with this strategy each child depends on all earlier children as
    ``"ready"``, unless its own ``depends_on`` says otherwise.
    """
    services = placed_services(root)
    needs = {name: dict(item.service.depends_on) for name, item in services.items()}
    groups = [root, *(item[1] for item in walk(root) if not isinstance(item, Placed))]
    for group in groups:
        if group.strategy != "rest_for_one":
            continue
        earlier: list[str] = []
        for child in group.children:
            inside = [service.name for service in _services(child)]
            for name in inside:
                for other in earlier:
                    needs[name].setdefault(other, "ready")
            earlier += inside
    return needs


def node_of(root: Group, name: str) -> GroupNode:
    """Return the groups in *root* as plain data; an unnamed group gets its path."""
    return _node(root, name, "services")


def _node(group: Group, name: str, path: str) -> GroupNode:
    children: list[str | GroupNode] = []
    for index, child in enumerate(group.children):
        where = f"{path}[{index}]"
        if isinstance(child, Group):
            children.append(_node(child, child.name or where, f"{where}.children"))
        else:
            children.append(child.name)
    return GroupNode(
        name=name,
        children=tuple(children),
        strategy=group.strategy,
        intensity=group.intensity,
        period=group.period,
    )


def check_dependencies(root: Group) -> None:
    """Check that the dependencies of every service can be satisfied.

    Raises:
        SpecError: a name is unknown, a job can never finish, or there is a cycle.
    """
    services = placed_services(root)
    groups = {item[1].name for item in walk(root) if not isinstance(item, Placed)}
    for name, item in services.items():
        for other, condition in item.service.depends_on.items():
            where = f"{item.path}.depends_on[{other!r}]"
            if other in groups:
                raise SpecError(where, "is a group; name the services in it")
            if other not in services:
                known = ", ".join(services)
                hint = did_you_mean(other, services)
                raise SpecError(where, f"unknown service{hint}; known: {known}")
            if other == name:
                raise SpecError(where, "a service cannot depend on itself")
            if services[other].service.schedule is not None:
                raise SpecError(where, "has a schedule, so that it is not always there")
            _check_condition(where, services[other], condition)
            _check_order(where, item, services[other])
    _check_cycle(services, needs_of_application(root))


def _check_condition(where: str, other: Placed, condition: Condition) -> None:
    is_always = other.service.rules.policy is RestartPolicy.ALWAYS
    if condition == "exited_ok" and is_always:
        problem = f"{other.path} has restart='always', so that it never exits for good"
        raise SpecError(where, f"{problem}; give it restart='on-failure'")


def _check_order(where: str, item: Placed, other: Placed) -> None:
    """Check that *other* is not a later child in a ``rest_for_one`` group."""
    for (group, mine), (_, theirs) in zip(item.places, other.places, strict=False):
        if mine < theirs and group.strategy == "rest_for_one":
            problem = (
                f"{other.path} comes later in a group with strategy='rest_for_one', "
                f"where each child waits for the earlier ones; move it before this one"
            )
            raise SpecError(where, problem)
        if mine != theirs:
            return


def _check_cycle(services: Mapping[str, Placed], needs: Needs) -> None:
    cycle = find_cycle(needs)
    if cycle is None:
        return
    # Report an option that exists, not a dependency that rest_for_one adds.
    members = cycle[:-1]
    start = next(
        index
        for index, name in enumerate(members)
        if cycle[index + 1] in services[name].service.depends_on
    )
    turned = (*members[start:], *members[: start + 1])
    where = f"{services[turned[0]].path}.depends_on[{turned[1]!r}]"
    raise SpecError(where, f"dependency cycle: {' -> '.join(turned)}")


def check_sockets(services: Sequence[Placed]) -> None:
    """Check that the sockets of all services are compatible.

    Raises:
        SpecError: a service listens on an address twice, or two services listen on one
            with different options.
    """
    seen: dict[str, tuple[str, Listen]] = {}
    for item in services:
        own: dict[str, str] = {}
        for name, listen in item.service.sockets.items():
            where = f"{item.path}.sockets[{name!r}]"
            if listen.kind == "tcp" and listen.port == 0:
                continue  # the kernel chooses another port for each
            if (same := own.setdefault(str(listen), name)) != name:
                raise SpecError(
                    where, f"{same!r} of this service listens on {listen} already"
                )
            first, other = seen.setdefault(str(listen), (where, listen))
            if other != listen:
                problem = f"{first} listens on {listen} with different options"
                raise SpecError(where, problem)


def _services(child: AnyService | Group) -> Iterator[AnyService]:
    if isinstance(child, Group):
        for inner in child.children:
            yield from _services(inner)
    else:
        yield child
