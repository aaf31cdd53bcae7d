"""Find the source files of the application that this process has loaded.

They are taken from `sys.modules`, so that imports with a computed name count as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from trio_supervisor.process.code.own_code import own_source_of

# The kernel's clock for file times may be a tick (10 ms) late, and file systems may
# round times [s].
_TIME_RESOLUTION: Final = 0.05


class _EarlyImports(NamedTuple):
    """Modules that this process, or the one that forked it, imported before its target
    ran."""

    names: frozenset[str]
    began_at: float
    covered: Collection[Path] | None


_early_imports: list[_EarlyImports] = []
"""Empty until `remember`; at most one."""


def remember(began_at: float, covered: Collection[Path] | None) -> None:
    """Remember the modules loaded so far, in this process and its forked children.

    Args:
        began_at: When their import began [s since the epoch].
        covered: Resolved files that are covered by fingerprints of services; None: all.
    """
    _early_imports[:] = [_EarlyImports(frozenset(sys.modules), began_at, covered)]


def loaded_files(started_at: float) -> Iterator[tuple[str, float]]:
    """Yield source files of the application, each with a time before it was loaded.

    Includes files loaded since the target began, and earlier ones that no fingerprint
    covers: any service may use these.

    Args:
        started_at: When this process was started [s since the epoch].
    """
    known = _EarlyImports(frozenset(), started_at, None)
    if _early_imports:
        known = _early_imports[0]
    for name, module in list(sys.modules.items()):
        if (path := own_source_of(module)) is None:
            continue
        if name not in known.names:
            yield path, started_at
        elif known.covered is not None and Path(path).resolve() not in known.covered:
            yield path, known.began_at


def first_modified(files: Iterable[tuple[str, float]]) -> str | None:
    """Return one of *files* that has changed since it was loaded; None: no changes.

    A file counts if it was changed, replaced or removed, even with the same content:
    its ctime cannot be set back.
    """
    for path, loaded_after in files:
        try:
            changed_at = os.stat(path).st_ctime
        except OSError:
            return path
        if changed_at > loaded_after - _TIME_RESOLUTION:
            return path
    return None
