"""Run blocking calls in threads, even when no thread can be started.

A controller has to stop, reap and start processes also when the limit of processes is
reached, which includes threads. So it starts one reserve thread in advance.
"""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar

import trio
from attrs import define, field

from trio_supervisor.process.shortage import shortage_of

T = TypeVar("T")
_ENDED_WITHIN: Final = 1.0
_REFUSED: Final = "cannot start a thread"


async def run_in_thread(
    function: Callable[..., T], *args: object, abandon_on_cancel: bool = False
) -> T:
    """Call *function* in a thread, as `trio.to_thread.run_sync` does.

    If no thread can be started, the reserve thread calls it, one call after another.

    Raises:
        OSError: no thread can be started, and `keep_reserve` is not in use.
    """
    has_begun = False

    def run() -> T:
        nonlocal has_begun
        has_begun = True
        return function(*args)

    try:
        return await trio.to_thread.run_sync(run, abandon_on_cancel=abandon_on_cancel)
    except RuntimeError as exc:
        if has_begun or (short := shortage_of(exc)) is None:
            raise
        if _reserve is None:
            raise short from exc
    return await _reserve.run(run, abandon_on_cancel=abandon_on_cancel)


@contextmanager
def keep_reserve() -> Iterator[None]:
    """Keep a reserve thread within the block.

    All controllers of a process share one.

    Raises:
        OSError: it cannot be started.
    """
    global _reserve, _users
    if _reserve is None:
        _reserve = _Reserve()
        try:
            _reserve.start()
        except BaseException:
            _reserve = None
            raise
    _users += 1
    try:
        yield
    finally:
        _users -= 1
        if not _users:
            _reserve.end()
            _reserve = None


@define(eq=False)
class _Reserve:
    """The reserve thread, and the calls that wait for it."""

    _calls: queue.SimpleQueue[Callable[[], None] | None] = field(
        factory=queue.SimpleQueue, init=False
    )

    _thread: threading.Thread = field(init=False)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(
            target=self._run, name="trio_supervisor reserve", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as exc:
            raise OSError(errno.EAGAIN, _REFUSED) from exc

    def end(self) -> None:
        """End the thread after the waiting calls; do not wait for a long one."""
        self._calls.put(None)
        self._thread.join(_ENDED_WITHIN)

    async def run(self, function: Callable[[], T], *, abandon_on_cancel: bool) -> T:
        """Call *function* in the thread."""
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()
        results: list[Any] = []
        errors: list[BaseException] = []

        def call() -> None:
            try:
                results.append(function())
            except BaseException as exc:
                errors.append(exc)
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(done.set)

        self._calls.put(call)
        with trio.CancelScope(shield=not abandon_on_cancel):
            await done.wait()
        if errors:
            raise errors[0]
        found: T = results[0]
        return found

    def _run(self) -> None:
        for call in iter(partial(self._calls.get), None):
            call()


_reserve: _Reserve | None = None
_users = 0
