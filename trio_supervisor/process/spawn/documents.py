"""Pass data to a child process in an anonymous file.

Only the parent can have written it, and its size is not limited. Standard library only,
since the fork server is started before anything else is loaded.
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
    """Return the interpreter flags of this process (-X dev, -W …) for a child."""
    # Private; multiprocessing has used it for the same purpose since 3.4.
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags
