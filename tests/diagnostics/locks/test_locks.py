"""Who waits for whom: circles of two and of three, by every way to take a lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest

from tests.kits.diagnostics import look_until, threads
from trio_supervisor.diagnostics.locks.locks import lock_report
from trio_supervisor.diagnostics.stacks.frames import short_path
from trio_supervisor.wire.reports import LockReport, LockWait

Taker = Callable[[Any, Any, Callable[[], object]], None]


class Account:
    """Has its lock in a slot."""

    __slots__ = ("lock",)

    def __init__(self, lock: Any) -> None:
        self.lock = lock


def by_with(first: Any, second: Any, both: Callable[[], object]) -> None:
    with first:
        both()
        with second:
            pass


def by_attribute(first: Any, second: Any, both: Callable[[], object]) -> None:
    mine, others = Account(first), {"theirs": [Account(second)]}
    try:
        with mine.lock:
            for _ in range(2):
                both()
                with others["theirs"][0].lock:
                    return
    finally:
        both = print


def by_acquire(first: Any, second: Any, both: Callable[[], object]) -> None:
    first.acquire()
    try:
        both()
        second.acquire(True, timeout=3600)
        second.release()
    finally:
        first.release()


def by_alias(first: Any, second: Any, both: Callable[[], object]) -> None:
    with first:
        take = second.acquire
        both()
        take()
        second.release()


def by_nested(first: Any, second: Any, both: Callable[[], object]) -> None:
    with first:
        try:
            both()
            try:
                with second:
                    pass
            except ValueError:
                both()
        except KeyError:
            both()


def by_spread(first: Any, second: Any, both: Callable[[], object]) -> None:
    arguments = (True, 3600)
    with first:
        both()
        second.acquire(*arguments)
        second.release()


WAYS = [by_with, by_attribute, by_acquire, by_alias, by_nested, by_spread]


@contextmanager
def deadlocked(taker: Taker, locks: list[Any]) -> Iterator[None]:
    """Have each of ``thief0``, ``thief1`` ... hold a lock and want the next one's."""
    held = threading.Barrier(len(locks), timeout=30)

    def target(number: int) -> None:
        with suppress(RuntimeError):  # its lock is broken open in the end
            taker(locks[number], locks[(number + 1) % len(locks)], held.wait)

    targets = {f"thief{n}": partial(target, n) for n in range(len(locks))}
    with threads(**targets):
        yield
        locks[0].release()


def waits_of(report: LockReport) -> dict[str, LockWait]:
    return {w.thread: w for w in report.waits if w.thread.startswith("thief")}


@pytest.mark.parametrize("taker", WAYS)
def test_deadlock_of_two_threads_is_found(taker: Taker) -> None:
    """Both are named, with the lines that they hold their locks since."""
    with deadlocked(taker, [threading.Lock(), threading.Lock()]):
        report = look_until(lock_report, lambda report: report.deadlocks)
    (deadlock,) = report.deadlocks
    assert set(deadlock.threads) == {"thief0", "thief1"}
    assert deadlock.is_sure is (taker is not by_acquire)
    waits = waits_of(report)
    assert [h.thread for h in waits["thief0"].holders] == ["thief1"]
    assert [h.thread for h in waits["thief1"].holders] == ["thief0"]
    (holder,) = waits["thief0"].holders
    assert waits["thief0"].file == holder.file == __file__
    assert waits["thief0"].function == holder.function == taker.__name__
    assert holder.line < waits["thief0"].line
    assert (
        f"held by thief1, acquired at {short_path(__file__)}:{holder.line}"
        in report.data
    )
    assert waits["thief0"].source in report.data


def test_deadlock_of_three_threads_is_found_once() -> None:
    with deadlocked(by_with, [threading.Lock() for _ in range(3)]):
        report = look_until(lock_report, lambda report: report.deadlocks)
    (deadlock,) = report.deadlocks
    assert set(deadlock.threads) == {"thief0", "thief1", "thief2"}
    first, *_ = deadlock.threads
    assert report.data.startswith(f"deadlock: {first} waits for ")


@pytest.mark.parametrize("taker", WAYS)
@pytest.mark.parametrize("lock", [threading.RLock, threading.Condition])
def test_rlock_owner_is_known(taker: Taker, lock: Callable[[], Any]) -> None:
    """Whichever way it was taken; a condition is built upon one."""
    locks = [lock(), lock()]
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with locks[0]:
            held.set()
            leave.wait()

    def want() -> None:
        held.wait()
        taker(locks[1], locks[0], lambda: None)

    with threads(holder=hold, thief=want):
        report = look_until(lock_report, waits_of)
        leave.set()
    (wait,) = waits_of(report).values()
    (holder,) = wait.holders
    assert holder.thread == "holder"
    assert holder.is_sure
    assert holder.function.endswith("hold")
    assert "RLock" in wait.waits_for
    assert not report.deadlocks


def test_rlock_owner_is_known_without_frames() -> None:
    """The function that took it has returned; its lock is held on."""
    lock, held, leave = threading.RLock(), threading.Event(), threading.Event()

    def hold() -> None:
        take = lock.acquire
        take()
        held.set()
        leave.wait()
        getattr(lock, "release")()  # noqa: B009 (unseen in the code)

    def want() -> None:
        held.wait()
        take_once(lock)

    with threads(holder=hold, thief=want):
        report = look_until(lock_report, waits_of)
        leave.set()
    (holder,) = waits_of(report)["thief"].holders
    assert (holder.thread, holder.is_sure, holder.line) == ("holder", True, 0)
    assert "held by holder" in report.data.splitlines()[-1]


def test_lock_without_visible_owner_has_unknown_owner() -> None:
    """It is not guessed who: the thread that took it has gone on to other things."""
    lock = threading.Lock()
    take = threading.Thread(target=lock.acquire)
    take.start()
    take.join()
    with threads(thief=lambda: take_once(lock)):
        report = look_until(lock_report, waits_of)
        lock.release()
    (wait,) = waits_of(report).values()
    assert wait.holders == ()
    assert "owner unknown" in report.data
    assert not report.deadlocks


def test_thread_join_can_be_part_of_a_deadlock() -> None:
    """The other one waits for the lock that it holds meanwhile."""
    lock = threading.Lock()
    other = threading.Thread(target=take_once, args=(lock,), name="thief", daemon=True)

    def join() -> None:
        with suppress(RuntimeError), lock:
            other.start()
            other.join()

    with threads(joiner=join):
        report = look_until(lock_report, lambda report: report.deadlocks)
        lock.release()
    (deadlock,) = report.deadlocks
    assert set(deadlock.threads) == {"thief", "joiner"}
    assert "joiner waits for thief to end" in report.data


def take_once(lock: Any) -> None:
    with lock:
        pass


def test_lock_acquired_twice_by_one_thread_is_a_deadlock() -> None:
    lock = threading.Lock()

    def take_twice() -> None:
        with suppress(RuntimeError):
            by_with(lock, lock, lambda: None)

    with threads(thief=take_twice):
        report = look_until(lock_report, lambda report: report.deadlocks)
        lock.release()
    (deadlock,) = report.deadlocks
    assert deadlock.threads == ("thief",)


def test_condition_wait_waits_for_no_lock() -> None:
    """It has given back its lock meanwhile, and so holds up nobody either."""
    condition, is_done = threading.Condition(), list[bool]()

    def wait() -> None:
        with condition:
            condition.wait_for(lambda: is_done)

    event = threading.Event()
    with threads(waiter=wait, direct=event.wait):
        look_until(lambda: len(condition._waiters), bool)  # type: ignore[attr-defined]
        report = lock_report()
        with condition:
            is_done.append(True)
            condition.notify_all()
        event.set()
    assert not [wait for wait in report.waits if wait.thread in ("waiter", "direct")]


def test_lock_released_by_condition_wait_is_not_held() -> None:
    """Though its thread stands inside of the ``with`` block all the while."""
    lock = threading.Lock()
    condition = threading.Condition(lock)

    def wait() -> None:
        with condition:
            condition.wait()

    with threads(waiter=wait):
        look_until(lambda: len(condition._waiters), bool)  # type: ignore[attr-defined]
        take = threading.Thread(target=lock.acquire)
        take.start()
        take.join()
        with threads(thief=lambda: take_once(lock)):
            report = look_until(lock_report, waits_of)
            lock.release()
        with condition:
            condition.notify_all()
    assert waits_of(report)["thief"].holders == ()


def test_lock_report_omits_threads_that_do_not_wait() -> None:
    report = lock_report()
    assert "MainThread" not in [wait.thread for wait in report.waits]
