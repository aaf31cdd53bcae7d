"""Read the kernel log from /dev/kmsg. Linux; root, or kernel.dmesg_restrict=0."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from trio_supervisor.policy.out_of_memory import KernelMessage

KERNEL_LOG: Final = Path("/dev/kmsg")
# A record of the kernel is at most this long (CONSOLE_EXT_LOG_MAX) [bytes].
_RECORD: Final = 8192
_MOST: Final = 50_000
"""Records read: a kernel that writes faster than we read must not hold us."""


def read_kernel_log(path: Path = KERNEL_LOG) -> Iterator[KernelMessage]:
    """Yield the messages of the kernel log, oldest first; none if it is not readable.

    Reading blocks for some milliseconds: call it in a thread.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for _ in range(_MOST):
            try:
                records = os.read(descriptor, _RECORD)
            except BrokenPipeError:  # overwritten before it was read: go on behind it
                continue
            except OSError:  # EAGAIN: no more
                return
            if not records:
                return
            for record in records.decode(errors="replace").splitlines():
                if (message := _parse(record)) is not None:
                    yield message
    finally:
        os.close(descriptor)


def _parse(record: str) -> KernelMessage | None:
    """Parse ``priority,sequence,microseconds,flags;text``."""
    head, semicolon, text = record.partition(";")
    parts = head.split(",")
    if not semicolon or len(parts) < 3 or not parts[2].isdecimal():
        return None  # a line of the dictionary that follows a record
    return KernelMessage(time=int(parts[2]) / 1e6, text=text)
