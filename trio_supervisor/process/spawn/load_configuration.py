"""Load the application of a configuration file, once in each process."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Final

from trio_supervisor.application import Application
from trio_supervisor.config.application_file import (
    Configured,
    configure,
    configure_code,
)
from trio_supervisor.config.files import read_toml
from trio_supervisor.config.problems import ConfigFile
from trio_supervisor.config.procfile import read_procfile
from trio_supervisor.config.services import FindTarget
from trio_supervisor.errors import TargetError
from trio_supervisor.process.code import configuration_files
from trio_supervisor.process.spawn.code_source import (
    DEFAULT_NAME,
    PROCFILE,
    PYPROJECT,
    shown_path,
)
from trio_supervisor.process.spawn.environment import unsupervised_environment
from trio_supervisor.process.spawn.importing import load_function

_TABLE: Final = ("tool", "trio_supervisor")
_loaded: Final[dict[str, Configured]] = {}
"""By absolute path; children of a fork server load their source again."""
_codes: Final[dict[str, Application]] = {}


def configured(where: str, name: str = DEFAULT_NAME) -> Configured:
    """Return what the configuration file *where* declares.

    Raises:
        TargetError: the file cannot be read, or is malformed.
        SpecError: it has mistakes; all of them are listed, each with its line.
    """
    shown, path = shown_path(where), os.path.abspath(where)
    _check_name(shown, name)
    if path not in _loaded:
        environment = unsupervised_environment(os.environ)
        file = _read(path, shown, environment)
        found = configure(file, _finder(path), environment)
        configuration_files.read.update(found.files)
        _loaded[path] = found
    return _loaded[path]


def code_of_configuration(where: str, name: str = DEFAULT_NAME) -> Application:
    """Return the functions and monitors that the file *where* names.

    Raises:
        TargetError, SpecError: the file cannot be read, or one cannot be imported.
    """
    shown, path = shown_path(where), os.path.abspath(where)
    _check_name(shown, name)
    if path in _loaded:
        return _loaded[path].application
    if path not in _codes:
        file = _read(path, shown, {})
        _codes[path] = configure_code(file, _finder(path))
    return _codes[path]


def _check_name(shown: str, name: str) -> None:
    if name != DEFAULT_NAME:
        raise TargetError(f"{shown} has no {name!r}: a configuration has no names")


def _finder(path: str) -> FindTarget:
    return functools.partial(load_function, directory=os.path.dirname(path))


def _read(path: str, shown: str, environment: Mapping[str, str]) -> ConfigFile:
    name = os.path.basename(path)
    if name.partition(".")[0] == PROCFILE:
        return read_procfile(path, shown, environment)
    return read_toml(path, shown, _TABLE if name == PYPROJECT else ())
