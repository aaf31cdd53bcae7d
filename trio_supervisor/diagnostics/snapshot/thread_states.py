"""Keeps what other threads' states refer to alive, across a fork.

After a fork Python clears the states of all threads but the one that forked, in the
child: what only they referred to is finalised there. That is thread-local data, the
context of context variables, and an exception that is being handled, with its frames.
A database connection among them would say goodbye to a server that the parent is still
connected to. What is referred to once more is not finalised.

The states are walked by the public C API. Where in one the references are differs from
version to version, so it is found out: by looking in a state for objects that are known
to be there.
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
"""Of a state, that are looked at; in 3.11 to 3.13 the references end at word 40."""
_WORD: Final = ctypes.c_size_t


def hold_thread_states() -> list[object] | None:
    """Return what the states of all threads refer to, so that it stays alive.

    None: this interpreter does not tell where thread-local data are.
    """
    offsets = _offsets()
    if not offsets:
        return None
    # From here to the list it is all C code, in which no other thread gets its turn: a
    # thread that ended meanwhile would take its state along. Nor must anything be
    # collected, since that may run Python code.
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
    # Of our own: the one that pythonapi hands out is shared with whoever asks.
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_INTERPRETER: Final = _function("PyInterpreterState_Get", ctypes.c_void_p)
_FIRST: Final = _function(
    "PyInterpreterState_ThreadHead", ctypes.c_void_p, ctypes.c_void_p
)
# Takes a second argument, which accumulate() gives, and which it ignores.
_NEXT: Final = _function("PyThreadState_Next", ctypes.c_void_p, ctypes.c_void_p)
_OWN: Final = _function("PyThreadState_Get", ctypes.c_void_p)
_OWN_DICT: Final = _function("PyThreadState_GetDict", ctypes.c_void_p)
_NEW_REFERENCE: Final = _function("Py_NewRef", ctypes.py_object, ctypes.c_void_p)


@cache
def _offsets() -> tuple[int, ...]:
    """Return where in a thread state the references are [bytes]; empty: unknown."""
    found: list[int] = []
    # In a thread of its own: in a coroutine, the exception is in the coroutine's state.
    thread = threading.Thread(target=_find, args=[found], daemon=True)
    thread.start()
    thread.join()
    return tuple(found)


def _find(found: list[int]) -> None:
    known = _keepers_of_local()
    if not known:
        return  # thread-local data are what matters most
    found += known
    context = contextvars.Context()
    found += _offsets_in(context.run(_state), {id(context)})
    try:
        raise LookupError
    except LookupError as exc:
        found += _offsets_in(_state(), {id(exc)})


def _keepers_of_local() -> list[int]:
    """Return where this thread's state has what keeps thread-local data alive.

    Up to 3.12 that is a dummy in the state's dictionary, since 3.13 one right in the
    state. The data go when their dummy does: somebody has a weak reference to it.
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
