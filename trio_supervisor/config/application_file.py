"""Make an application from a configuration file and the files that it includes."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from typing import Any, Final

from attrs import define, field, frozen

from trio_supervisor.application import Application, Command, Service, checks
from trio_supervisor.application.fields import options_of
from trio_supervisor.application.tree import placed_services
from trio_supervisor.config.field_paths import FieldPaths
from trio_supervisor.config.files import read_toml
from trio_supervisor.config.groups import GroupTables, Owners, tables_of
from trio_supervisor.config.interpolation import Layer, Variable
from trio_supervisor.config.monitors import read_monitors, read_object
from trio_supervisor.config.positions import KeyPath
from trio_supervisor.config.problems import ConfigFile, Problems
from trio_supervisor.config.services import (
    FindTarget,
    ServiceTable,
    Source,
    code_of_service,
    environment_layers,
)
from trio_supervisor.config.values import option_value
from trio_supervisor.errors import SpecError, TargetError

APPLICATION_OPTIONS: Final = {
    option.name: option
    for option in options_of(Application)
    if option.name not in ("services", "monitors")
}
_CODE: Final = ("include", "services", "monitors", "policy")
PARTS: Final = ("services", "groups", "monitors", "env", "env_file")
"""Keys that an included file may have, too."""


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
    _owners: Owners = field(factory=dict)
    _needs: dict[str, list[str]] = field(factory=dict)
    """Services that each one depends on."""
    _monitors: list[Any] = field(factory=list)
    _options: dict[str, Any] = field(factory=dict)
    _files: list[str] = field(factory=list)
    groups: GroupTables = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.groups = GroupTables(self._owners, self.problems)

    def check_names(self) -> None:
        """Add a problem for each name of a service or group that is unknown."""
        self.groups.check_names(self._services, self._needs)

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
                self.groups.read(file, value)
            elif key == "monitors":
                self._monitors += read_monitors(
                    file, value, self._find_target, self.problems
                )
            elif key == "policy":
                path: KeyPath = ("policy",)
                if not isinstance(value, str):
                    self.problems.add(file, path, 'expected "package.module:Class"')
                    continue
                table = {"target": value}
                arguments = (self._find_target, self.problems)
                found = read_object(file, path, table, *arguments)
                if found:
                    self._options["policy"] = found[0]
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
                if each in self._files:
                    continue  # this file, or one that an earlier pattern names
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

    def _read_services(self, source: Source, value: Any) -> None:
        for name, table in tables_of(
            source.file, "services", value, self._owners, self.problems
        ):
            if self._is_code_only:
                if (code := code_of_service(table)) is None:
                    continue
                table = code
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

    def finish(self, main: ConfigFile) -> Configured:
        """Return the application, once all files were read without a mistake."""
        children = self.groups.children(self._services)
        self.problems.raise_if_any()
        names = FieldPaths(children)
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
        for name, placed in placed_services(application.root).items():
            where, path = placed.path, ("services", name)
            owner = self._owners[path]
            found[where] = owner.named(path)
            for key in owner.values["services"][name]:
                option = "arguments" if key == "command" else key
                found[f"{where}.{option}"] = owner.named((*path, key))
        return found | {key: main.named((key,)) for key in self._options}
