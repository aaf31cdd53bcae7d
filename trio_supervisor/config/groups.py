"""Read groups from their tables, and put services into them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import define, field

from trio_supervisor.application import Command, Group, Service, checks
from trio_supervisor.application.fields import options_of
from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.config.positions import KeyPath
from trio_supervisor.config.problems import ConfigFile, Problems
from trio_supervisor.config.values import option_value
from trio_supervisor.errors import SpecError

GROUP_OPTIONS: Final = {
    option.name: option for option in options_of(Group) if option.name != "name"
}
# As `Group` allows; its check would come too late for the recursion here.
_MAX_DEPTH: Final = 30
Owners = dict[KeyPath, ConfigFile]
"""File of each service and group."""


def tables_of(
    file: ConfigFile, key: str, value: Any, owners: Owners, problems: Problems
) -> list[tuple[str, dict[str, Any]]]:
    """Return the tables of the table *value* by name, and note their *file*."""
    if not isinstance(value, dict):
        problems.add(file, (key,), f"expected tables [{key}.NAME]")
        return []
    found = []
    for name, table in value.items():
        path: KeyPath = (key, name)
        if not isinstance(table, dict):
            problem = f"expected a table [{key}.{name}]"
            problems.add(file, path, f"{problem}, got {checks.shown(table)}")
        elif path in owners:
            first = owners[path].place(path)
            problems.add(file, path, f"already declared: {first}")
        else:
            owners[path] = file
            found.append((name, table))
    return found


@define
class GroupTables:
    """The tables ``[groups.NAME]`` of all files."""

    owners: Owners
    _problems: Problems
    _groups: dict[str, dict[str, Any]] = field(factory=dict)

    def read(self, file: ConfigFile, value: Any) -> None:
        """Add the groups in the tables *value* of *file*."""
        for name, table in tables_of(
            file, "groups", value, self.owners, self._problems
        ):
            self._groups[name] = found = {}
            for key, item in table.items():
                path: KeyPath = ("groups", name, key)
                if key not in GROUP_OPTIONS:
                    self._problems.unknown(file, path, GROUP_OPTIONS)
                elif key == "children":
                    found[key] = self._names(file, path, item)
                else:
                    try:
                        found[key] = option_value(GROUP_OPTIONS[key], item, "")
                    except SpecError as exc:
                        self._problems.add_error(file, path[:-1], exc)
            if "children" not in table:
                problem = "has no children: a list of names of services and groups"
                self._problems.add(file, ("groups", name), problem)

    def _names(self, file: ConfigFile, path: KeyPath, value: Any) -> list[str]:
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return value
        self._problems.add(
            file, path, "expected a list of names of services and groups"
        )
        return []

    def check_names(
        self, services: Iterable[str], needs: Mapping[str, list[str]]
    ) -> None:
        """Add a problem for each name of a service or group that is unknown.

        Args:
            services: Names of all services.
            needs: Services that each one depends on.
        """
        known = [*services, *self._groups]
        for name, others in needs.items():
            for other in others:
                if other not in known:
                    path: KeyPath = ("services", name, "depends_on", other)
                    file = self.owners[path[:2]]
                    self._problems.unknown(file, path, services, "service")
            if name in self._groups:
                path = ("groups", name)
                service = self.owners["services", name].place(("services", name))
                problem = f"a service has this name: {service}"
                self._problems.add(self.owners[path], path, problem)
        for name, group in self._groups.items():
            for number, child in enumerate(group.get("children", ())):
                if child not in known:
                    hint = did_you_mean(child, known)
                    self._problems.add(
                        self.owners["groups", name],
                        ("groups", name, "children", number),
                        f"unknown service or group {child!r}{hint}",
                    )

    def children(
        self, services: Mapping[str, Service | Command | None]
    ) -> list[Service | Command | Group]:
        """Return services and groups, each group where its first child is."""
        parents: dict[str, str] = {}
        for name, group in self._groups.items():
            for number, child in enumerate(group["children"]):
                path: KeyPath = ("groups", name, "children", number)
                owner = self.owners["groups", name]
                if child in parents:
                    problem = f"{child!r} is in group {parents[child]!r} already"
                    self._problems.add(owner, path, problem)
                parents.setdefault(child, name)
        for name in self._groups:
            seen = [name]
            while (parent := parents.get(seen[-1])) is not None:
                if parent in seen:
                    problem = f"contains itself: {' in '.join([*seen, parent])}"
                    path = ("groups", name)
                    self._problems.add(self.owners[path], path, problem)
                    return []
                seen.append(parent)
            if len(seen) > _MAX_DEPTH:
                problem = f"groups nested deeper than {_MAX_DEPTH} levels"
                path = ("groups", name)
                self._problems.add(self.owners[path], path, problem)
                return []
        made: dict[str, Service | Command | Group] = {}
        found: list[Service | Command | Group] = []
        for name in (*services, *self._groups):
            top = name
            while top in parents:
                top = parents[top]
            if top not in made:
                made[top] = self._child(top, services)
                found.append(made[top])
        return found

    def _child(
        self, name: str, services: Mapping[str, Service | Command | None]
    ) -> Service | Command | Group:
        if (service := services.get(name)) is not None:
            return service
        options = dict(self._groups[name])
        children = [self._child(each, services) for each in options.pop("children")]
        return Group(children, name=name, **options)
