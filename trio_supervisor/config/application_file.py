"""Make an application from a configuration file and the files that it includes."""

from __future__ import annotations

import glob
import inspect
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field, frozen

from trio_supervisor.application import Application, Command, Group, Service, checks
from trio_supervisor.application.fields import options_of
from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.config.files import read_toml
from trio_supervisor.config.interpolation import Layer, Variable
from trio_supervisor.config.positions import KeyPath
from trio_supervisor.config.problems import ConfigFile, Problems, parts_of
from trio_supervisor.config.services import (
    FindTarget,
    ServiceTable,
    Source,
    environment_layers,
)
from trio_supervisor.config.values import option_value
from trio_supervisor.errors import SpecError, TargetError

APPLICATION_OPTIONS: Final = {
    option.name: option
    for option in options_of(Application)
    if option.name not in ("services", "monitors")
}
GROUP_OPTIONS: Final = {
    option.name: option for option in options_of(Group) if option.name != "name"
}
_CODE: Final = ("include", "services", "monitors")
PARTS: Final = ("services", "groups", "monitors", "env", "env_file")
"""Keys that an included file may have, too."""
_PLACE: Final = re.compile(r"services(?:\[\d+\](?:\.children(?=\[))?)+")


@frozen(kw_only=True)
class Configured:
    """An application, and where its parts were declared."""

    application: Application
    files: tuple[str, ...]
    """Paths of the files that were read, without those of secrets."""


def configure(
    file: ConfigFile, find_target: FindTarget, environment: Mapping[str, str]
) -> Configured:
    """Return the application that *file* declares.

    Args:
        find_target: Imports the functions of services, and monitors.
        environment: That of this process, for ``${VAR}``.

    Raises:
        SpecError: there are mistakes; all of them are listed.
    """
    reader = _Reader(find_target, environment)
    reader.read(file, is_main=True)
    reader.check_names()
    reader.problems.raise_if_any()
    return reader.finish(file)


def configure_code(file: ConfigFile, find_target: FindTarget) -> Application:
    """Return the functions and monitors that *file* names, and nothing else of it.

    For a worker: it may run as a user who can read neither secrets nor files of
    variables, and needs no more than its function.

    Raises:
        SpecError: one cannot be imported, or an included file cannot be read.
    """
    reader = _Reader(find_target, {}, is_code_only=True)
    reader.read(file, is_main=True)
    reader.problems.raise_if_any()
    return reader.finish(file).application


@define
class _Reader:
    _find_target: FindTarget
    _environment: Mapping[str, str]
    _is_code_only: bool = field(default=False, kw_only=True)
    problems: Problems = field(factory=Problems)
    _services: dict[str, Service | Command | None] = field(factory=dict)
    _owners: dict[KeyPath, ConfigFile] = field(factory=dict)
    """File of each service and group."""
    _needs: dict[str, list[str]] = field(factory=dict)
    """Services that each one depends on."""
    _groups: dict[str, dict[str, Any]] = field(factory=dict)
    _monitors: list[Any] = field(factory=list)
    _options: dict[str, Any] = field(factory=dict)
    _files: list[str] = field(factory=list)

    def read(
        self, file: ConfigFile, *, is_main: bool, outer: tuple[Layer, ...] = ()
    ) -> None:
        """Read *file*, whose services have the variables of *outer* as well."""
        self._files.append(file.path)
        values = file.values
        if self._is_code_only:
            values = {key: values[key] for key in _CODE if key in values}
        if not is_main:
            known: tuple[str, ...] = PARTS
        else:
            known = ("include", *PARTS, *APPLICATION_OPTIONS)
            process = {name: Variable(text) for name, text in self._environment.items()}
            outer = (process,)
        own = environment_layers(
            file,
            (),
            values.get("env_file"),
            values.get("env"),
            "env",
            self._environment,
            self.problems,
        )
        self._note_environment_files(file, values.get("env_file"))
        source = Source(file, (*outer, *own))
        for key, value in values.items():
            if key not in known:
                self.problems.unknown(file, (key,), known)
            elif key == "services":
                self._read_services(source, value)
            elif key == "groups":
                self._read_groups(file, value)
            elif key == "monitors":
                self._read_monitors(file, value)
            elif key in APPLICATION_OPTIONS:
                self._read_option(file, key, value)
        if is_main and "include" in values:
            self._include(source, values["include"])

    def _note_environment_files(self, file: ConfigFile, value: Any) -> None:
        names = value if isinstance(value, list) else [value]
        directory = os.path.dirname(file.path)
        paths = [
            os.path.join(directory, each) for each in names if isinstance(each, str)
        ]
        self._files += paths

    def _include(self, source: Source, patterns: Any) -> None:
        file = source.file
        if not isinstance(patterns, list):
            problem = 'expected a list of patterns such as ["conf.d/*.toml"]'
            self.problems.add(file, ("include",), problem)
            return
        for number, pattern in enumerate(patterns):
            path: KeyPath = ("include", number)
            if not checks.is_text(pattern):
                self.problems.add(file, path, "expected a string")
                continue
            full = os.path.join(source.directory, pattern)
            found = sorted(glob.glob(full))
            if not found and not glob.has_magic(pattern):
                self.problems.add(file, path, f"{pattern}: file not found")
            for each in found:
                shown = os.path.join(
                    os.path.dirname(file.shown), os.path.relpath(each, source.directory)
                )
                try:
                    included = read_toml(each, shown)
                except TargetError as exc:
                    self.problems.add(file, path, str(exc))
                    continue
                self.read(included, is_main=False, outer=source.layers)

    def _read_option(self, file: ConfigFile, key: str, value: Any) -> None:
        try:
            option = APPLICATION_OPTIONS[key]
            self._options[key] = option_value(option, value, "")
        except SpecError as exc:
            self.problems.add_error(file, (), exc)

    def _tables(
        self, file: ConfigFile, key: str, value: Any
    ) -> list[tuple[str, dict[str, Any]]]:
        """Return the tables of the table *value*, and note where they are."""
        if not isinstance(value, dict):
            self.problems.add(file, (key,), f"expected tables [{key}.NAME]")
            return []
        found = []
        for name, table in value.items():
            path: KeyPath = (key, name)
            if not isinstance(table, dict):
                problem = f"expected a table [{key}.{name}]"
                self.problems.add(file, path, f"{problem}, got {checks.shown(table)}")
            elif path in self._owners:
                first = self._owners[path].place(path)
                self.problems.add(file, path, f"already declared: {first}")
            else:
                self._owners[path] = file
                found.append((name, table))
        return found

    def _read_services(self, source: Source, value: Any) -> None:
        for name, table in self._tables(source.file, "services", value):
            if self._is_code_only:
                if "target" not in table:
                    continue
                table = {
                    key: table[key] for key in ("target", "backend") if key in table
                }
            self._services[name] = ServiceTable(
                source,
                name,
                table,
                self.problems,
                self._find_target,
                self._environment,
            ).make()
            needs = table.get("depends_on")
            self._needs[name] = list(needs) if isinstance(needs, dict) else []
            files = table.get("env_file")
            self._note_environment_files(source.file, files)

    def _read_groups(self, file: ConfigFile, value: Any) -> None:
        for name, table in self._tables(file, "groups", value):
            self._groups[name] = found = {}
            for key, item in table.items():
                path: KeyPath = ("groups", name, key)
                if key not in GROUP_OPTIONS:
                    self.problems.unknown(file, path, GROUP_OPTIONS)
                elif key == "children":
                    found[key] = self._names(file, path, item)
                else:
                    try:
                        found[key] = option_value(GROUP_OPTIONS[key], item, "")
                    except SpecError as exc:
                        self.problems.add_error(file, path[:-1], exc)
            if "children" not in table:
                problem = "has no children: a list of names of services and groups"
                self.problems.add(file, ("groups", name), problem)

    def _names(self, file: ConfigFile, path: KeyPath, value: Any) -> list[str]:
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return value
        self.problems.add(file, path, "expected a list of names of services and groups")
        return []

    def _read_monitors(self, file: ConfigFile, value: Any) -> None:
        if not isinstance(value, list):
            self.problems.add(file, ("monitors",), "expected tables [[monitors]]")
            return
        for number, table in enumerate(value):
            path: KeyPath = ("monitors", number)
            if not isinstance(table, dict) or not isinstance(table.get("target"), str):
                problem = 'expected a table with target = "module:Class"'
                self.problems.add(file, path, problem)
                continue
            self._read_monitor(file, path, dict(table))

    def _read_monitor(
        self, file: ConfigFile, path: KeyPath, table: dict[str, Any]
    ) -> None:
        try:
            make = self._find_target(table.pop("target"))
        except (TargetError, SpecError) as exc:
            self.problems.add(file, (*path, "target"), str(exc))
            return
        known = _parameters_of(make)
        for key in table:
            if known is not None and key not in known:
                self.problems.unknown(file, (*path, key), [*known, "target"])
                return
        try:
            self._monitors.append(make(**table))
        except SpecError as exc:
            self.problems.add_error(file, path, exc)
        except Exception as exc:  # a constructor of the application
            self.problems.add(file, path, f"{type(exc).__name__}: {exc}")

    def finish(self, main: ConfigFile) -> Configured:
        """Return the application, once all files were read without a mistake."""
        children = self._children()
        self.problems.raise_if_any()
        names = _Names(children)
        try:
            application = Application(
                children, monitors=self._monitors, **self._options
            )
        except SpecError as exc:
            path = names.key_of(exc.field)
            owner = self._owners.get(path[:2], main)
            self.problems.add(owner, path, names.in_text(exc.problem))
            self.problems.raise_if_any()
            raise

        application.places = self._places(application, main)
        return Configured(application=application, files=tuple(self._files))

    def _places(self, application: Application, main: ConfigFile) -> dict[str, str]:
        """Return file, line and key of each option that was given, by its path."""
        found: dict[str, str] = {}
        for service in application.services:
            where, path = application.path(service.name), ("services", service.name)
            owner = self._owners[path]
            found[where] = owner.named(path)
            for key in owner.values["services"][service.name]:
                name = "arguments" if key == "command" else key
                found[f"{where}.{name}"] = owner.named((*path, key))
        return found | {key: main.named((key,)) for key in self._options}

    def check_names(self) -> None:
        """Add a problem for each name of a service or group that is unknown."""
        known = [*self._services, *self._groups]
        for name, needs in self._needs.items():
            for other in needs:
                if other not in known:
                    path: KeyPath = ("services", name, "depends_on", other)
                    file = self._owners[path[:2]]
                    self.problems.unknown(file, path, self._services, "service")
            if name in self._groups:
                path = ("groups", name)
                service = self._owners["services", name].place(("services", name))
                problem = f"a service has this name: {service}"
                self.problems.add(self._owners[path], path, problem)
        for name, group in self._groups.items():
            for number, child in enumerate(group.get("children", ())):
                if child not in known:
                    hint = did_you_mean(child, known)
                    self.problems.add(
                        self._owners["groups", name],
                        ("groups", name, "children", number),
                        f"unknown service or group {child!r}{hint}",
                    )

    def _children(self) -> list[Service | Command | Group]:
        """Return services and groups, each group where its first child is."""
        parents: dict[str, str] = {}
        for name, group in self._groups.items():
            for number, child in enumerate(group["children"]):
                path: KeyPath = ("groups", name, "children", number)
                owner = self._owners["groups", name]
                if child in parents:
                    problem = f"{child!r} is in group {parents[child]!r} already"
                    self.problems.add(owner, path, problem)
                parents.setdefault(child, name)
        for name in self._groups:
            seen = [name]
            while (parent := parents.get(seen[-1])) is not None:
                if parent in seen:
                    problem = f"contains itself: {' in '.join([*seen, parent])}"
                    path = ("groups", name)
                    self.problems.add(self._owners[path], path, problem)
                    return []
                seen.append(parent)
        made: dict[str, Service | Command | Group] = {}
        found: list[Service | Command | Group] = []
        for name in (*self._services, *self._groups):
            top = name
            while top in parents:
                top = parents[top]
            if top not in made:
                made[top] = self._child(top)
                found.append(made[top])
        return found

    def _child(self, name: str) -> Service | Command | Group:
        if (service := self._services.get(name)) is not None:
            return service
        options = dict(self._groups[name])
        children = [self._child(each) for each in options.pop("children")]
        return Group(children, name=name, **options)


def _parameters_of(make: Callable[..., Any]) -> list[str] | None:
    """Return the names of the parameters of *make*; None: unknown, or any."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return [each.name for each in parameters]


@define
class _Names:
    """Turns paths such as ``services[0].children[1]`` into keys of the file."""

    _children: list[Service | Command | Group]

    def key_of(self, field: str) -> KeyPath:
        """Return the key that the path *field* of a `SpecError` means."""
        match = _PLACE.match(field)
        if match is None:
            return parts_of(field)
        owner = self._owner_of(match[0])
        rest = parts_of(field[match.end() :])
        if isinstance(owner, Command) and rest[:1] == ("arguments",):
            rest = ("command", *rest[1:])
        kind = "groups" if isinstance(owner, Group) else "services"
        return (kind, str(owner.name), *rest)

    def in_text(self, text: str) -> str:
        """Return *text* with each such path replaced."""

        def name(match: re.Match[str]) -> str:
            kind, owner = self.key_of(match[0])[:2]
            return f"{kind}.{owner}"

        return _PLACE.sub(name, text)

    def _owner_of(self, place: str) -> Service | Command | Group:
        children: Any = self._children
        owner: Any = None
        for number in re.findall(r"\[(\d+)\]", place):
            owner = children[int(number)]
            children = getattr(owner, "children", ())
        found: Service | Command | Group = owner
        return found
