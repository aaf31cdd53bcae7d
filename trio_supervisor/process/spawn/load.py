"""Import the application that a target names; errors name the failing line."""

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
from trio_supervisor.application import Application
from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.errors import (
    PlatformError,
    SpecError,
    SupervisorError,
    TargetError,
)
from trio_supervisor.process.imports.monkey_patches import check_not_patched
from trio_supervisor.process.shortage import shortage_of, text_of
from trio_supervisor.process.spawn.code_source import (
    current_directory,
    is_config,
    is_path,
    shown_path,
    split_target,
)


def load_application(target: str) -> Application:
    """Import *target*, a path or a module, optionally with ``:name``.

    The directory of a path, or the current one for a module, is put first on
    ``sys.path``, as for a script.

    Raises:
        TargetError: it cannot be imported, or contains no application.
        SpecError: the declaration of the application is invalid.
        PlatformError: the import has patched functions that trio needs.
    """
    where, name = split_target(target)
    if is_config(where):
        from trio_supervisor.process.spawn.load_configuration import configured

        return configured(where, name).application
    if not where:
        raise TargetError(
            f"{target!r} names neither a file nor a module; expected PATH.py[:NAME], "
            f"MODULE[:NAME], PATH.toml or Procfile"
        )
    # Before the import, which may change the working directory.
    shown = shown_path(where) if is_path(where) else where
    try:
        module = _import_path(where) if is_path(where) else _import_module(where)
    except Exception:
        check_not_patched(shown)  # a patch may be the cause of the failure
        raise
    where = shown
    check_not_patched(where)
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise TargetError(f"{where} has no {name!r}; {_hint(module, where)}")
        found = getattr(found, part)
    if not isinstance(found, Application):
        kind = type(found).__name__
        if _is_of_a_copy(found):
            raise TargetError(
                f"{where}: {name!r} is an Application of another copy of "
                f"trio_supervisor: the import has loaded the package a second time "
                f"(from another directory, or after removing it from sys.modules)"
            )
        raise TargetError(
            f"{where}: {name!r} is of type {kind}, expected an Application; "
            f"{_hint(module, where)}"
        )
    return found


def _is_of_a_copy(found: object) -> bool:
    return any(
        base.__name__ == "Application"
        and base.__module__.startswith("trio_supervisor.")
        for base in type(found).__mro__
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
        found: Any = _import_module(where)
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


def files_of_target(target: str) -> set[Path]:
    """Return the file of *target*, which was loaded, and those of its packages."""
    where, _ = split_target(target)
    if is_path(where):
        return {Path(where).resolve()}
    parts = where.split(".")
    names = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    files = (getattr(sys.modules.get(name), "__file__", None) for name in names)
    return {Path(file).resolve() for file in files if file}


def _hint(module: ModuleType, where: str) -> str:
    names = [n for n, value in vars(module).items() if isinstance(value, Application)]
    if names:
        return "name one of: " + ", ".join(f"{where}:{name}" for name in names)
    return "define one as: application = Application(services=[...])"


def _import_path(where: str) -> ModuleType:
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


def _import_module(where: str) -> ModuleType:
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
        place = _line_of(exc, self._directory) or place
        if isinstance(exc, SpecError):
            raise SpecError(f"{place}: {exc.field}", exc.problem) from None
        raise TargetError(f"{place}: {_named(exc)}") from None


def _exhausted(exc: BaseException) -> OSError | None:
    """Return the resource shortage that ended an import; None: another cause.

    An OSError of the application's own code is not counted as a shortage.
    """
    root = exc.__context__ if isinstance(exc, SupervisorError) else exc
    if isinstance(root, MemoryError | ImportError | RuntimeError):
        return shortage_of(root)
    return None


def import_error(exc: BaseException, target: str) -> SupervisorError:
    """Return an exception of `load_application` as an error that names the line."""
    if (problem := _exhausted(exc)) is not None:
        if isinstance(exc, SupervisorError):  # it names the line
            return PlatformError(f"{exc}: {text_of(problem)}")
        return PlatformError(f"{_line_of(exc, None) or target}: {text_of(problem)}")
    if isinstance(exc, SupervisorError):
        return exc
    return TargetError(f"{_line_of(exc, None) or target}: {_named(exc)}")


def _line_of(exc: BaseException, directory: str | None) -> str | None:
    frames = [
        frame
        for frame in traceback.extract_tb(exc.__traceback__)
        if "importlib" not in frame.filename
        and not frame.filename.startswith((PREFIX, "<frozen ", "<attrs "))
    ]
    if not frames:
        return None
    return f"{shown_path(frames[-1].filename, directory)}, line {frames[-1].lineno}"


def _named(exc: BaseException) -> str:
    try:
        text = " ".join(str(exc).split())
    except Exception as other:
        text = f"its str() raised {type(other).__name__}"
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
