"""Make what was preloaded immortal, so that children share its pages for longer.

Each use of a Python object writes its reference count, and so copies the page of the
object in a forked child. From CPython 3.12 on, objects with a certain count are
immortal (PEP 683): their count is never written again. PEP 683 names pre-fork servers
as a motive, but CPython has no function for it, so this module writes the count itself.

An immortal object is never freed. That is harmless for what an import leaves, which
lives as long as the process.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterable
from types import CodeType
from typing import Final

# _Py_IMMORTAL_REFCNT of 3.12 and 3.13 on 64-bit machines (Include/object.h).
_COUNT: Final = 0xFFFF_FFFF
_COUNT_TYPE: Final = ctypes.c_ssize_t


def make_immortal() -> int:
    """Make every object of this process immortal that the collector can reach.

    Returns:
        The number of objects.

    Raises:
        RuntimeError: objects of this interpreter are not laid out as expected.
    """
    if problem := _layout_problem():
        raise RuntimeError(problem)
    write = _COUNT_TYPE.from_address
    found = _reachable(gc.get_objects())
    for address in found:
        write(address).value = _COUNT
    return len(found)


def _reachable(rest: list[object]) -> dict[int, object]:
    """Return the objects in *rest* and all that they refer to, by their addresses.

    The result keeps them alive until their counts are written.
    """
    found: dict[int, object] = {}
    while rest:
        item = rest.pop()
        if id(item) not in found:
            found[id(item)] = item
            rest.extend(_referents(item))
    return found


def _referents(item: object) -> Iterable[object]:
    if isinstance(item, CodeType):  # the collector does not look into code
        return (
            item.co_consts,
            item.co_names,
            item.co_filename,
            item.co_name,
            item.co_qualname,
            item.co_linetable,
            item.co_exceptiontable,
            *item.co_consts,
            *item.co_names,
            *item.co_varnames,
        )
    return gc.get_referents(item)


def _layout_problem() -> str:
    """Return how objects differ from what this module expects; empty: they do not."""
    count = _COUNT_TYPE.from_address
    if count(id(None)).value != _COUNT:
        return "None has another reference count than an immortal object should have"
    probe = object()
    others = [probe] * 7
    if count(id(probe)).value != 8:
        return "the reference count of an object is not where it should be"
    count(id(probe)).value = _COUNT
    others += [probe] * 7
    del others
    if count(id(probe)).value != _COUNT:
        return "the reference count of an immortal object was written"
    return ""
