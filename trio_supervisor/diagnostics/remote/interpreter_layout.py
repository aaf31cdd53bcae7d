"""Where the interpreter keeps threads, frames and code objects in its memory.

The offsets differ from version to version and from build to build. They are learnt from
this process, where the addresses of known objects can be looked for, and then checked:
stacks that are read with them must be those that Python tells. What was learnt here
holds for every process that runs the same interpreter.
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
"""Words of the global state, and of the interpreter's, that are looked at."""
_STATE: Final = 64
"""Of a thread's."""
_FRAME: Final = 12
"""Of a frame."""
_CODE: Final = 40
"""Of a code object."""
_MOST_BEFORE_CODE: Final = 512
"""Bytes of a code object before its instructions."""
_FRAME_OF_OBJECT: Final = 3 * WORD
"""In a frame object, where its frame is: after its head and ``f_back``."""


class UnknownLayoutError(Exception):
    """This interpreter's memory is not as it is expected."""


@frozen(kw_only=True)
class Layout:
    """Offsets [bytes]."""

    interpreter: int
    """In the global state."""
    first_thread: int
    """In the interpreter's state."""
    next_thread: int
    native_id: int
    frame: int
    """In a thread's state: the innermost frame, or what leads to it."""
    frame_within: int | None
    """In what leads to it; None: nothing does."""
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
    """Return the layout of this interpreter, unchecked.

    Raises:
        UnknownLayoutError: something was not found where it is expected.
    """
    if struct.calcsize("P") != WORD:
        raise UnknownLayoutError("its pointers have not 64 bits")
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
        # It was put before all others, so that only one word follows.
        first = first_of(interpreter)
        heads = before & _words_up_to(memory, interpreter, first)
        state = memory.words(first, _STATE)
        own = memory.words(_function("PyThreadState_Get")(), _STATE)
        next_thread = _only(_places(state, next_of(first)), "the next thread")
        native = {
            *_places(state, second.native_id or 0),
        } & set(_places(own, threading.get_native_id()))
    chain = _frames(sys._getframe())
    frame, within = _innermost(memory)
    code, previous, instruction, instructions = _in_frames(memory, chain)
    return Layout(
        interpreter=_only(
            _places(_readable(memory, runtime_address()), interpreter)[:1],
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
    """A thread that waits for the length of the block."""

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
    """Return so many words as there are, up to a limit."""
    count = _RUNTIME
    while count:
        try:
            return memory.words(address, count)
        except OSError:
            count //= 2
    return ()


def _words_up_to(memory: MemoryReader, address: int, word: int) -> set[int]:
    return set(_places(_readable(memory, address), word))


def _places(words: Iterable[int], word: int) -> list[int]:
    return [number * WORD for number, one in enumerate(words) if one == word]


def _only(places: list[int], what: str) -> int:
    if not places:
        raise UnknownLayoutError(f"{what} was not found")
    return places[0]


def _frames(frame: FrameType | None) -> list[tuple[FrameType, int]]:
    """Return the frames from *frame* outwards, each with its address."""
    found: list[tuple[FrameType, int]] = []
    with MemoryReader(os.getpid()) as memory:
        while frame is not None and len(found) < 3:
            found.append((frame, memory.word(id(frame) + _FRAME_OF_OBJECT)))
            frame = frame.f_back
    return found


def _innermost(memory: MemoryReader) -> tuple[int, int | None]:
    """Return where a thread's state has its innermost frame: this one's, here."""
    frame = memory.word(id(sys._getframe()) + _FRAME_OF_OBJECT)
    thread = _function("PyThreadState_Get")()
    # Read by C code alone: each call of a Python function is a frame of its own.
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
    """Return where a frame has its code, its caller's frame and its instruction."""
    (_, own), (caller, caller_at), (outer, outer_at) = chain
    words = {at: memory.words(at, _FRAME) for _, at in chain}
    codes = [set(_places(words[at], id(frame.f_code))) for frame, at in chain[1:]]
    previous = set(_places(words[own], caller_at)) & set(
        _places(words[caller_at], outer_at)
    )
    starts = []
    for frame, at in ((caller, caller_at), (outer, outer_at)):
        first = id(frame.f_code) + frame.f_lasti
        starts.append({(n * WORD, word - first) for n, word in enumerate(words[at])})
    instructions = {
        (place, start)
        for place, start in starts[0] & starts[1]
        if 0 < start <= _MOST_BEFORE_CODE
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
            "file": set(_places(words, id(code.co_filename))),
            "name": set(_places(words, id(code.co_qualname))),
            "line_table": set(_places(words, id(code.co_linetable))),
            "first_line": {
                n * 4 for n, one in enumerate(numbers) if one == code.co_firstlineno
            },
        }
        for key, value in places.items():
            found[key] = found.get(key, value) & value
    return {key: _only(sorted(value), key) for key, value in found.items()}
