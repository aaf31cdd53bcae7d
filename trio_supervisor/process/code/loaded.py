"""Which source files of the application a process has loaded, and since when.

What a module was imported by, a plain import or a name that was computed, does not
matter here: the process itself knows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from trio_supervisor.process.code.own_code import own_source_of

# The kernel stamps files by a clock that is a tick behind ours, 10 ms at most, and a
# file system may be coarser [s].
_COARSE: Final = 0.05


class _Imported(NamedTuple):
    """What this process, or the one that forked it, imported before its target ran."""

    names: frozenset[str]
    began_at: float
    covered: Collection[Path] | None


_imported: list[_Imported] = []
"""Empty until `remember`; one at most."""


def remember(began_at: float, covered: Collection[Path] | None) -> None:
    """Take note of all modules that are there now; a child that is forked knows it too.

    Args:
        began_at: When their import began [s since the epoch].
        covered: Files, resolved, of which it is known which services run what of them;
            None: of all of them.
    """
    _imported[:] = [_Imported(frozenset(sys.modules), began_at, covered)]


def loaded_files(started_at: float) -> Iterator[tuple[str, float]]:
    """Yield source files of the application, and a moment after which each was loaded.

    Those that were loaded since the target began; and of those that were there before
    the ones that no service is known to import: any of them may use these.

    Args:
        started_at: When this process was started [s since the epoch].
    """
    known = _imported[0] if _imported else _Imported(frozenset(), started_at, None)
    for name, module in list(sys.modules.items()):
        if (path := own_source_of(module)) is None:
            continue
        if name not in known.names:
            yield path, started_at
        elif known.covered is not None and Path(path).resolve() not in known.covered:
            yield path, known.began_at


def first_modified(files: Iterable[tuple[str, float]]) -> str | None:
    """Return one of *files* that is another one than was loaded; None: all are as then.

    A file that was changed, replaced or removed since counts, be it by the same bytes:
    the time of its last change is what the kernel says, which nothing can set back.
    """
    for path, loaded_after in files:
        try:
            changed_at = os.stat(path).st_ctime
        except OSError:
            return path
        if changed_at > loaded_after - _COARSE:
            return path
    return None
