"""Measure objects by pympler, without running code of the application."""

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
"""Attributes that pympler, or Python on its behalf, reads from an object."""
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
"""Types of such an attribute that run no code of the application."""
_HEADER: Final = 16
"""Size of the collector's header of a tracked object [bytes]."""

_mro_of: Final = type.__dict__["__mro__"].__get__
_names_of: Final = type.__dict__["__dict__"].__get__


@define(eq=False)
class Sizes:
    """Measures objects in a snapshot, with a cached function per type."""

    _kinds: dict[int, Callable[[Any], int]] = field(factory=dict)

    def of(self, one: Any) -> int:
        """Return the shallow size of *one* [bytes]."""
        type_: type = type(one)
        measure = self._kinds.get(id(type_))
        if measure is None:
            measure = self._kinds[id(type_)] = _measure_for(type_)
        return measure(one)


def _measure_for(type_: type) -> Callable[[Any], int]:
    asked = (*_mro_of(type_), *_mro_of(type(type_)))
    if any(_overrides_access(class_) for class_ in asked):
        return _plain_size
    if is_python_class(type_):
        # pympler returns the same, but takes 20 µs per object.
        return sys.getsizeof
    return _flatsize()


def _flatsize() -> Callable[[Any], int]:
    # Imported in the snapshot only. Where numpy is installed, pympler imports it, which
    # costs a process that does not use it time and memory.
    sys.modules.setdefault("numpy", None)  # type: ignore[arg-type]
    from pympler.asizeof import flatsize

    measure: Callable[[Any], int] = flatsize
    return measure


def _overrides_access(class_: type) -> bool:
    names = _names_of(class_)
    return any(name in names and type(names[name]) not in _NO_CODE for name in _ASKED)


def _plain_size(one: Any) -> int:
    for class_ in _mro_of(type(one)):
        measure = _names_of(class_).get("__sizeof__")
        if type(measure) is MethodDescriptorType:
            return int(measure(one)) + (_HEADER if gc.is_tracked(one) else 0)
    return 0
