"""Describe a chain of references, from a root down to an object."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Container, Iterator, Sequence
from contextvars import ContextVar
from itertools import pairwise
from types import (
    AsyncGeneratorType,
    CellType,
    CoroutineType,
    FrameType,
    FunctionType,
    MappingProxyType,
)
from typing import Any, Final

from trio_supervisor.diagnostics.memory.definitions import (
    LRU_CACHE,
    DefinitionFinder,
    SourceLine,
    instance_dict,
    slots_of,
    suspended_frame,
)
from trio_supervisor.diagnostics.memory.heap_walk import Local
from trio_supervisor.diagnostics.stacks.values import short, type_name
from trio_supervisor.wire.memory_reports import Step

_CONTEXT_NODES: Final = ("hamt_bitmap_node", "hamt_collision_node")
"""Types of the containers of context variables' values."""
_LENGTHS: Final = frozenset(map(id, (list, tuple, set, frozenset, deque)))


def describe_chain(
    definitions: DefinitionFinder, chain: Sequence[Any], new: Container[int] = ()
) -> tuple[Step, ...]:
    """Return the steps of *chain* from its first object to the last but one.

    Args:
        new: Addresses of the new objects.
    """
    return tuple(_steps(definitions, chain, new))


def _steps(
    definitions: DefinitionFinder, chain: Sequence[Any], new: Container[int]
) -> Iterator[Step]:
    number = 0
    while number < len(chain) - 1:
        holder, below = chain[number], chain[number + 1 :]
        text, definition, used = _describe(definitions, holder, below)
        is_new = holder.is_new if type(holder) is Local else id(holder) in new
        if definition is None:
            yield Step(text=text, is_new=is_new)
        else:
            yield Step(
                text=text, file=definition.file, line=definition.line, is_new=is_new
            )
        number += used


def _describe(
    definitions: DefinitionFinder, holder: Any, below: Sequence[Any]
) -> tuple[str, SourceLine | None, int]:
    """Return the text, definition and number of objects of the chain's next step."""
    held = below[0]
    if type(holder) is Local:
        return (*_of_frame(holder.frame, holder.name, f"in {holder.thread}"), 1)
    if (frame := suspended_frame(holder)) is not None:
        name = _name_in(dict(frame.f_locals), held)
        return (*_of_frame(frame, name, f"of a suspended {_kind(holder)}"), 1)
    if (module := definitions.module_of(holder)) is not None:
        name, definition = definitions.of_variable(holder, held)
        return f"variable {name} of module {module}", definition, 1
    if type(holder) is FunctionType:
        return _of_function(holder, below, definitions.of(holder))
    if type(holder) is LRU_CACHE:
        wrapped = (instance_dict(holder) or {}).get("__wrapped__")
        name = wrapped.__qualname__ if type(wrapped) is FunctionType else "a function"
        return f"lru_cache of {name}()", definitions.of(holder), 1
    if type(holder) is dict:
        return f"a dict of {len(holder)}, at key {_name_in(holder, held)}", None, 1
    if id(type(holder)) in _LENGTHS:
        return f"a {type(holder).__name__} of {len(holder)}", None, 1
    if (variable := _context_variable(holder, held)) is not None:
        module, definition = definitions.find_variable(variable)
        whose = f" of module {module}" if module is not None else ""
        return f"context variable {variable.name}{whose}", definition, 1
    if type(holder) is CellType:
        return "a closure's cell", None, 1
    return _of_instance(definitions, holder, below)


def _of_frame(frame: FrameType, name: str, where: str) -> tuple[str, SourceLine]:
    code = frame.f_code
    text = f"local variable {name} of {code.co_qualname}(), {where} at line"
    return f"{text} {frame.f_lineno}", SourceLine(code.co_filename, code.co_firstlineno)


def _kind(one: object) -> str:
    if type(one) is CoroutineType:
        return "coroutine"
    return "async generator" if type(one) is AsyncGeneratorType else "generator"


def _of_function(
    function: FunctionType, below: Sequence[Any], definition: SourceLine | None
) -> tuple[str, SourceLine | None, int]:
    name, held = function.__qualname__, below[0]
    closure = function.__closure__ or ()
    if held is closure and len(below) > 2 and type(below[1]) is CellType:
        variables = dict(zip(function.__code__.co_freevars, closure, strict=False))
        variable = _name_in(variables, below[1])
        return f"closure variable {variable} of {name}()", definition, 3
    if held is function.__defaults__ or held is function.__kwdefaults__:
        return f"default argument of {name}()", definition, 2 if len(below) > 1 else 1
    return f"function {name}()", definition, 1


def _of_instance(
    definitions: DefinitionFinder, holder: Any, below: Sequence[Any]
) -> tuple[str, SourceLine | None, int]:
    type_: type = type(holder)
    what = f"class {type_name(holder)}" if issubclass(type_, type) else type_name(type_)
    definition, held = definitions.of(holder), below[0]
    names: Any = slots_of(holder)
    if issubclass(type_, type):
        names = _class_names(holder)
    elif own := instance_dict(holder):
        if own is held and len(below) > 1:
            return f"attribute {_name_in(own, below[1])} of {what}", definition, 2
        names = {**names, **own}
    name = _name_in(names, held, "")
    return (f"attribute {name} of {what}" if name else what), definition, 1


def _context_variable(holder: Any, held: object) -> ContextVar[Any] | None:
    """Return the context variable whose value in a context node is *held*."""
    if type(holder).__qualname__ not in _CONTEXT_NODES:
        return None
    # The referents list each value before its variable.
    for value, variable in pairwise(gc.get_referents(holder)):
        if value is held and type(variable) is ContextVar:
            return variable
    return None


def _class_names(class_: type) -> MappingProxyType[str, Any]:
    names: MappingProxyType[str, Any] = type.__dict__["__dict__"].__get__(class_)
    return names


def _name_in(names: Any, held: object, otherwise: str = "?") -> str:
    for name, value in names.items():
        if value is held:
            return name if type(name) is str and name.isidentifier() else short(name)
    return otherwise
