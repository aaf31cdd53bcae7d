"""What a frame is doing at its current instruction, read from its bytecode.

A thread that waits in a C function (``lock.acquire``, ``sleep``) has no frame for it:
only the calling instruction tells what is called, and on which object. Works on the
bytecode of Python 3.11 to 3.13; what is not understood is "unknown", never an error.
"""

from __future__ import annotations

import dis
import inspect
import sys
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FrameType, MemberDescriptorType
from typing import Any, Final, NamedTuple

UNKNOWN: Final = object()
"""The value of an expression that is not to be found out without running code."""
ENTER: Final = "with"
"""What `current_call` says where a context manager is entered."""
_METHOD: Final = ("LOAD_METHOD", "LOAD_ATTR")
_FAST: Final = ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_LOAD_FAST")
_NAME: Final = (*_FAST, "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_GLOBAL", "LOAD_NAME")
_OF_THE_CALL: Final = ("PRECALL", "KW_NAMES", "CACHE")
_CACHED: Final = 2048
_TOO_MANY: Final = 1000


class ExceptionRange(NamedTuple):
    """The instructions from *start* up to *end* raise to *target*."""

    start: int
    end: int
    target: int


class Listing(NamedTuple):
    """The instructions of a code object."""

    instructions: tuple[dis.Instruction, ...]
    offsets: tuple[int, ...]
    handlers: tuple[ExceptionRange, ...]

    def index_of(self, offset: int) -> int:
        """Return the index of the instruction at *offset*, or in whose cache it is."""
        return max(0, bisect_right(self.offsets, offset) - 1)


class Expression(NamedTuple):
    """A part of an instruction sequence and what it evaluates to."""

    value: object
    text: str
    before: int
    """The index of the instruction before it."""


_NOTHING: Final = Expression(UNKNOWN, "?", -1)


@lru_cache(maxsize=_CACHED)
def listing(code: CodeType) -> Listing:
    """Return the instructions of *code*; those of the last ones are kept."""
    instructions = tuple(dis.get_instructions(code))
    offsets = tuple(instruction.offset for instruction in instructions)
    return Listing(instructions, offsets, tuple(_handlers(code)))


def _handlers(code: CodeType) -> Iterator[ExceptionRange]:
    parse = getattr(dis, "_parse_exception_table", None)
    for entry in parse(code) if parse else ():
        yield ExceptionRange(entry.start, entry.end, entry.target)


def current_call(frame: FrameType) -> tuple[str, int] | None:
    """Return what *frame* calls at the moment, and the instruction that loads it.

    ``with`` where it enters a context manager; the instruction is then the one that
    loads the manager. None: it calls nothing by a plain name.
    """
    return _call_at(frame.f_code, frame.f_lasti)


def evaluate(frame: FrameType, index: int) -> Expression:
    """Return what the expression that ends with the instruction *index* evaluates to.

    Names, attributes and keys of plain dicts and lists are followed, without running a
    line of the application's; the rest is `UNKNOWN`.
    """
    return _evaluate(listing(frame.f_code).instructions, frame, index)


def enclosing_withs(frame: FrameType) -> Iterator[int]:
    """Return the ``with`` blocks that *frame* is in, the innermost first.

    Each as the index of the instruction that loads its context manager.
    """
    known = listing(frame.f_code)
    offset, seen = frame.f_lasti, set[int]()
    # From handler to handler: what a block raises goes to the next one around it.
    while (target := _target_of(known, offset)) is not None and target not in seen:
        seen.add(target)
        if _is_exit(known, target):
            first = min(h.start for h in known.handlers if h.target == target)
            enter = known.index_of(first) - 1
            if known.instructions[enter].opname == "BEFORE_WITH":
                yield enter - 1
        offset = target


def calls_before(frame: FrameType, names: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Return the method calls of these *names* before where *frame* stands.

    The latest first; each with the index of the instruction that loads the object.
    """
    known = listing(frame.f_code)
    for index in range(known.index_of(frame.f_lasti) - 1, 0, -1):
        instruction = known.instructions[index]
        if instruction.argval in names and _is_called(instruction):
            yield str(instruction.argval), index - 1


def _is_called(instruction: dis.Instruction) -> bool:
    """Whether *instruction* loads a method to call it, not to put it somewhere."""
    if instruction.opname == "LOAD_ATTR" and sys.version_info >= (3, 12):
        return bool((instruction.arg or 0) & 1)
    return instruction.opname == "LOAD_METHOD"


def _target_of(known: Listing, offset: int) -> int | None:
    for handler in known.handlers:
        if handler.start <= offset < handler.end:
            return handler.target
    return None


def _is_exit(known: Listing, target: int) -> bool:
    index = known.index_of(target)
    names = [i.opname for i in known.instructions[index : index + 2]]
    return names == ["PUSH_EXC_INFO", "WITH_EXCEPT_START"]


@lru_cache(maxsize=_CACHED)
def _call_at(code: CodeType, offset: int) -> tuple[str, int] | None:
    known = listing(code)
    index = known.index_of(offset)
    name = known.instructions[index].opname
    if name == "BEFORE_WITH":
        return ENTER, index - 1
    if name.startswith(("CALL", "PRECALL")):
        return _callee(known.instructions, index)
    return None


def _callee(
    instructions: tuple[dis.Instruction, ...], index: int
) -> tuple[str, int] | None:
    # Counted backwards: it was pushed before as many values as the call has arguments.
    call = instructions[index]
    wanted = call.arg or 0
    if call.opname == "CALL_KW":
        wanted += 1
    elif call.opname == "CALL_FUNCTION_EX":
        wanted = 1 + (wanted & 1)
    index -= 1
    while instructions[index].opname in _OF_THE_CALL:
        index -= 1
    while index >= 0 and (wanted or instructions[index].opname == "PUSH_NULL"):
        if wanted:
            wanted -= _effect(instructions[index])
        if wanted < 0 or wanted > _TOO_MANY:
            return None
        index -= 1
    if index >= 0 and instructions[index].opname in (*_METHOD, *_NAME):
        return _last(instructions[index]), index
    return None


def _effect(instruction: dis.Instruction) -> int:
    """How many values *instruction* leaves on the stack more than it takes."""
    if instruction.opcode in dis.hasjrel:
        return -_TOO_MANY  # a condition: the way here is not known
    try:
        return dis.stack_effect(instruction.opcode, instruction.arg)
    except ValueError:
        return -_TOO_MANY


def _last(instruction: dis.Instruction) -> str:
    """The name that *instruction* loads; of two, the one on top."""
    names = instruction.argval
    return str(names[-1] if isinstance(names, tuple) else names)


def _evaluate(
    instructions: tuple[dis.Instruction, ...], frame: FrameType, index: int
) -> Expression:
    if index < 0:
        return _NOTHING
    instruction = instructions[index]
    name = instruction.opname
    if name in _NAME:
        text = _last(instruction)
        return Expression(_variable(frame, text), text, index - 1)
    if name in _METHOD:
        owner = _evaluate(instructions, frame, index - 1)
        text = f"{owner.text}.{instruction.argval}"
        return Expression(
            _attribute(owner.value, instruction.argval), text, owner.before
        )
    if name == "LOAD_CONST":
        return Expression(instruction.argval, repr(instruction.argval), index - 1)
    if name == "BINARY_SUBSCR":
        key = _evaluate(instructions, frame, index - 1)
        owner = _evaluate(instructions, frame, key.before)
        text = f"{owner.text}[{key.text}]"
        return Expression(_item(owner.value, key.value), text, owner.before)
    return _NOTHING


def _variable(frame: FrameType, name: str) -> object:
    for variables in (frame.f_locals, frame.f_globals, frame.f_builtins):
        if name in variables:
            value: object = variables[name]
            return value
    return UNKNOWN


def _attribute(owner: object, name: str) -> object:
    if owner is UNKNOWN:
        return UNKNOWN
    try:
        value = inspect.getattr_static(owner, name)
        if type(value) is MemberDescriptorType:  # a slot
            return value.__get__(owner)
    except AttributeError:
        return UNKNOWN
    return value


def _item(owner: Any, key: object) -> object:
    if type(key) not in (str, int, bytes):
        return UNKNOWN
    if type(owner) in (dict, list, tuple):
        try:
            value: object = owner[key]
        except (LookupError, TypeError):
            return UNKNOWN
        return value
    return UNKNOWN


def line_of(frame: FrameType, index: int) -> int:
    """Return the line of the instruction *index* of *frame*'s code."""
    known = listing(frame.f_code)
    offset = known.offsets[index]
    for start, end, line in frame.f_code.co_lines():
        if start <= offset < end and line is not None:
            return line
    return frame.f_code.co_firstlineno
