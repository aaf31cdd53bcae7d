"""Open the file that is the standard input of a process."""

from __future__ import annotations

import errno
import os
import stat


def open_input(path: str) -> int:
    """Open *path* for reading; return a blocking descriptor, which the caller closes.

    A FIFO without a writer does not block: it is at end-of-file until there is one.

    Raises:
        OSError: it does not exist, is a directory, or must not be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
