"""Whether a worker that is silent is slow, or cannot answer: then, why.

A slow one is left all of its time. That one cannot answer is concluded only from two
looks from outside that are the same, while it answers not even a ping.
"""

from __future__ import annotations

import linecache
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import trio
from attrs import define, field, frozen

from trio_supervisor.errors import SupervisorError
from trio_supervisor.wire.json_tree import Object

PATIENCE: Final = 1.5
"""An agent that can answer at all does so much sooner [s]."""
_ASKS: Final = 50
"""A thread that wants the interpreter asks for it 200 times a second, or more often by
a shorter switch interval; one that waits for other things, a few times."""


_HAS_STACKS: Final = {
    "memory": "read from its memory",
    "faulthandler": "by faulthandler",
}
"""Ways of a look that tells stacks, in words."""


class Line(Protocol):
    """What is heard of a worker."""

    @property
    def heard_at(self) -> float:
        """When it last said anything [s]."""

    async def call(self, do: str, arguments: Object) -> Object:
        """Have it run *do*."""


Look = Callable[[], Awaitable[Object]]
"""Returns the answer to `Inspect`; empty: nobody can tell."""


@frozen(kw_only=True)
class Standstill:
    """Why nothing in a process can answer."""

    way: str
    """``kernel``, ``memory`` or ``faulthandler``, as `Inspect` has it."""
    text: str
    """In one line, of the process as ``it``."""
    place: str = ""
    """The application's line. Empty: the kernel is asked, not Python."""
    stack: tuple[str, ...] = ()
    """The stack of the thread that holds the GIL, the innermost line first."""
    is_main: bool = True
    """Whether that is the main thread."""
    state: str = ""
    """What the kernel says of that thread; empty: nothing."""
    duration: float
    """Between the two looks [s]."""


@define(eq=False)
class Asked:
    """A call of a worker that waits for its answer."""

    line: Line
    look: Look
    waiting: trio.CancelScope
    """Around the wait for the answer: cancelled once that cannot come."""
    since: float = field(factory=trio.current_time)
    standstill: Standstill | None = None
    """Why it cannot."""
    watching: trio.CancelScope | None = None
    """Around the looks at a worker that is silent."""


@define(eq=False)
class Watch:
    """Looks after the calls that wait for longer than a moment.

    One task for all of them: most are answered within a fraction of what it takes to
    start one.
    """

    _asked: dict[Asked, None] = field(factory=dict, init=False)
    _news: trio.Event = field(factory=trio.Event, init=False)

    def begin(self, asked: Asked) -> None:
        """Look after *asked* from now on."""
        self._asked[asked] = None
        self._news.set()

    def end(self, asked: Asked) -> None:
        """Look after it no more."""
        del self._asked[asked]
        if asked.watching is not None:
            asked.watching.cancel()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                if not self._asked:
                    self._news = trio.Event()
                    await self._news.wait()
                await trio.sleep(PATIENCE)
                late = trio.current_time() - PATIENCE
                for asked in self._asked:
                    if asked.since <= late and asked.watching is None:
                        asked.watching = trio.CancelScope()
                        nursery.start_soon(_watch, asked, asked.watching)


async def _watch(asked: Asked, watching: trio.CancelScope) -> None:
    with watching:
        asked.standstill = await wait_standstill(asked.line, asked.look, asked.since)
        asked.waiting.cancel()


async def wait_standstill(
    line: Line, look: Look, since: float | None = None
) -> Standstill:
    """Return why a worker cannot answer, once that is sure.

    Returns never for one that says anything at all, however slow it is. A cancellation
    leaves nothing behind.

    Args:
        since: When it was asked something, by the loop's clock [s]; None: now.
    """
    pause = PATIENCE
    since = trio.current_time() if since is None else since
    while True:
        await _wait_silent(line, since)
        is_silent = partial(_is_silent, line, trio.current_time())
        if (found := await look_twice(look, is_silent)) is not None:
            return found
        # Each look interrupts its threads: one that is only slow is left alone.
        await trio.sleep(pause)
        pause *= 2
        since = trio.current_time()


async def look_twice(look: Look, is_silent: Callable[[], bool]) -> Standstill | None:
    """Return why a worker cannot answer; None: that is not sure, or it did."""
    before = await look()
    began = trio.current_time()
    if not before.get("way"):
        return None
    await trio.sleep(PATIENCE)
    if not is_silent():
        return None
    duration = trio.current_time() - began
    now = await look()
    # What came while this process itself stood still is taken in first.
    await trio.lowlevel.checkpoint()
    return standstill(before, now, duration) if is_silent() else None


def standstill(before: Object, now: Object, duration: float) -> Standstill | None:
    """Return why nothing runs between two looks; None: it may."""
    way, text = str(now.get("way", "")), str(now.get("data", ""))
    earlier = str(before.get("data", ""))
    if before.get("way") != way:
        return None
    if way == "kernel":
        is_same = earlier == text
        return Standstill(way=way, text=text, duration=duration) if is_same else None
    if way not in _HAS_STACKS or not _is_wanted(before, now, duration):
        return None
    # Only where it is needed: a supervisor is to be there soon.
    from trio_supervisor.diagnostics.locations import (
        application_location,
        stack_lines,
    )
    from trio_supervisor.diagnostics.remote.fault_stacks import gil_holder, parse_stacks

    if (
        parse_stacks(earlier) != parse_stacks(text)
        or (thread := gil_holder(text)) is None
    ):
        return None
    for location in thread.locations:  # another generation may have another source
        linecache.checkcache(location.file)
    place = str(application_location(thread.locations))
    return Standstill(
        way=way,
        text=f"C code called at {place} holds the GIL",
        place=place,
        stack=stack_lines(thread.locations),
        is_main=thread.is_main,
        state=thread.state,
        duration=duration,
    )


def diagnosis_of(
    seen: Standstill, process_id: int, duration: float, heard: str
) -> Object:
    """Return the fields of a `Diagnosis` of a worker that cannot answer.

    Args:
        duration: Since it was asked [s].
        heard: When it last said anything, in words.
    """
    from trio_supervisor.diagnostics.diagnosis_text import describe
    from trio_supervisor.policy.doctor.unresponsive import held, stopped
    from trio_supervisor.wire.codec import to_fields
    from trio_supervisor.wire.diagnosis import Diagnosis, Finding

    if seen.way == "kernel":
        found = stopped(seen.text, process_id)
        looked = f"its state, by the kernel: {seen.text}"
    else:
        found = held(
            seen.place,
            (*seen.stack, *([f"in the kernel: {seen.state}"] if seen.state else ())),
            is_main=seen.is_main,
            duration=seen.duration,
        )
        means = _HAS_STACKS[seen.way]
        looked = f"its threads, {means}: the same stacks {seen.duration:.1f} s apart"
    diagnosis = Diagnosis(
        data="",
        duration=duration,
        findings=(Finding(**found.as_plain()),),
        looked_at=(f"its agent: no answer in {duration:.1f} s, {heard}", looked),
        left_out=("all else: nothing in the worker can run",),
        overhead=0.0,
        pause=0.0,
        facts={},
        way=seen.way,
    )
    return {**to_fields(diagnosis), "data": describe(diagnosis)}


def _is_wanted(before: Object, now: Object, duration: float) -> bool:
    """Whether a thread asked for the interpreter all the time, and did not get it.

    Else its agent may lack but the processor, or be gone.
    """
    switches: dict[str, int] = before.get("switches", {})
    return any(
        count - switches.get(thread, count) >= _ASKS * duration
        for thread, count in now.get("switches", {}).items()
    )


def _is_silent(line: Line, since: float) -> bool:
    return line.heard_at <= since


async def _wait_silent(line: Line, began: float) -> None:
    """Wait until a worker has said nothing for a while, nor answers a ping."""
    while True:
        await trio.sleep_until(began + PATIENCE)
        if not _is_silent(line, began):
            began = trio.current_time()
            continue
        with trio.move_on_after(PATIENCE), suppress(SupervisorError):
            # Even a refusal is a sign of life.
            await line.call("ping", {})
        await trio.lowlevel.checkpoint()
        if _is_silent(line, began):
            return
        began = trio.current_time()
