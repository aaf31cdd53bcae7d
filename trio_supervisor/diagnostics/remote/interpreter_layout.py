"""Discover the interpreter's memory layout: thread states, frames, code objects.

The offsets differ between versions and builds. They are discovered in this process, by
searching its memory for the addresses of known objects, and then verified: stacks that
are read with them must equal those that Python reports. They hold for every process
that runs the same interpreter.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from types import CodeType, FrameType
from typing import Any, Final

from attrs import frozen

from trio_supervisor.diagnostics.remote.memory_reader import (
    MemoryReader,
    runtime_address,
)

WORD: Final = 8
_RUNTIME: Final = 8192
"""Words that are searched of the runtime state and of the interpreter state."""
_STATE: Final = 64
"""Words of a thread state."""
_FRAME: Final = 12
"""Words of a frame."""
_CODE: Final = 40
"""Words of a code object."""
_MAX_CODE_HEADER: Final = 512
"""Size of a code object before its instructions [bytes]."""
_FRAME_OF_OBJECT: Final = 3 * WORD
"""Offset of the frame in a frame object: after its header and ``f_back``."""


class UnknownLayoutError(Exception):
    """This interpreter's memory has an unexpected layout."""


@frozen(kw_only=True)
class Layout:
    """Offsets [bytes]."""

    interpreter: int
    """In the runtime state."""
    first_thread: int
    """In the interpreter state."""
    next_thread: int
    native_id: int
    frame: int
    """In a thread state: the innermost frame, or a structure that points to it."""
    frame_within: int | None
    """In that structure; None: there is none."""
    code: int
    previous: int
    instruction: int
    """In a frame."""
    file: int
    name: int
    line_table: int
    first_line: int
    instructions: int
    """In a code object."""


def learn_layout() -> Layout:
    """Return the layout of this interpreter, not verified.

    Raises:
        UnknownLayoutError: a known object was not found.
    """
    if struct.calcsize("P") != WORD:
        raise UnknownLayoutError("its pointers are not 64 bits wide")
    try:
        with MemoryReader(os.getpid()) as memory:
            return _learn(memory)
    except (OSError, ValueError, AttributeError) as exc:
        raise UnknownLayoutError(str(exc)) from exc


def _learn(memory: MemoryReader) -> Layout:
    interpreter = _function("PyInterpreterState_Get")()
    first_of = _function("PyInterpreterState_ThreadHead", ctypes.c_void_p)
    next_of = _function("PyThreadState_Next", ctypes.c_void_p)
    before = _words_up_to(memory, interpreter, first_of(interpreter))
    with _SecondThread() as second:
        # It is the first in the list of threads.
        first = first_of(interpreter)
        heads = before & _words_up_to(memory, interpreter, first)
        state = memory.words(first, _STATE)
        own = memory.words(_function("PyThreadState_Get")(), _STATE)
        next_thread = _only(_offsets_of(state, next_of(first)), "the next thread")
        native = {
            *_offsets_of(state, second.native_id or 0),
        } & set(_offsets_of(own, threading.get_native_id()))
    chain = _frames(sys._getframe())
    frame, within = _innermost(memory)
    code, previous, instruction, instructions = _in_frames(memory, chain)
    return Layout(
        interpreter=_only(
            _offsets_of(_readable(memory, runtime_address()), interpreter)[:1],
            "the interpreter",
        ),
        first_thread=_only(sorted(heads)[:1], "the first thread"),
        next_thread=next_thread,
        native_id=_only(sorted(native)[:1], "the thread's number"),
        frame=frame,
        frame_within=within,
        code=code,
        previous=previous,
        instruction=instruction,
        instructions=instructions,
        **_in_code(
            memory, [_SecondThread._wait.__code__, *(f.f_code for f, _ in chain)]
        ),
    )


class _SecondThread:
    """A thread that waits for the duration of the block."""

    def __init__(self) -> None:
        self._leave = threading.Event()
        self._is_there = threading.Event()
        self._thread = threading.Thread(target=self._wait, daemon=True)

    def __enter__(self) -> threading.Thread:
        self._thread.start()
        self._is_there.wait()
        return self._thread

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join()

    def _wait(self) -> None:
        self._is_there.set()
        self._leave.wait()


def _function(name: str, *arguments: Any) -> Callable[..., int]:
    return ctypes.PYFUNCTYPE(ctypes.c_size_t, *arguments)((name, ctypes.pythonapi))


def _readable(memory: MemoryReader, address: int) -> tuple[int, ...]:
    """Return the readable words at *address*, up to a limit."""
    count = _RUNTIME
    while count:
        try:
            return memory.words(address, count)
        except OSError:
            count //= 2
    return ()


def _words_up_to(memory: MemoryReader, address: int, word: int) -> set[int]:
    return set(_offsets_of(_readable(memory, address), word))


def _offsets_of(words: Iterable[int], word: int) -> list[int]:
    return [number * WORD for number, one in enumerate(words) if one == word]


def _only(offsets: list[int], what: str) -> int:
    if not offsets:
        raise UnknownLayoutError(f"{what} was not found")
    return offsets[0]


def _frames(frame: FrameType | None) -> list[tuple[FrameType, int]]:
    """Return the frames from *frame* outwards, each with its address."""
    found: list[tuple[FrameType, int]] = []
    with MemoryReader(os.getpid()) as memory:
        while frame is not None and len(found) < 3:
            found.append((frame, memory.word(id(frame) + _FRAME_OF_OBJECT)))
            frame = frame.f_back
    return found


def _innermost(memory: MemoryReader) -> tuple[int, int | None]:
    """Return the offset of the innermost frame in a thread state."""
    frame = memory.word(id(sys._getframe()) + _FRAME_OF_OBJECT)
    thread = _function("PyThreadState_Get")()
    # Only by C code: each call of a Python function has a frame of its own.
    state = (ctypes.c_size_t * _STATE).from_address(thread)
    words = list(state)
    if frame in words:
        return words.index(frame) * WORD, None
    for number, word in enumerate(words):
        for within in (0, WORD):
            if word > 4096 and word % WORD == 0:
                try:
                    data = os.pread(memory._descriptor, WORD, word + within)
                except OSError:
                    continue
                if data == frame.to_bytes(WORD, sys.byteorder):
                    return number * WORD, within
    raise UnknownLayoutError("the innermost frame was not found")


def _in_frames(
    memory: MemoryReader, chain: list[tuple[FrameType, int]]
) -> tuple[int, int, int, int]:
    """Return a frame's offsets of its code, its caller's frame and its instruction."""
    (_, own), (caller, caller_at), (outer, outer_at) = chain
    words = {at: memory.words(at, _FRAME) for _, at in chain}
    codes = [set(_offsets_of(words[at], id(frame.f_code))) for frame, at in chain[1:]]
    previous = set(_offsets_of(words[own], caller_at)) & set(
        _offsets_of(words[caller_at], outer_at)
    )
    starts = []
    for frame, at in ((caller, caller_at), (outer, outer_at)):
        first = id(frame.f_code) + frame.f_lasti
        starts.append({(n * WORD, word - first) for n, word in enumerate(words[at])})
    instructions = {
        (place, start)
        for place, start in starts[0] & starts[1]
        if 0 < start <= _MAX_CODE_HEADER
    }
    if not instructions:
        raise UnknownLayoutError("the instructions were not found")
    place, start = min(instructions)
    return (
        _only(sorted(codes[0] & codes[1]), "the code"),
        _only(sorted(previous), "the caller"),
        place,
        start,
    )


def _in_code(memory: MemoryReader, codes: list[CodeType]) -> dict[str, int]:
    found: dict[str, set[int]] = {}
    for code in codes:
        words = memory.words(id(code), _CODE)
        numbers = struct.unpack(f"{_CODE * 2}i", memory.read(id(code), _CODE * WORD))
        places = {
            "file": set(_offsets_of(words, id(code.co_filename))),
            "name": set(_offsets_of(words, id(code.co_qualname))),
            "line_table": set(_offsets_of(words, id(code.co_linetable))),
            "first_line": {
                n * 4 for n, one in enumerate(numbers) if one == code.co_firstlineno
            },
        }
        for key, value in places.items():
            found[key] = found.get(key, value) & value
    return {key: _only(sorted(value), key) for key, value in found.items()}
