"""Keep the objects that other threads' states refer to alive in a forked child.

After a fork, Python clears the states of all other threads in the child and finalizes
what only they refer to: thread-local data, the context, and an exception that is being
handled, with its frames. A database connection among them would log off from the server
that the parent still uses. A second reference prevents that.

The states are walked by the public C API. The offsets of the references differ between
versions, so they are discovered: by searching a state for objects that are known to be
in it.
"""

from __future__ import annotations

import contextvars
import ctypes
import gc
import threading
from collections.abc import Callable
from functools import cache
from itertools import accumulate, chain, product, repeat, starmap, takewhile
from operator import add, attrgetter
from typing import Any, Final
from weakref import ref

_WORDS: Final = 48
"""Words of a state that are searched; in 3.11 to 3.13 references end at word 40."""
_WORD: Final = ctypes.c_size_t


def hold_thread_states() -> list[object] | None:
    """Return references to the objects of all thread states, to keep them alive.

    None: the offset of thread-local data was not found in this interpreter.
    """
    offsets = _offsets()
    if not offsets:
        return None
    # From here to the list all is C code, which no other thread interrupts: a thread
    # that exits would free its state. Nor may a collection run: it could run Python
    # code.
    first = map(_FIRST, [_INTERPRETER()])
    states = takewhile(bool, accumulate(chain(first, repeat(0)), _NEXT))
    places = starmap(add, chain.from_iterable(map(product, [states], [offsets])))
    addresses = map(attrgetter("value"), map(_WORD.from_address, places))
    objects = map(_NEW_REFERENCE, filter(None, addresses))
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        return list(objects)
    finally:
        if is_collecting:
            gc.enable()


def _function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    # A new function object: those of ctypes.pythonapi are shared with other code.
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_INTERPRETER: Final = _function("PyInterpreterState_Get", ctypes.c_void_p)
_FIRST: Final = _function(
    "PyInterpreterState_ThreadHead", ctypes.c_void_p, ctypes.c_void_p
)
# It ignores the second argument that accumulate() passes.
_NEXT: Final = _function("PyThreadState_Next", ctypes.c_void_p, ctypes.c_void_p)
_OWN: Final = _function("PyThreadState_Get", ctypes.c_void_p)
_OWN_DICT: Final = _function("PyThreadState_GetDict", ctypes.c_void_p)
_NEW_REFERENCE: Final = _function("Py_NewRef", ctypes.py_object, ctypes.c_void_p)


@cache
def _offsets() -> tuple[int, ...]:
    """Return the offsets of references in a thread state [bytes]; empty: unknown."""
    found: list[int] = []
    # In a thread: a coroutine would have the exception in its own state.
    thread = threading.Thread(target=_find, args=[found], daemon=True)
    thread.start()
    thread.join()
    return tuple(found)


def _find(found: list[int]) -> None:
    known = _offsets_of_local()
    if not known:
        return  # thread-local data matters most
    found += known
    context = contextvars.Context()
    found += _offsets_in(context.run(_state), {id(context)})
    try:
        raise LookupError
    except LookupError as exc:
        found += _offsets_in(_state(), {id(exc)})


def _offsets_of_local() -> list[int]:
    """Return the offsets of what keeps thread-local data alive in this thread's state.

    Up to 3.12 that is a dummy in the state's dictionary, since 3.13 one in the state
    itself. A weak reference to the dummy frees the data together with it.
    """
    local = threading.local()
    local.value = None
    inner = gc.get_referents(*gc.get_referents(local))
    dummies = [one() for one in inner if type(one) is ref] + inner
    addresses = {id(dummy) for dummy in dummies if type(dummy).__module__ == "_thread"}
    thread_dict = _OWN_DICT()
    in_dict = set(map(id, gc.get_referents(_NEW_REFERENCE(thread_dict))))
    in_state = _offsets_in(_state(), addresses)
    if not in_state and addresses.isdisjoint(in_dict):
        return []
    return in_state + _offsets_in(_state(), {thread_dict})


def _state() -> list[int]:
    return list((_WORD * _WORDS).from_address(_OWN()))


def _offsets_in(state: list[int], addresses: set[int]) -> list[int]:
    return [
        number * ctypes.sizeof(_WORD)
        for number, word in enumerate(state)
        if word in addresses
    ]
