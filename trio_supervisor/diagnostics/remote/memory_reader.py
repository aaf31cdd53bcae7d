"""Read the memory of another process, without stopping it.

Source: proc_pid_mem(5). The kernel permits it to the process's parent and user, except
where it is hardened (Yama's ptrace_scope 2, a process that dropped privileges, some
containers).
"""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

from attrs import define, field

_WORD: Final = struct.Struct("N")


class Mapping(NamedTuple):
    """A line of /proc/PID/maps for a mapped file."""

    start: int
    end: int
    file: tuple[str, str]
    """Device and inode."""


@define(eq=False)
class MemoryReader:
    """The open memory of a process; a context manager."""

    process_id: int
    _descriptor: int = field(init=False)

    def __enter__(self) -> Self:
        self._descriptor = os.open(f"/proc/{self.process_id}/mem", os.O_RDONLY)
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes.

        Raises:
            OSError: the address is not mapped, or the process has exited.
        """
        if not 0 < address < 1 << 62:
            raise OSError(f"no memory at {address:#x}")
        data = os.pread(self._descriptor, size, address)
        if len(data) < size:
            raise OSError(f"no memory at {address + len(data):#x}")
        return data

    def words(self, address: int, count: int) -> tuple[int, ...]:
        """Return *count* pointer-sized words.

        Raises:
            OSError: as `read`.
        """
        return struct.unpack(f"{count}N", self.read(address, count * _WORD.size))

    def word(self, address: int) -> int:
        """Return one pointer-sized word.

        Raises:
            OSError: as `read`.
        """
        return self.words(address, 1)[0]


def runtime_address() -> int:
    """Return the address of this interpreter's runtime state.

    Raises:
        ValueError: the symbol is not exported.
    """
    return ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))


def interpreter_shift(process_id: int) -> int | None:
    """Return the difference of the interpreter's addresses there and in this process.

    None: the process runs another interpreter, or access is denied.
    """
    with suppress(OSError, ValueError):
        address = runtime_address()
        # Its uninitialized variables (.bss) follow the last mapping of its file.
        image = [one for one in _mappings(os.getpid()) if one.start <= address][-1].file
        here, there = _first(os.getpid(), image), _first(process_id, image)
        if here is not None and there is not None:
            return there - here
    return None


def _first(process_id: int, file: tuple[str, str]) -> int | None:
    starts = (one.start for one in _mappings(process_id) if one.file == file)
    return min(starts, default=None)


def _mappings(process_id: int) -> list[Mapping]:
    found = []
    with open(f"/proc/{process_id}/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            span, _, _, device, inode, *_ = line.split()
            start, _, end = span.partition("-")
            if inode != "0":
                found.append(Mapping(int(start, 16), int(end, 16), (device, inode)))
    return found
