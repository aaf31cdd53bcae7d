"""Make a service from its table."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, frozen

from trio_supervisor.application import AnyService, Command, Probe, Service
from trio_supervisor.application.fields import OptionField, options_of
from trio_supervisor.application.templates import FILLED, fill, is_template
from trio_supervisor.config.files import read_environment_file, variable_of
from trio_supervisor.config.interpolation import (
    InterpolationError,
    Layer,
    Text,
    Variable,
    Variables,
)
from trio_supervisor.config.positions import KeyPath
from trio_supervisor.config.problems import ConfigFile, Problems
from trio_supervisor.config.values import number_of, option_value, words_of
from trio_supervisor.config.web_kinds import (
    NOT_IN_WEB,
    WEB_KEYS,
    WEB_KINDS,
    code_of,
    make_web_service,
    web_value,
)
from trio_supervisor.errors import SpecError, TargetError

FindTarget = Callable[[str], Any]
"""Imports ``module:function``, or raises TargetError or SpecError."""

_SERVICE: Final = {option.name: option for option in options_of(Service)}
_COMMAND: Final = {option.name: option for option in options_of(Command)}
DERIVED: Final = ("name", "arguments", "target", "expand")
"""Options that are no keys of a service's table, or keys of another kind."""
KINDS: Final = ("command", "target", *WEB_KINDS)
"""A service's table has exactly one of these keys: it says what the service runs."""
OWN_KEYS: Final = (*KINDS, "env_file")
"""Keys of a service's table that are no options."""
_OF_WEB: Final = {key for keys in WEB_KEYS.values() for key in keys}
_KEYS: Final = {*_SERVICE, *_COMMAND, *OWN_KEYS, *_OF_WEB} - {*DERIVED} | {"target"}


@frozen
class Source:
    """A file, and the variables that all services in it have."""

    file: ConfigFile
    layers: tuple[Layer, ...]
    """The first one is the environment of this process."""

    @property
    def directory(self) -> str:
        """What relative paths are relative to."""
        return os.path.dirname(self.file.path)


def environment_layers(
    file: ConfigFile,
    path: KeyPath,
    env_file: Any,
    table: Any,
    key: str,
    environment: Mapping[str, str],
    problems: Problems,
) -> tuple[Layer, ...]:
    """Return the variables of the files *env_file*, and of the table *key*."""
    directory = os.path.dirname(file.path)
    names = env_file if isinstance(env_file, list) else [env_file]
    layers: list[Layer] = []
    for name in names if env_file is not None else ():
        if not isinstance(name, str):
            problems.add(file, (*path, "env_file"), "expected a path as a string")
            continue
        try:
            where = os.path.join(directory, name)
            layers.append(read_environment_file(where, name))
        except TargetError as exc:
            problems.add(file, (*path, "env_file"), str(exc))
    if table is None:
        return tuple(layers)
    if not isinstance(table, dict):
        problems.add(file, (*path, key), "expected a table of variables")
        return tuple(layers)
    found: dict[str, Variable] = {}
    for name, value in table.items():
        try:
            found[name] = variable_of(value, directory, environment, "")
        except SpecError as exc:
            problems.add_error(file, (*path, key, name), exc)
    return (*layers, found)


@define
class ServiceTable:
    """One table ``[services.NAME]``."""

    _source: Source
    _name: str
    _table: dict[str, Any]
    _problems: Problems
    _find_target: FindTarget
    _environment: Mapping[str, str]

    def make(self) -> AnyService | None:
        """Return the service; None: the problems say what is wrong."""
        before = len(self._problems)
        table = self._table
        if (kind := self._kind()) is None:
            return None
        layers = environment_layers(
            self._source.file,
            self._path,
            table.get("env_file"),
            table.get("environment"),
            "environment",
            self._environment,
            self._problems,
        )
        variables = Variables((*self._source.layers, *layers))
        options: dict[str, Any] = {"environment": self._variables(variables)}
        options |= self._options(variables, kind)
        options.setdefault("directory", self._source.directory or None)
        make, subject = self._subject(variables, kind)
        if len(self._problems) > before:
            return None
        texts = [value for key, value in options.items() if key in FILLED]
        options["expand"] = _has_template((subject if make is Command else (), texts))
        try:
            if kind in WEB_KINDS:
                return make_web_service(make, subject, self._name, options)
            made: AnyService = make(self._name, subject, **options)
        except SpecError as exc:
            at = exc.field.replace("arguments", "command", 1).replace("app", kind, 1)
            self._add(SpecError(at, exc.problem))
            return None
        return made

    def _kind(self) -> str | None:
        """Return the key that says what it runs; None: there is not one such key."""
        kinds = [key for key in KINDS if key in self._table]
        if len(kinds) == 1:
            return kinds[0]
        for key in self._table:
            if not kinds and key not in _KEYS:
                self._problems.unknown(self._source.file, (*self._path, key), _KEYS)
        found = " and ".join(kinds) or "none"
        allowed = f"{', '.join(KINDS[:-1])} and {KINDS[-1]}"
        problem = f"expected one of {allowed}, got {found}"
        self._problems.add(self._source.file, self._path, problem)
        return None

    def _subject(self, variables: Variables, kind: str) -> tuple[Any, Any]:
        """Return what makes the service, and what it runs."""
        if kind == "command":
            return Command, self._command(variables)
        if kind == "target":
            return Service, self._target()
        return self._find_target(WEB_KINDS[kind]), self._table[kind]

    @property
    def _path(self) -> KeyPath:
        return ("services", self._name)

    def _add(self, error: SpecError) -> None:
        self._problems.add_error(self._source.file, self._path, error)

    def _variables(self, variables: Variables) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, value in variables.environment().items():
            key = f"environment[{name!r}]"
            if isinstance(value, Text):
                found[name] = value.text
                self._check_braces(value.text, key)
            else:
                self._add(SpecError(key, str(value)))
        return found

    def _command(self, variables: Variables) -> Any:
        value = self._replaced(self._table["command"], variables, "command")
        try:
            return words_of(value, "command")
        except SpecError as exc:
            self._add(exc)
            return None

    def _target(self) -> Any:
        name = self._table["target"]
        if not isinstance(name, str):
            problem = 'expected "package.module:function"'
            self._add(SpecError("target", f"{problem}, got {name!r:.80}"))
            return None
        try:
            return self._find_target(name)
        except (TargetError, SpecError) as exc:
            self._add(SpecError("target", str(exc)))
            return None

    def _options(self, variables: Variables, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        known = _COMMAND if kind == "command" else _SERVICE
        web = WEB_KEYS.get(kind, ())
        names = {*known, *OWN_KEYS, *web} - {*DERIVED} | {*KINDS}
        names -= {*NOT_IN_WEB} - {"target"} if web else set()
        for key, value in self._table.items():
            if key not in names:
                self._problems.unknown(self._source.file, (*self._path, key), names)
            elif key not in OWN_KEYS and key != "environment":
                before = len(self._problems)
                if key not in web or key == "bind":  # see `web_kinds.code_of`
                    value = self._replaced(value, variables, key)
                if len(self._problems) > before:
                    continue
                try:
                    found[key] = self._value(known.get(key), key, value)
                except SpecError as exc:
                    self._add(exc)
        return found

    def _value(self, option: OptionField | None, key: str, value: Any) -> Any:
        """Return the value of a key; *option*: None: a key of web services."""
        directory = self._source.directory
        if option is None:
            return web_value(key, value, directory)
        if isinstance(value, str):
            value = number_of(option, value)
        return option_value(option, value, directory)

    def _replaced(self, value: Any, variables: Variables, field: str) -> Any:
        """Return *value* with references in its strings replaced."""
        match value:
            case str():
                return self._replaced_text(value, variables, field)
            case list():
                return [
                    self._replaced(item, variables, f"{field}[{n}]")
                    for n, item in enumerate(value)
                ]
            case dict() if field != "state":
                return {
                    key: self._replaced(item, variables, f"{field}[{key!r}]")
                    for key, item in value.items()
                }
        return value

    def _replaced_text(self, text: str, variables: Variables, field: str) -> str:
        try:
            found = variables.replace(text)
        except InterpolationError as exc:
            self._add(SpecError(field, str(exc)))
            return text
        if found.is_secret:
            problem = (
                "contains a secret, which every user of this machine could see; let "
                "the program read it from its environment"
            )
            self._add(SpecError(field, problem))
        if not self._check_braces(found.text, field):
            return found.text
        if _is_filled(field):
            return found.text
        text, other = (fill(found.text, self._name, index) for index in (0, 1))
        if text != other:
            problem = (
                f"is the same for all workers; {{index}} and {{name}} are replaced in "
                f"command, {', '.join(FILLED[1:])}"
            )
            self._add(SpecError(field, problem))
        return text

    def _check_braces(self, text: str, field: str) -> bool:
        try:
            fill(text, self._name, 0, field)
        except SpecError as exc:
            self._add(exc)
            return False
        return True


def code_of_service(table: Any) -> dict[str, Any] | None:
    """Return what a worker needs of *table* to run its code; None: it has none."""
    if "target" in table:
        return {key: table[key] for key in ("target", "backend") if key in table}
    return code_of(table) if any(key in table for key in WEB_KINDS) else None


def _is_filled(field: str) -> bool:
    first = re.split(r"\W", field, maxsplit=1)[0]
    return first == "command" or first in FILLED


def _has_template(value: Any) -> bool:
    match value:
        case str():
            return is_template(value)
        case list() | tuple():
            return any(map(_has_template, value))
        case dict():
            return any(map(_has_template, value.values()))
        case Probe():
            return bool(value.template) or _has_template(value.arguments)
    return False
