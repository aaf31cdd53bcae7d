"""Inspect a process from outside, starting with the least intrusive way.

First the kernel's view, then the interpreter's memory, neither of which runs code in
the process. Signals come last, and only for threads whose system call is restarted:
``sleep``, ``poll`` and ``pause`` would return early to C code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import trio
from attrs import frozen

from trio_supervisor.process.inspection.black_box import BlackBox, without_boot
from trio_supervisor.process.inspection.kernel_threads import ThreadView, view_threads
from trio_supervisor.process.threads import run_in_thread

FROZEN: Final = {
    "T": "it is stopped by a signal such as SIGSTOP; none of its code runs",
    "t": "it is stopped by a debugger; none of its code runs",
    "D": "it is in uninterruptible sleep in the kernel (usually waiting for I/O)",
    "Z": "it has exited and is not reaped yet (zombie)",
}
_SIGNALS_WITHIN: Final = 0.7


@frozen(kw_only=True)
class Inspection:
    """The result of an inspection."""

    way: str
    """Its source: ``kernel`` if no code of the process can run, ``memory`` or
    ``faulthandler`` if there are stacks, ``threads`` if only kernel states are known;
    empty: the process has exited."""
    text: str


async def inspect_process(process_id: int, box: BlackBox | None) -> Inspection:
    """Inspect a process. If it exits in between, return what was found.

    Args:
        process_id: Must not have been reaped.
        box: Its black box; None: it has none.
    """
    views = view_threads(process_id)
    if all(view.state in "ZX" for view in views):
        await trio.lowlevel.checkpoint()
        return Inspection(way="", text="")
    if (state := FROZEN.get(views[0].state)) is not None:
        await trio.lowlevel.checkpoint()
        return Inspection(way="kernel", text=state)
    stacks = await run_in_thread(_read, process_id, abandon_on_cancel=True)
    if not isinstance(stacks, str):
        return Inspection(way="memory", text=describe(stacks, view_threads(process_id)))
    return await _signal_threads(process_id, box, views, stacks)


def _read(process_id: int) -> Mapping[int, Sequence[str]] | str:
    """Return the lines of each thread's stack, by its number; or why it failed."""
    # Imported here, to keep it out of the start of an application.
    from trio_supervisor.diagnostics.remote.remote_stacks import (
        UnreadableError,
        read_stacks,
    )

    try:
        threads = read_stacks(process_id).threads
    except UnreadableError as exc:
        return str(exc)
    moving = ["  (it was running while its stack was read)"]
    return {
        thread.native_id: [
            *(
                f'  File "{s.file}", line {s.line} in {s.function}'
                for s in thread.locations
            ),
            *(moving if thread.is_moving else []),
        ]
        for thread in threads
    }


def describe(stacks: Mapping[int, Sequence[str]], views: Sequence[ThreadView]) -> str:
    """Return stacks as text, each with the kernel's state of its thread."""
    known = {view.number for view in views}
    # In a forked child, Python may know the main thread by the number in the parent.
    unknown = [number for number in stacks if number not in known]
    blocks = []
    for view in views:
        lines = stacks.get(view.number)
        if lines is None and view.is_main and len(unknown) == 1:
            lines = stacks[unknown[0]]
        if lines is not None:
            blocks.append(
                "\n".join((f"{_title(view)} (most recent call first):", *lines))
            )
            known.discard(view.number)
    others = Counter(str(view) for view in views if view.number in known)
    if others:
        words = ", ".join(f"{count} {state}" for state, count in others.items())
        blocks.append(f"Threads without Python code: {words}")
    return without_boot("\n\n".join(blocks))


def _title(view: ThreadView) -> str:
    name = "Main thread" if view.is_main else "Thread"
    return f"{name} {view.number}, {view}"


async def _signal_threads(
    process_id: int, box: BlackBox | None, views: Sequence[ThreadView], problem: str
) -> Inspection:
    """Get stacks by signals, from threads that can be signalled safely."""
    safe = [view.number for view in views if view.can_be_signalled]
    text = ""
    if box is not None and safe:
        with trio.move_on_after(_SIGNALS_WITHIN):
            await box.ask(process_id, safe)
        text = box.read()
    else:
        await trio.lowlevel.checkpoint()
    lines = list(_why(problem, views, is_asked=bool(text)))
    if not text:
        kernel = [
            f"{_title(view)}, {view.processor_time:.2f} s CPU time" for view in views
        ]
        return Inspection(way="threads", text="\n".join((*lines, *kernel)))
    return Inspection(way="faulthandler", text="\n".join((*lines, "", text)))


def _why(problem: str, views: Sequence[ThreadView], *, is_asked: bool) -> Iterator[str]:
    if is_asked:
        yield f"(stacks written by faulthandler after a signal, since {problem})"
    else:
        yield f"(no stacks available, since {problem})"
    for view in views:
        if not view.can_be_signalled:
            yield f"(not signalled: {_title(view)}: this could interrupt the call)"
