"""Import the application that a target names; errors name the failing line."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from trio_supervisor.application import Application
from trio_supervisor.errors import PlatformError, SupervisorError, TargetError
from trio_supervisor.process.imports.monkey_patches import check_not_patched
from trio_supervisor.process.shortage import shortage_of, text_of
from trio_supervisor.process.spawn.code_source import (
    is_config,
    is_path,
    shown_path,
    split_target,
)
from trio_supervisor.process.spawn.importing import (
    import_module,
    import_path,
    line_of,
    named,
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
        # Imported here: most applications are Python files, and it takes 20 ms.
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
        module = import_path(where) if is_path(where) else import_module(where)
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


def load_code(target: str) -> Application:
    """Import *target* where only its functions are needed: in a worker.

    Raises:
        TargetError, SpecError, PlatformError: as for `load_application`.
    """
    where, name = split_target(target)
    if not is_config(where):
        return load_application(target)
    from trio_supervisor.process.spawn.load_configuration import code_of_configuration

    return code_of_configuration(where, name)


def _is_of_a_copy(found: object) -> bool:
    return any(
        base.__name__ == "Application"
        and base.__module__.startswith("trio_supervisor.")
        for base in type(found).__mro__
    )


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
        return PlatformError(f"{line_of(exc, None) or target}: {text_of(problem)}")
    if isinstance(exc, SupervisorError):
        return exc
    return TargetError(f"{line_of(exc, None) or target}: {named(exc)}")
