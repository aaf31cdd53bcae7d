"""Import modules and files; errors name the failing line."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from trio_supervisor._location import PREFIX
from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.errors import SpecError, TargetError
from trio_supervisor.process.imports.monkey_patches import check_not_patched
from trio_supervisor.process.spawn.code_source import (
    current_directory,
    is_path,
    shown_path,
)


def load_function(name: str, directory: str) -> Any:
    """Import the function ``module:name`` that a configuration file names.

    Args:
        directory: Put first on ``sys.path``.

    Raises:
        TargetError: it cannot be imported.
        SpecError: the import raised it.
    """
    where, colon, attribute = name.partition(":")
    if not colon or not attribute or is_path(where):
        raise TargetError(f"expected 'package.module:function', got {name!r}")
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        found: Any = import_module(where)
    except Exception:
        check_not_patched(where)
        raise
    check_not_patched(where)
    for part in attribute.split("."):
        if not hasattr(found, part):
            hint = did_you_mean(part, vars(found) if hasattr(found, "__dict__") else ())
            raise TargetError(f"{where} has no {part!r}{hint}")
        found = getattr(found, part)
    return found


def import_path(where: str) -> ModuleType:
    """Import the file *where*, and put its directory first on ``sys.path``.

    Raises:
        TargetError, SpecError: it cannot be imported.
    """
    path, shown = Path(where).absolute(), shown_path(where)
    name, other = path.stem, f"trio_supervisor_target_{path.stem}"
    for known in (name, other):
        module = sys.modules.get(known)
        if module is not None and getattr(module, "__file__", None) == str(path):
            return module  # its file may have been removed
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "file not found"
        raise TargetError(f"{shown}: {what}")
    directory = str(path.parent)
    if directory not in sys.path:
        sys.path.insert(0, directory)
    if name in sys.modules:
        name = other  # a service file may have the name of a loaded module: json.py
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{shown}: not a Python file")
    if isinstance(spec.loader, SourceFileLoader):
        spec.loader = _Uncached(name, str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _LocateErrors(shown):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


class _Uncached(SourceFileLoader):
    """Compiles the source file, ignoring the bytecode cache.

    The cache counts as current if the source has the same size and was changed within
    the same second: a reload would not notice ``VERSION = 1`` becoming 2.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Return the module's code."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def import_module(where: str) -> ModuleType:
    """Import the module *where*, also from the current directory.

    Raises:
        TargetError, SpecError: it cannot be imported.
    """
    if where in sys.modules:
        return sys.modules[where]
    with suppress(OSError):  # the directory may be gone
        if os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.insert(0, os.getcwd())
    if not all(part.isidentifier() for part in where.split(".")):
        raise TargetError(
            f"{where!r} is neither a path ending in .py nor a module name"
        )
    with _LocateErrors(where):
        return importlib.import_module(where)


class _LocateErrors:
    """Converts any exception of an import into one line that names the place."""

    def __init__(self, where: str) -> None:
        self._where = where
        # Before the import, which may change it.
        self._directory = current_directory()

    def __enter__(self) -> None:
        return

    def __exit__(
        self, type_: type[BaseException] | None, exc: BaseException | None, _: object
    ) -> None:
        if exc is None or isinstance(exc, KeyboardInterrupt):
            return
        if (
            isinstance(exc, ModuleNotFoundError)
            and exc.name
            and f"{self._where}.".startswith(f"{exc.name}.")
        ):
            raise TargetError(f"no module named {exc.name!r}") from None
        place = self._where
        if isinstance(exc, SyntaxError):
            if exc.filename:
                place = (
                    f"{shown_path(exc.filename, self._directory)}, line {exc.lineno}"
                )
            raise TargetError(f"{place}: SyntaxError: {exc.msg}") from None
        place = line_of(exc, self._directory) or place
        if isinstance(exc, SpecError):
            raise SpecError(f"{place}: {exc.field}", exc.problem) from None
        raise TargetError(f"{place}: {named(exc)}") from None


def line_of(exc: BaseException, directory: str | None) -> str | None:
    """Return the file and line of the application that raised *exc*, if any."""
    frames = [
        frame
        for frame in traceback.extract_tb(exc.__traceback__)
        if "importlib" not in frame.filename
        and not frame.filename.startswith((PREFIX, "<frozen ", "<attrs "))
    ]
    if not frames:
        return None
    return f"{shown_path(frames[-1].filename, directory)}, line {frames[-1].lineno}"


def named(exc: BaseException) -> str:
    """Return class and message of *exc* on one line."""
    try:
        text = " ".join(str(exc).split())
    except Exception as other:
        text = f"its str() raised {type(other).__name__}"
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
