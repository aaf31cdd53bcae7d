"""Decode what a frame calls at its current instruction, from its bytecode.

A thread that waits in a C function (``lock.acquire``, ``sleep``) has no frame for it:
only the calling instruction shows which function is called, on which object. Supports
the bytecode of Python 3.11 to 3.13; anything else is `UNKNOWN`, never an error.
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
"""The value of an expression that only running code could compute."""
ENTER: Final = "with"
"""What `current_call` returns where a context manager is entered."""
_METHOD: Final = ("LOAD_METHOD", "LOAD_ATTR")
_FAST: Final = ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_LOAD_FAST")
_NAME: Final = (*_FAST, "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_GLOBAL", "LOAD_NAME")
_PART_OF_CALL: Final = ("PRECALL", "KW_NAMES", "CACHE")
_CACHED: Final = 2048
_MAX_VALUES: Final = 1000


class ExceptionRange(NamedTuple):
    """Exceptions at the instructions from *start* up to *end* jump to *target*."""

    start: int
    end: int
    target: int


class Listing(NamedTuple):
    """The instructions of a code object."""

    instructions: tuple[dis.Instruction, ...]
    offsets: tuple[int, ...]
    handlers: tuple[ExceptionRange, ...]

    def index_of(self, offset: int) -> int:
        """Return the index of the instruction at *offset*, or with its cache there."""
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
    """Return the instructions of *code*, from a cache of recent ones."""
    instructions = tuple(dis.get_instructions(code))
    offsets = tuple(instruction.offset for instruction in instructions)
    return Listing(instructions, offsets, tuple(_handlers(code)))


def _handlers(code: CodeType) -> Iterator[ExceptionRange]:
    parse = getattr(dis, "_parse_exception_table", None)
    for entry in parse(code) if parse else ():
        yield ExceptionRange(entry.start, entry.end, entry.target)


def current_call(frame: FrameType) -> tuple[str, int] | None:
    """Return the name that *frame* is calling, and the instruction that loads it.

    The name is `ENTER` where it enters a context manager; the instruction is then the
    one that loads the manager. None: it calls nothing by a plain name.
    """
    return _call_at(frame.f_code, frame.f_lasti)


def evaluate(frame: FrameType, index: int) -> Expression:
    """Return the value of the expression that ends with the instruction *index*.

    Names, attributes and items of plain dicts and lists are followed, without running
    code of the application; the rest is `UNKNOWN`.
    """
    return _evaluate(listing(frame.f_code).instructions, frame, index)


def enclosing_withs(frame: FrameType) -> Iterator[int]:
    """Yield the ``with`` blocks around *frame*'s position, the innermost first.

    Each is the index of the instruction that loads its context manager.
    """
    known = listing(frame.f_code)
    offset, seen = frame.f_lasti, set[int]()
    # From handler to handler: exceptions in a handler jump to the one around it.
    while (target := _target_of(known, offset)) is not None and target not in seen:
        seen.add(target)
        if _is_exit(known, target):
            first = min(h.start for h in known.handlers if h.target == target)
            enter = known.index_of(first) - 1
            if known.instructions[enter].opname == "BEFORE_WITH":
                yield enter - 1
        offset = target


def calls_before(frame: FrameType, names: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Yield the calls of methods *names* before *frame*'s position, the latest first.

    Each has the index of the instruction that loads the object.
    """
    known = listing(frame.f_code)
    for index in range(known.index_of(frame.f_lasti) - 1, 0, -1):
        instruction = known.instructions[index]
        if instruction.argval in names and _is_called(instruction):
            yield str(instruction.argval), index - 1


def _is_called(instruction: dis.Instruction) -> bool:
    """Return whether *instruction* loads a method in order to call it."""
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
    # Count backwards: the callee was pushed before the values of the arguments.
    call = instructions[index]
    wanted = call.arg or 0
    if call.opname == "CALL_KW":
        wanted += 1
    elif call.opname == "CALL_FUNCTION_EX":
        wanted = 1 + (wanted & 1)
    index -= 1
    while instructions[index].opname in _PART_OF_CALL:
        index -= 1
    while index >= 0 and (wanted or instructions[index].opname == "PUSH_NULL"):
        if wanted:
            wanted -= _effect(instructions[index])
        if wanted < 0 or wanted > _MAX_VALUES:
            return None
        index -= 1
    if index >= 0 and instructions[index].opname in (*_METHOD, *_NAME):
        return _last(instructions[index]), index
    return None


def _effect(instruction: dis.Instruction) -> int:
    """Return by how many values *instruction* changes the height of the stack."""
    if instruction.opcode in dis.hasjrel:
        return -_MAX_VALUES  # a condition: the path to here is unknown
    try:
        return dis.stack_effect(instruction.opcode, instruction.arg)
    except ValueError:
        return -_MAX_VALUES


def _last(instruction: dis.Instruction) -> str:
    """Return the name that *instruction* loads; of two, the one on top."""
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
