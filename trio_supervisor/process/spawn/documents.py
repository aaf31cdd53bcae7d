"""Hand a child what it is told at its start: an anonymous file, and its descriptor.

It comes from nobody but the child's own parent, and can be of any size. Standard
library only, for the fork server is started before anything else is loaded.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def open_document(data: bytes) -> Iterator[int]:
    """Yield the descriptor of an anonymous file that holds *data*."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("trio_supervisor")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        yield descriptor
    finally:
        os.close(descriptor)


def interpreter_flags() -> list[str]:
    """Return the flags that make a child's interpreter like ours: -X dev, -W … ."""
    # Private, and what multiprocessing uses for the same purpose since 3.4.
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags
