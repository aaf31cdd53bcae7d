"""Sizes of objects by pympler, without running code of the application."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    WrapperDescriptorType,
)
from typing import Any, Final

from attrs import define, field

from trio_supervisor.diagnostics.memory.definitions import is_python_class

_ASKED: Final = (
    "__class__",
    "__dict__",
    "__getattr__",
    "__getattribute__",
    "__len__",
    "__sizeof__",
    "__slots__",
)
"""What pympler, or Python itself for it, asks an object for."""
_NO_CODE: Final = (
    WrapperDescriptorType,
    MethodDescriptorType,
    ClassMethodDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    BuiltinFunctionType,
    tuple,
    list,
    str,
    dict,
)
"""What such a name may be without leading to the application's code."""
_HEADER: Final = 16
"""What the collector has in front of an object that it tracks [bytes]."""

_mro_of: Final = type.__dict__["__mro__"].__get__
_names_of: Final = type.__dict__["__dict__"].__get__


@define(eq=False)
class Sizes:
    """Finds sizes, in a snapshot; remembers of which types it must not ask pympler."""

    _kinds: dict[int, Callable[[Any], int]] = field(factory=dict)

    def of(self, one: Any) -> int:
        """Return the size of *one* alone, without what it refers to [bytes]."""
        type_: type = type(one)
        measure = self._kinds.get(id(type_))
        if measure is None:
            measure = self._kinds[id(type_)] = _measure_for(type_)
        return measure(one)


def _measure_for(type_: type) -> Callable[[Any], int]:
    asked = (*_mro_of(type_), *_mro_of(type(type_)))
    if any(_answers_itself(class_) for class_ in asked):
        return _plain_size
    if is_python_class(type_):
        # What pympler says as well, but it takes 20 µs for each to come to it.
        return sys.getsizeof
    return _flatsize()


def _flatsize() -> Callable[[Any], int]:
    # Not before: this is run in snapshots. Where numpy is installed pympler imports it,
    # which is much for a process that does not use it, in time and in memory.
    sys.modules.setdefault("numpy", None)  # type: ignore[arg-type]
    from pympler.asizeof import flatsize

    measure: Callable[[Any], int] = flatsize
    return measure


def _answers_itself(class_: type) -> bool:
    names = _names_of(class_)
    return any(name in names and type(names[name]) not in _NO_CODE for name in _ASKED)


def _plain_size(one: Any) -> int:
    for class_ in _mro_of(type(one)):
        measure = _names_of(class_).get("__sizeof__")
        if type(measure) is MethodDescriptorType:
            return int(measure(one)) + (_HEADER if gc.is_tracked(one) else 0)
    return 0
