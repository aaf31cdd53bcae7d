"""Tell whether a descriptor leads to journald, which takes levels from lines."""

from __future__ import annotations

import os
from typing import Final

VARIABLE: Final = "JOURNAL_STREAM"
"""Device and inode of the stream, which systemd sets: systemd.exec(5)."""


def is_journal(descriptor: int) -> bool:
    """Return whether *descriptor* is the stream to journald that systemd has made."""
    device, _, inode = os.environ.get(VARIABLE, "").partition(":")
    if not (device.isdecimal() and inode.isdecimal()):
        return False
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (int(device), int(inode))
