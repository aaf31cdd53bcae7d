"""Find the event loop of the main thread, for diagnostics in other threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from attrs import frozen

from trio_supervisor.diagnostics.stacks.frames import outwards

NO_LOOP: Final = "no event loop"


@frozen(kw_only=True)
class MainLoop:
    """The event loop of the main thread: trio, asyncio, both or none.

    Both means trio in guest mode on asyncio.
    """

    root: Any = None
    """trio's root task."""
    clock: Callable[[], float] | None = None
    """trio's clock, which its deadlines refer to [s]."""
    loop: Any = None
    """asyncio's loop."""
    soon: Callable[[Callable[[], object]], object] | None = None
    """Schedules a callback from any thread; RuntimeError: the loop has ended."""
    ident: int | None = None
    """Ident of the thread; None: the main thread."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the event loops."""
        names = ("trio",) if self.root is not None else ()
        return (*names, "asyncio") if self.loop is not None else names

    @property
    def thread(self) -> int:
        """Ident of the thread."""
        return self.ident or threading.main_thread().ident or 0

    def frame(self) -> FrameType | None:
        """Return the innermost frame of the thread."""
        return sys._current_frames().get(self.thread)


def current_main_loop() -> MainLoop:
    """Return the event loop of the calling thread; call it within that loop."""
    ident = threading.get_ident()
    loop = _current_asyncio()
    if (lowlevel := _current_trio()) is not None:
        return MainLoop(
            root=lowlevel.current_root_task(),
            clock=lowlevel.current_clock().current_time,
            soon=lowlevel.current_trio_token().run_sync_soon,
            loop=loop,
            ident=ident,
        )
    if loop is None:
        return MainLoop(ident=ident)
    return MainLoop(loop=loop, soon=loop.call_soon_threadsafe, ident=ident)


def find_main_loop(ident: int | None = None) -> MainLoop:
    """Return the event loop of another thread, found by its stack.

    For code that starts its own loop, in which `current_main_loop` cannot be called.
    A loop is recognized by the names in its frames; an unknown one counts as none.
    """
    loop = MainLoop(ident=ident)
    root = clock = found = None
    for frame in outwards(loop.frame()):
        module = frame.f_globals.get("__name__", "")
        if root is None and module == "trio._core._run":
            runner = frame.f_locals.get("runner")
            root = getattr(runner, "init_task", None)
            clock = getattr(getattr(runner, "clock", None), "current_time", None)
        elif found is None and frame.f_code.co_name == "run_forever":
            candidate = frame.f_locals.get("self")
            is_loop = hasattr(type(candidate), "call_soon_threadsafe")
            found = candidate if is_loop else None
    soon = getattr(found, "call_soon_threadsafe", None)
    return MainLoop(root=root, clock=clock, loop=found, soon=soon, ident=ident)


def _current_trio() -> Any:
    if (trio := sys.modules.get("trio")) is None:
        return None
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None
    return trio.lowlevel


def _current_asyncio() -> Any:
    if (asyncio := sys.modules.get("asyncio")) is None:
        return None
    return asyncio._get_running_loop()
