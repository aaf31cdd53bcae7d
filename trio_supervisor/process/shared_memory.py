"""Open anonymous memory that a process of ours shares with the controller."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress


def open_shared_memory(name: str, size: int, *, is_sparse: bool = False) -> int:
    """Return the descriptor of *size* bytes, all 0, that cannot be resized.

    Args:
        is_sparse: Whether a page takes memory only when it is first written.

    Raises:
        OSError: the system has no memory or no descriptor for it.
    """
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    descriptor = os.memfd_create(f"trio_supervisor {name}", flags)
    try:
        if is_sparse:
            os.ftruncate(descriptor, size)
        else:  # written, so that a lack of memory is an error here
            os.write(descriptor, bytes(size))
        # Otherwise a process that truncates it would kill the controller by SIGBUS.
        with suppress(AttributeError):
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
