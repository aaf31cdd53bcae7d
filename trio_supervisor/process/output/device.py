"""What a destination does with its descriptor: for files, pipes and terminals."""

from __future__ import annotations

import os
from typing import Final, Protocol

from trio_supervisor.process.output.blocks import Data, count_lines


class Device(Protocol):
    """Writes the items of a queue. Its methods are called in one thread at a time."""

    def count(self, data: Data) -> int:
        """Return the number of lines in an item."""
        ...

    def write(self, descriptor: int, items: list[Data]) -> int:
        """Write some of *items*; return how many bytes of them, at least one.

        Raises:
            BlockingIOError: try again when *descriptor* is writable.
            OSError: nothing was written.
        """
        ...

    def close(self, descriptor: int) -> None:
        """Close *descriptor*."""
        ...


class FileDevice:
    """Items are written as they are."""

    def count(self, data: Data) -> int:
        """Return the number of lines."""
        return count_lines(data)

    def write(self, descriptor: int, items: list[Data]) -> int:
        """Write as much as the kernel takes."""
        return os.writev(descriptor, items)

    def close(self, descriptor: int) -> None:
        """Close *descriptor*."""
        os.close(descriptor)


FILE: Final = FileDevice()
