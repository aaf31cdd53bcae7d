"""Read the Python stacks of another process from its memory.

The process is not stopped, and none of its system calls is interrupted. It keeps
running while it is read, so stacks are read until two consecutive reads are equal.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from collections.abc import Iterator
from functools import cache
from types import CodeType
from typing import Final

from attrs import define, field, frozen

from trio_supervisor.diagnostics.locations import CodeLocation
from trio_supervisor.diagnostics.remote.interpreter_layout import (
    WORD,
    Layout,
    UnknownLayoutError,
    learn_layout,
)
from trio_supervisor.diagnostics.remote.memory_reader import (
    MemoryReader,
    interpreter_shift,
    runtime_address,
)
from trio_supervisor.diagnostics.stacks.frames import outwards

_THREADS: Final = 500
_DEEPEST: Final = 100
_LONGEST: Final = 4096
"""Maximum length of a name [characters] and of a line table [words]."""
_READINGS: Final = 6
_WORDS_OF_FRAME: Final = 12
# Source: CPython's unicodeobject.h, PyASCIIObject; checked by reading strings of ours.
_LENGTH: Final = 2 * WORD
_STATE: Final = 4 * WORD
_ASCII_DATA: Final = sys.getsizeof("") - 1
_DATA: Final = sys.getsizeof("".join(["\xe9", "\xe8"])) - 3
"""Of a new string: one that was encoded caches its UTF-8, which adds to its size."""
_BYTES_DATA: Final = bytes.__basicsize__ - 1
_ENCODINGS: Final = {1: "latin-1", 2: "utf-16", 4: "utf-32"}
_TRAMPOLINE: Final = "<interpreter trampoline>"


class UnreadableError(Exception):
    """The stacks of a process cannot be read; the message says why."""


@frozen(kw_only=True)
class RemoteThread:
    """A thread of another process, with its innermost location first."""

    native_id: int
    locations: tuple[CodeLocation, ...]
    is_moving: bool
    """Whether no two reads were equal: the stack may mix two moments."""


@frozen(kw_only=True)
class RemoteStacks:
    """The stacks of all threads of a process."""

    threads: tuple[RemoteThread, ...]


def read_stacks(process_id: int) -> RemoteStacks:
    """Return the stacks of all threads of a process that run Python.

    Raises:
        UnreadableError: access is denied, or its interpreter is not supported.
    """
    layout = checked_layout()
    if isinstance(layout, str):
        raise UnreadableError(layout)
    shift = interpreter_shift(process_id)
    if shift is None:
        raise UnreadableError("it runs another interpreter than this process")
    return _read(process_id, layout, shift)


@cache
def checked_layout() -> Layout | str:
    """Return the verified memory layout of this interpreter, or why it is unknown."""
    try:
        layout = learn_layout()
        problem = _check(layout)
    except (UnknownLayoutError, UnreadableError) as exc:
        problem = str(exc)
    return f"its interpreter has an unknown layout: {problem}" if problem else layout


def _read(process_id: int, layout: Layout, shift: int) -> RemoteStacks:
    problem = ""
    try:
        with MemoryReader(process_id) as memory:
            for _ in range(_READINGS):
                reading = _Reading(memory, layout, shift)
                try:
                    threads = tuple(map(reading.thread, reading.states()))
                except OSError as exc:  # a thread started or exited
                    problem = exc.strerror or str(exc)
                    continue
                if any(thread.locations for thread in threads):
                    return RemoteStacks(threads=threads)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise UnreadableError(f"its memory cannot be read: {reason}") from None
    raise UnreadableError(f"its memory is inconsistent: {problem or 'no thread found'}")


@define(eq=False)
class _Reading:
    _memory: MemoryReader
    _layout: Layout
    _shift: int
    _codes: dict[int, tuple[str, str, int, bytes]] = field(factory=dict, init=False)

    def states(self) -> list[int]:
        """Return the addresses of all thread states.

        Raises:
            OSError: a thread started or exited during the read.
        """
        memory, layout = self._memory, self._layout
        interpreter = memory.word(runtime_address() + self._shift + layout.interpreter)
        states = [memory.word(interpreter + layout.first_thread)]
        while states[-1] and len(states) < _THREADS:
            states.append(memory.word(states[-1] + layout.next_thread))
        return [state for state in states if state]

    def thread(self, state: int) -> RemoteThread:
        """Read one thread, until two consecutive reads are equal.

        Raises:
            OSError: the thread has exited.
        """
        number = self._memory.word(state + self._layout.native_id)
        last, locations = None, tuple[CodeLocation, ...]()
        for _ in range(_READINGS):
            try:
                locations = tuple(self._locations(state))
            except (OSError, ValueError):  # the thread moved during the read
                locations = ()
            if locations and locations == last:
                break
            last = locations
        is_moving = locations != last
        return RemoteThread(native_id=number, locations=locations, is_moving=is_moving)

    def _locations(self, state: int) -> Iterator[CodeLocation]:
        memory, layout = self._memory, self._layout
        frame = memory.word(state + layout.frame)
        if layout.frame_within is not None and frame:
            frame = memory.word(frame + layout.frame_within)
        for _ in range(_DEEPEST):
            if not frame:
                return
            words = memory.words(frame, _WORDS_OF_FRAME)
            # The lowest bits of a reference may be tags.
            code = words[layout.code // WORD] & ~3
            if (
                location := self._location_of(code, words[layout.instruction // WORD])
            ) is not None:
                yield location
            frame = words[layout.previous // WORD]

    def _location_of(self, code: int, instruction: int) -> CodeLocation | None:
        if not code or self._memory.word(code + WORD) != id(CodeType) + self._shift:
            return None  # a frame of C code that calls Python
        if code not in self._codes:
            self._codes[code] = self._read_code(code)
        file, name, first, table = self._codes[code]
        if name == _TRAMPOLINE:
            return None
        done = instruction - code - self._layout.instructions
        return CodeLocation(file, line_at(table, first, done), name)

    def _read_code(self, code: int) -> tuple[str, str, int, bytes]:
        memory, layout = self._memory, self._layout
        table = memory.word(code + layout.line_table)
        (first,) = struct.unpack("i", memory.read(code + layout.first_line, 4))
        return (
            self._text(memory.word(code + layout.file)),
            self._text(memory.word(code + layout.name)),
            first,
            memory.read(table + _BYTES_DATA, self._length(table, _LONGEST * WORD)),
        )

    def _length(self, address: int, most: int) -> int:
        length = self._memory.word(address + _LENGTH)
        if length > most:
            raise ValueError("invalid length")
        return length

    def _text(self, address: int) -> str:
        length = self._length(address, _LONGEST)
        (state,) = struct.unpack("I", self._memory.read(address + _STATE, 4))
        kind, is_ascii = state >> 2 & 7, state >> 6 & 1
        if kind not in _ENCODINGS:
            raise ValueError("invalid string")
        start = address + (_ASCII_DATA if is_ascii else _DATA)
        data = self._memory.read(start, length * kind)
        encoding = _ENCODINGS[kind] + (f"-{sys.byteorder[0]}e" if kind > 1 else "")
        return data.decode(encoding, "replace")


def line_at(table: bytes, first_line: int, done: int) -> int:
    """Return the line of the instruction at the offset *done* [bytes].

    Source: CPython's Objects/locations.md (InternalDocs/code_objects.md).
    """
    line, at, place = first_line, 0, 0
    while place < len(table):
        kind, length = table[place] >> 3 & 15, (table[place] & 7) + 1
        place += 1
        if kind in (13, 14):
            delta, place = _signed(table, place)
            line += delta
            for _ in range(3 if kind == 14 else 0):
                _, place = _number(table, place)
        elif 10 <= kind <= 12:
            line += kind - 10
            place += 2
        elif kind < 10:
            place += 1
        at += 2 * length
        if done < at:
            break
    return line


def _number(table: bytes, place: int) -> tuple[int, int]:
    value, shift = 0, 0
    while place < len(table):
        byte = table[place]
        place += 1
        value |= (byte & 63) << shift
        shift += 6
        if not byte & 64:
            break
    return value, place


def _signed(table: bytes, place: int) -> tuple[int, int]:
    value, place = _number(table, place)
    return (-(value >> 1) if value & 1 else value >> 1), place


def _check(layout: Layout) -> str:
    """Verify *layout* by threads of this process; return the problem, or empty."""
    leave, threads = threading.Event(), list[threading.Thread]()

    def wait_täglich() -> int:
        return leave.wait()

    def wait(depth: int) -> None:
        if depth:
            wait(depth - 1)
        else:
            sorted([0], key=lambda _: wait_täglich())  # called by C code

    for depth in (0, 3):
        threads.append(threading.Thread(target=wait, args=(depth,), daemon=True))
        threads[-1].start()
    try:
        return _compare(layout, threads)
    finally:
        leave.set()
        for thread in threads:
            thread.join()


def _compare(layout: Layout, threads: list[threading.Thread]) -> str:
    for _ in range(_READINGS):
        found = {
            thread.native_id: thread.locations
            for thread in _read(os.getpid(), layout, 0).threads
        }
        frames = sys._current_frames()
        if all(
            found.get(thread.native_id or 0)
            == tuple(
                CodeLocation(
                    f.f_code.co_filename, f.f_lineno or 0, f.f_code.co_qualname
                )
                for f in outwards(frames[thread.ident or 0])
            )
            for thread in threads
        ):
            return ""
    return "the stacks it yields differ from Python's"
