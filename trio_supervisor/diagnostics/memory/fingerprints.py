"""Record one byte per object that the garbage collector does not track, by address.

Strings, bytes and numbers are not tracked, nor are dictionaries and tuples of only
those. Old ones can be told from new ones only if the old ones were recorded. The byte
depends on the object's content: if a new object reuses an address, the byte differs in
191 of 192 cases.
"""

from __future__ import annotations

import gc
import mmap
import os
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final

from attrs import define, field

from trio_supervisor.diagnostics.memory.growth import LargeSizes, sizes_in
from trio_supervisor.diagnostics.memory.references import references
from trio_supervisor.diagnostics.snapshot.snapshot_child import (
    SnapshotReporter,
    write_all,
)

_PAGE: Final = 256
"""Objects per 4 KiB of memory: they are aligned to 16 bytes."""
_HASHED: Final = frozenset(
    map(id, (str, bytes, int, float, complex, bool, type(None), range))
)
"""By id: comparing a type itself could call its metaclass."""

# Dictionaries have a range of their own: one that grows keeps its fingerprint.
_EMPTY_DICT: Final = 63
_OTHERS: Final = 64
_TRACKED: Final = 255
"""Stands for any tracked object."""


def fingerprint(value: Any) -> int:
    """Return a number from 1 to 254 that depends on the content of *value*."""
    type_ = type(value)
    if id(type_) in _HASHED:
        return _OTHERS + hash(value) % 191
    if type_ is dict:
        for key in value:
            is_plain = id(type(key)) in _HASHED
            return 1 + (hash(key) if is_plain else id(type(key)) >> 4) % 62
        return _EMPTY_DICT
    if type_ is tuple:
        return _OTHERS + (sum(map(id, value)) >> 4) % 191
    return _OTHERS + (id(type_) >> 4) % 191


@define(eq=False)
class Fingerprints:
    """Fingerprints in pages of 256 bytes, one page per 4 KiB of memory."""

    _pages: dict[int, bytearray] = field(factory=dict)
    sizes: LargeSizes = field(factory=LargeSizes)

    def add(self, address: int, one: Any) -> int:
        """Add and return the fingerprint of *one*; 0: its address has one already."""
        return self._set(address, one, 0)

    def add_tracked(self, one: object) -> None:
        """Record a tracked object."""
        self._set(id(one), None, _TRACKED)

    def _set(self, address: int, one: Any, value: int) -> int:
        page = self._pages.get(address >> 12)
        if page is None:
            page = self._pages[address >> 12] = bytearray(_PAGE)
        slot = (address >> 4) & 255
        if page[slot]:
            return 0
        value = page[slot] = value or fingerprint(one)
        return value

    def save(self, descriptor: int) -> None:
        """Write all fingerprints to an empty file."""
        numbers = array("Q", self._pages)
        write_all(descriptor, array("Q", [len(numbers)]).tobytes() + numbers.tobytes())
        for page in self._pages.values():
            write_all(descriptor, page)
        write_all(descriptor, self.sizes.as_bytes())


@define(eq=False)
class SavedFingerprints:
    """The fingerprints that an earlier snapshot saved."""

    _memory: mmap.mmap
    _offsets: dict[int, int]
    sizes: dict[int, int]
    """Sizes of large growable objects, by address [bytes]."""

    @classmethod
    def load(cls, descriptor: int) -> SavedFingerprints:
        """Map a file that `Fingerprints.save` wrote."""
        size = os.fstat(descriptor).st_size
        memory = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        (count,) = array("Q", memory[:8])
        numbers = array("Q", memory[8 : 8 * (count + 1)])
        start = 8 * (count + 1)
        offsets = {n: start + i * _PAGE for i, n in enumerate(numbers)}
        return cls(memory, offsets, sizes_in(memory[start + count * _PAGE :]))

    def is_known(self, address: int, value: int) -> bool:
        """Return whether an object with that fingerprint was at that address."""
        known = self.at(address)
        return known == value or (known == _EMPTY_DICT and value < _EMPTY_DICT)

    def was_dict(self, address: int, one: dict[Any, Any]) -> bool:
        """Return whether *one* was an untracked dictionary before."""
        known = self.at(address)
        return known == _EMPTY_DICT or known == fingerprint(one)

    def was_tracked(self, address: int) -> bool:
        """Return whether a tracked object was recorded at that address."""
        return self.at(address) == _TRACKED

    def at(self, address: int) -> int:
        """Return the fingerprint saved for an address; 0: none."""
        offset = self._offsets.get(address >> 12)
        return 0 if offset is None else self._memory[offset + ((address >> 4) & 255)]


Found = dict[int, Any]
"""Objects by their addresses."""


def untracked_in(objects: Sequence[Any]) -> Found:
    """Return the untracked objects that *objects* refer to."""
    return {id(one): one for one in references(objects) if not gc.is_tracked(one)}


def is_container(untracked: object) -> bool:
    """Return whether an untracked object may refer to others."""
    return type(untracked) is dict or type(untracked) is tuple


def levels_below(
    objects: Sequence[Any], seen: Fingerprints
) -> Iterator[list[tuple[int, Any, int]]]:
    """Return the untracked objects below some others that were not *seen* before.

    What they refer to directly comes first, then what is below that, and so on: each
    with its address and its fingerprint.
    """
    containers: Sequence[Any] = objects
    while containers:
        level = []
        for address, one in untracked_in(containers).items():
            if value := seen.add(address, one):
                level.append((address, one, value))
        containers = [one for _, one, _ in level if is_container(one)]
        if level:
            yield level


def take_fingerprints(
    reporter: SnapshotReporter, objects: Sequence[Any], *, with_tracked: bool
) -> Fingerprints:
    """Return the fingerprints of all untracked objects below *objects*, and sizes.

    Args:
        with_tracked: Whether to record *objects* themselves too.
    """
    seen = Fingerprints()
    for chunk in reporter.chunks(objects):
        if with_tracked:
            for one in chunk:
                seen.add_tracked(one)
        seen.sizes.add(chunk)
        for level in levels_below(chunk, seen):
            seen.sizes.add(one for _, one, _ in level)
    return seen
