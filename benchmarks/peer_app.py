"""An application for gunicorn that has trio loaded, as its workers' siblings have."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio  # noqa: F401 (loaded by --preload, inherited by each worker)


def app(environ: object, start: Callable[..., object]) -> Iterable[bytes]:
    """Answer with nothing."""
    start("204 No Content", [])
    return []
