"""Find which thread waits for which lock or thread, and deadlocks among them.

An RLock knows its owner; a Lock does not. A thread inside ``with lock:`` owns the lock;
one between ``lock.acquire()`` and ``lock.release()`` probably does.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from inspect import getattr_static
from types import BuiltinMethodType, FrameType
from typing import Any, Final

from attrs import evolve, frozen

from trio_supervisor.diagnostics.locks.lock_text import format_locks
from trio_supervisor.diagnostics.stacks.frames import (
    FramePosition,
    RunningThread,
    as_frame,
    outwards,
    printable,
    running_threads,
)
from trio_supervisor.diagnostics.stacks.instructions import (
    ENTER,
    UNKNOWN,
    calls_before,
    current_call,
    enclosing_withs,
    evaluate,
    line_of,
)
from trio_supervisor.wire.reports import Deadlock, LockHolder, LockReport, LockWait

_LOCK: Final = type(threading.Lock())
_RLOCK: Final = type(threading.RLock())
_THREADING: Final = threading.__file__
_ACQUIRE: Final = frozenset({"acquire", "acquire_lock", "__enter__", ENTER})
_OPERATIONS: Final = frozenset({"acquire", "release"})
_OWNER: Final = re.compile(r"owner=(\d+)")
_IDLE: Final = ("_thread_cache.py",)
"""Files whose threads wait on a lock for work: idle worker threads of trio."""


@frozen(kw_only=True)
class _Waiting:
    """The lock, or thread, that a thread waits for."""

    lock: object
    """A lock, or the thread that is joined; `UNKNOWN`: a lock that was not found."""
    text: str
    position: FramePosition


def lock_report() -> LockReport:
    """Return the locks that threads wait for, and the deadlocks among them.

    This is one moment: two threads that wait for each other with a timeout appear as a
    deadlock as well. No code of the application runs for it.
    """
    threads = running_threads()
    waiting = {
        thread.ident: found
        for thread in threads
        if (found := _waiting(thread.frame)) is not None
    }
    holders = _holders(threads) if waiting else {}
    waits = [
        _wait_of(thread, waiting[thread.ident], threads, holders)
        for thread in threads
        if thread.ident in waiting
    ]
    deadlocks = _deadlocks(waits)
    data = format_locks(waits, deadlocks)
    return LockReport(data=data, waits=tuple(waits), deadlocks=tuple(deadlocks))


def _waiting(frame: FrameType) -> _Waiting | None:
    place = frame
    for place in outwards(frame):
        if place.f_code is threading.Condition.wait.__code__:
            return None  # for a notification, not for a lock
        if place.f_code is threading.Thread.join.__code__:
            target = place.f_locals.get("self")
            return _Waiting(
                lock=target, text="", position=_position_of(place.f_back or place)
            )
        if place.f_code.co_filename != _THREADING:
            break
    if place.f_code.co_filename.endswith(_IDLE):
        return None
    lock, text = _lock_at(frame)
    if lock is None or (lock is not UNKNOWN and _is_free(lock)):
        return None
    if place is not frame:
        text = _lock_at(place)[1]
    return _Waiting(lock=lock, text=text, position=_position_of(place))


def _position_of(frame: FrameType) -> FramePosition:
    return FramePosition(frame.f_code, frame.f_lineno or 0, frame)


def _lock_at(frame: FrameType) -> tuple[object, str]:
    """Return the lock that *frame* acquires and its expression; None: no lock."""
    if (call := current_call(frame)) is None:
        return None, ""
    name, index = call
    called = evaluate(frame, index)
    method = called.value
    if isinstance(method, BuiltinMethodType) and method.__name__ in _ACQUIRE:
        return _lock_of(method.__self__), called.text
    if name == ENTER:
        return _lock_of(called.value), called.text
    if name not in _ACQUIRE:
        return None, ""
    found = evaluate(frame, index - 1)
    if found.value is UNKNOWN:
        # Of an unknown object, only a method named "acquire" shows that it is a lock.
        return (UNKNOWN if name == "acquire" else None), found.text
    return _lock_of(found.value), found.text


def _lock_of(value: object) -> object:
    """Return the lock that *value* is, or is built on; None: it is no lock."""
    if type(value) is _LOCK or type(value) is _RLOCK:
        return value
    if issubclass(type(value), threading.Condition):
        return _lock_of(getattr_static(value, "_lock", None))
    return None


def _is_free(lock: Any) -> bool:
    # RLock.locked() is new in Python 3.14.
    return repr(lock).startswith("<unlocked")


def _holders(threads: Sequence[RunningThread]) -> Mapping[int, list[LockHolder]]:
    """Return the owners of all locks, by the lock's id."""
    holders = defaultdict[int, list[LockHolder]](list)
    for thread in threads:
        released = list(_released_by(thread.frame))
        for frame in outwards(thread.frame):
            for lock, line, is_sure in _held_in(frame):
                if not any(lock is other for other in released):
                    holder = _holder(thread, frame, line, is_sure=is_sure)
                    holders[id(lock)].append(holder)
    return holders


def _released_by(frame: FrameType) -> Iterator[object]:
    """Yield the locks that a thread has released to wait for a notification."""
    for inner in outwards(frame):
        if inner.f_code is threading.Condition.wait.__code__:
            yield _lock_of(inner.f_locals.get("self"))


def _held_in(frame: FrameType) -> Iterator[tuple[object, int, bool]]:
    """Yield the locks that *frame* has acquired: lock, line, whether certain."""
    if frame.f_code.co_exceptiontable:
        for index in enclosing_withs(frame):
            if (lock := _lock_of(evaluate(frame, index).value)) is not None:
                yield lock, line_of(frame, index), True
    if "acquire" in frame.f_code.co_names:
        call = current_call(frame)
        seen = set[int]()
        for name, index in calls_before(frame, _OPERATIONS):
            lock = _lock_of(evaluate(frame, index).value)
            is_in_progress = call is not None and index + 1 == call[1]
            if lock is None or is_in_progress or id(lock) in seen:
                continue
            seen.add(id(lock))
            if name == "acquire":
                yield lock, line_of(frame, index), False


def _holder(
    thread: RunningThread, frame: FrameType, line: int, *, is_sure: bool
) -> LockHolder:
    return LockHolder(
        thread=thread.name,
        ident=thread.ident,
        is_sure=is_sure,
        file=printable(frame.f_code.co_filename),
        line=line,
        function=frame.f_code.co_qualname,
    )


def _wait_of(
    thread: RunningThread,
    waiting: _Waiting,
    threads: Sequence[RunningThread],
    holders: Mapping[int, list[LockHolder]],
) -> LockWait:
    place = as_frame(waiting.position)
    lock = waiting.lock
    if isinstance(lock, threading.Thread):
        found = [_by_name(lock.ident, lock.name)]
        text = f"{lock.name} to end"
    else:
        text = f"{waiting.text} ({_kind(lock)})"
        found = holders.get(id(lock), [])
        if type(lock) is _RLOCK:
            found = _owner(lock, threads, found)
        found = [holder for holder in found if holder.is_sure] or found
    return LockWait(
        thread=thread.name,
        ident=thread.ident,
        waits_for=text,
        file=place.file,
        line=place.line,
        function=place.function,
        source=place.source,
        holders=tuple(found),
    )


def _owner(
    lock: object, threads: Sequence[RunningThread], found: Sequence[LockHolder]
) -> list[LockHolder]:
    match = _OWNER.search(repr(lock))
    ident = int(match[1]) if match else 0
    places = [evolve(h, is_sure=True) for h in found if h.ident == ident]
    name = next((t.name for t in threads if t.ident == ident), f"thread {ident}")
    return places[-1:] or ([_by_name(ident, name)] if ident else [])


def _by_name(ident: int | None, name: str) -> LockHolder:
    return LockHolder(thread=name, ident=ident or 0, is_sure=True)


def _kind(lock: object) -> str:
    if lock is UNKNOWN:
        return "a lock"
    return "RLock" if type(lock) is _RLOCK else "Lock"


def _deadlocks(waits: Sequence[LockWait]) -> list[Deadlock]:
    """Return the cycles; each thread waits for one lock, so one walk finds a cycle."""
    by_ident = {wait.ident: wait for wait in waits}
    found = dict[frozenset[int], Deadlock]()
    for start in by_ident:
        path = _cycle(start, by_ident)
        if path:
            links = zip(path, (*path[1:], path[0]), strict=True)
            found.setdefault(
                frozenset(path),
                Deadlock(
                    threads=tuple(by_ident[ident].thread for ident in path),
                    idents=tuple(path),
                    is_sure=all(_is_sure(by_ident[a], b) for a, b in links),
                ),
            )
    return list(found.values())


def _cycle(start: int, by_ident: Mapping[int, LockWait]) -> list[int]:
    """Return the cycle of threads that begins at *start*; empty: there is none."""
    paths = [[start]]
    seen = set[int]()
    while paths:
        path = paths.pop()
        for holder in by_ident[path[-1]].holders:
            if holder.ident == start:
                return path
            if holder.ident in by_ident and holder.ident not in seen:
                seen.add(holder.ident)
                paths.append([*path, holder.ident])
    return []


def _is_sure(wait: LockWait, ident: int) -> bool:
    return any(holder.is_sure for holder in wait.holders if holder.ident == ident)
