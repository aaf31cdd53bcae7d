"""Define a gunicorn application that has trio loaded, like the other peers' workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio  # noqa: F401 (loaded by --preload, inherited by each worker)


def app(environ: object, start: Callable[..., object]) -> Iterable[bytes]:
    """Answer with 204 No Content."""
    start("204 No Content", [])
    return []
