"""What a fork server imports, so that its children need not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from trio_supervisor.process.boot import Pickled, Reference, unpickle_source
from trio_supervisor.process.load import load_application
from trio_supervisor.wire.codec import prepare


def load_source(source: Reference | Pickled) -> Any:
    """Return the application that *source* names, or the object that it holds.

    Raises:
        TargetError, SpecError: as for `load_application`.
    """
    if isinstance(source, Reference):
        sys.path[:] = source.path
        return load_application(source.target)
    return unpickle_source(source)


def preload(sources: Sequence[Reference | Pickled]) -> list[str]:
    """Load each of *sources*; return what went wrong, in words.

    A child loads its own again, which costs nothing where this succeeded, and fails
    with its own message where it did not.
    """
    prepare()
    problems = []
    for source in sources:
        try:
            load_source(source)
        except Exception as exc:
            problems.append(f"{type(exc).__name__}: {exc}")
    return problems
