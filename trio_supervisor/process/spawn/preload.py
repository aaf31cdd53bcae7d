"""Import in a fork server what its children need."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trio_supervisor.application import Application, Service
from trio_supervisor.process.code.loaded import remember
from trio_supervisor.process.imports.declaration_answer import (
    application_answer,
    codes_of,
    error_answer,
)
from trio_supervisor.process.spawn.boot import unpickle_source, with_added_path
from trio_supervisor.process.spawn.code_source import Pickled, Reference
from trio_supervisor.process.spawn.environment import CODE_ONLY_VARIABLE, NAME_VARIABLE
from trio_supervisor.process.spawn.fork_server_protocol import Preloaded
from trio_supervisor.process.spawn.load import (
    files_of_target,
    import_error,
    load_application,
    load_code,
)
from trio_supervisor.wire.codec import prepare

_entered: list[tuple[str, ...]] = []
"""Import paths that this process, or the one that forked it, has set."""


def load_source(source: Reference | Pickled) -> Any:
    """Return the application that *source* names, or the object that it contains.

    Raises:
        TargetError, SpecError: as for `load_application`.
    """
    if isinstance(source, Reference):
        _enter_path(source.path)
        if {NAME_VARIABLE, CODE_ONLY_VARIABLE}.isdisjoint(os.environ):
            return load_application(source.target)
        return load_code(source.target)
    return unpickle_source(source)


def _enter_path(path: tuple[str, ...]) -> None:
    """Set `sys.path` to *path*, plus entries of PYTHONPATH in this process.

    Only once: entries that an import adds to `sys.path` stay, in forked children too.
    """
    if path in _entered:
        return
    _entered.append(path)
    sys.path[:] = with_added_path(path)


def preload(sources: Sequence[Reference | Pickled]) -> Preloaded:
    """Load each of *sources*; return the problems and the declaration.

    A child loads its source again: that costs nothing if it is loaded, and otherwise
    fails with its own error.
    """
    prepare()
    # anyio loads a backend on first use, which takes 20 ms.
    importlib.import_module("anyio._backends._trio")
    problems: list[str] = []
    answer: bytes | None = None
    is_immortal = False
    began_at = time.time()
    covered: set[Path] | None = None
    for source in sources:
        if isinstance(source, Reference):
            answer, covered, is_immortal = _declare(source)
            continue
        try:
            unpickle_source(source)
        except Exception as exc:
            problems.append(f"{type(exc).__name__}: {exc}")
    remember(began_at, covered)
    return Preloaded(problems, answer, is_immortal)


def _declare(source: Reference) -> tuple[bytes, set[Path] | None, bool]:
    """Return the answer, the files that are assigned to services, and a wish.

    The wish is the application's ``immortal_preload``.
    """
    began = time.perf_counter()
    try:
        application = load_source(source)
    except BaseException as exc:  # KeyboardInterrupt too: the import raised it
        return error_answer(import_error(exc, source.target)), None, False
    seconds = time.perf_counter() - began
    if _needs_asyncio(application):
        importlib.import_module("anyio._backends._asyncio")
    codes = codes_of(application)
    covered = files_of_target(source.target)
    covered.update(*(code.files for code in codes.values()))
    answer = application_answer(application, codes, seconds)
    return answer, covered, application.immortal_preload


def _needs_asyncio(application: Application) -> bool:
    return any(
        isinstance(service, Service) and service.backend == "asyncio"
        for service in application.services
    )
