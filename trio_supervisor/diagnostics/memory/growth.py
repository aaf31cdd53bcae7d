"""Measure the growth of containers and buffers that existed before a sample.

A list, dictionary or bytearray that grows is no new object, however large it gets. The
first snapshot of a sample records the sizes of the large ones, and the second compares:
one without a record was small.
"""

from __future__ import annotations

import io
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest
from typing import Any, Final

from attrs import define, field, frozen

SMALL: Final = 4096
"""Smaller sizes are not recorded, and count as zero [bytes]."""
_SHOWN: Final = 12
"""Grown objects that are reported."""
_Measure = Callable[[Any], int]

_mro_of: Final = type.__dict__["__mro__"].__get__
_item_size_of: Final = vars(array)["itemsize"].__get__


def _length_of_file(one: Any) -> int:
    try:
        return io.BytesIO.getbuffer(one).nbytes
    except ValueError:  # the file is closed
        return 0


# Sizes of the contents, without overallocation: that is an eighth of a list or buffer,
# so the allocated size of a large one seldom changes.
_MEASURES: Final[dict[type, _Measure]] = {
    list: lambda one: _POINTER * list.__len__(one),
    deque: lambda one: _POINTER * deque.__len__(one),
    dict: dict.__sizeof__,
    set: set.__sizeof__,
    bytearray: bytearray.__len__,
    io.BytesIO: _length_of_file,
    array: lambda one: array.__len__(one) * _item_size_of(one),
}
_GROWING: Final = {id(type_): measure for type_, measure in _MEASURES.items()}
"""By id: comparing a type itself could call its metaclass."""
_POINTER: Final = 8
"""[bytes]"""


@frozen
class GrownObject:
    """An old object that has grown."""

    one: Any
    before: int
    """Size at the start; 0 if that was small [bytes]."""
    now: int

    @property
    def growth(self) -> int:
        """Growth [bytes]."""
        return self.now - self.before


@define(eq=False)
class LargeSizes:
    """Sizes of large growable objects by address; in a snapshot."""

    found: dict[int, int] = field(factory=dict)
    objects: dict[int, Any] = field(factory=dict)
    _measures: dict[int, _Measure | None] = field(factory=dict)

    def add(self, objects: Iterable[Any]) -> None:
        """Record those of *objects* that can grow and are large."""
        measures = self._measures
        for one in objects:
            type_ = type(one)
            try:
                measure = measures[id(type_)]
            except KeyError:
                measure = measures[id(type_)] = _measure_for(type_)
            if measure is not None and (size := measure(one)) >= SMALL:
                self.found[id(one)] = size
                self.objects[id(one)] = one

    def grown_since(self, before: Mapping[int, int]) -> list[GrownObject]:
        """Return the objects that have grown the most, by more than `SMALL`."""
        grown = (
            GrownObject(self.objects[address], before.get(address, 0), size)
            for address, size in self.found.items()
            if size - before.get(address, 0) > SMALL
        )
        return nlargest(_SHOWN, grown, key=lambda one: one.growth)

    def as_bytes(self) -> bytes:
        """Return the sizes, for `sizes_in`."""
        return (array("Q", self.found) + array("Q", self.found.values())).tobytes()


def sizes_in(data: bytes) -> dict[int, int]:
    """Return what `LargeSizes.as_bytes` wrote."""
    numbers = array("Q", data)
    count = len(numbers) // 2
    return dict(zip(numbers[:count], numbers[count:], strict=True))


def _measure_for(type_: type) -> _Measure | None:
    # By the built-in base class: a subclass may override its size.
    for class_ in _mro_of(type_):
        if (measure := _GROWING.get(id(class_))) is not None:
            return measure
    return None
