"""A look at a process from outside, in the order of what it can cost the process.

The kernel's view first, then the interpreter's memory, for which nothing in the process
runs. Signals come last, and only to threads in which they interrupt nothing that would
not go on: ``sleep``, ``poll`` and ``pause`` would return to C code before their time.
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
    "T": "it is stopped, as by SIGSTOP: nothing in it runs",
    "t": "it is stopped by a debugger: nothing in it runs",
    "D": "it is in an uninterruptible wait in the kernel, as for a disk",
    "Z": "it has ended, and waits to be buried",
}
_SIGNALS_WITHIN: Final = 0.7


@frozen(kw_only=True)
class Inspection:
    """What was seen of a process."""

    way: str
    """How: ``kernel`` where nothing in it can run, ``memory`` or ``faulthandler`` where
    there are stacks, ``threads`` where only the kernel tells; empty: it is gone."""
    text: str


async def inspect_process(process_id: int, box: BlackBox | None) -> Inspection:
    """Look at a process. What was seen is returned though it ends meanwhile.

    Args:
        process_id: Must not have been reaped.
        box: What its faulthandler writes to; None: it has none.
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
    return await _ask(process_id, box, views, stacks)


def _read(process_id: int) -> Mapping[int, Sequence[str]] | str:
    """Return the lines of each thread's stack, by its number; a text says why not."""
    # Only where it is needed: it is loaded by none of what starts an application.
    from trio_supervisor.diagnostics.remote.remote_stacks import (
        UnreadableError,
        read_stacks,
    )

    try:
        threads = read_stacks(process_id).threads
    except UnreadableError as exc:
        return str(exc)
    moving = ["  (it went on while it was read)"]
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
    """Return stacks as text, each with what the kernel says of its thread."""
    known = {view.number for view in views}
    # A forked child's main thread may have kept the number of its parent's.
    strange = [number for number in stacks if number not in known]
    blocks = []
    for view in views:
        lines = stacks.get(view.number)
        if lines is None and view.is_main and len(strange) == 1:
            lines = stacks[strange[0]]
        if lines is not None:
            blocks.append(
                "\n".join((f"{_title(view)} (most recent call first):", *lines))
            )
            known.discard(view.number)
    others = Counter(str(view) for view in views if view.number in known)
    if others:
        words = ", ".join(f"{count} {state}" for state, count in others.items())
        blocks.append(f"Threads that run no Python: {words}")
    return without_boot("\n\n".join(blocks))


def _title(view: ThreadView) -> str:
    name = "Main thread" if view.is_main else "Thread"
    return f"{name} {view.number}, {view}"


async def _ask(
    process_id: int, box: BlackBox | None, views: Sequence[ThreadView], problem: str
) -> Inspection:
    """Ask threads by signals, where that does no harm."""
    bearing = [view.number for view in views if view.can_be_signalled]
    text = ""
    if box is not None and bearing:
        with trio.move_on_after(_SIGNALS_WITHIN):
            await box.ask(process_id, bearing)
        text = box.read()
    else:
        await trio.lowlevel.checkpoint()
    lines = list(_why(problem, views, is_asked=bool(text)))
    if not text:
        kernel = [f"{_title(view)}, {view.processor_time:.2f} s used" for view in views]
        return Inspection(way="threads", text="\n".join((*lines, *kernel)))
    return Inspection(way="faulthandler", text="\n".join((*lines, "", text)))


def _why(problem: str, views: Sequence[ThreadView], *, is_asked: bool) -> Iterator[str]:
    if is_asked:
        yield f"(asked by a signal to each thread, since {problem})"
    else:
        yield f"(stacks are not known, since {problem})"
    for view in views:
        if not view.can_be_signalled:
            yield f"(not asked: {_title(view)}: a signal might end that)"
