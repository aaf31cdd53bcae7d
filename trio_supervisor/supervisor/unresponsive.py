"""Tell a worker that is slow from one that cannot answer, and say why it cannot.

A slow worker keeps all of its time. That a worker cannot answer is concluded only if
two inspections from outside return the same, while it does not even answer a ping.
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

ANSWER_WITHIN: Final = 1.5
"""An agent that can answer does so much sooner [s]."""
_REQUESTS: Final = 50
"""A thread that waits for the GIL wakes up 200 times a second to request it, or more
often with a shorter switch interval; a thread that waits for anything else, a few
times."""


_HAS_STACKS: Final = {
    "memory": "read from its memory",
    "faulthandler": "by faulthandler",
}
"""Ways of an inspection that returns stacks, with their description."""


class WorkerLink(Protocol):
    """A connection to a worker, as far as this module uses it."""

    @property
    def heard_at(self) -> float:
        """When the last message arrived [s]."""

    async def call(self, do: str, arguments: Object) -> Object:
        """Have the worker run *do*."""


InspectWorker = Callable[[], Awaitable[Object]]
"""Returns the answer to `Inspect`; empty if nothing is known."""


@frozen(kw_only=True)
class Blockage:
    """Why nothing in a process can answer."""

    way: str
    """``kernel``, ``memory`` or ``faulthandler``; see `Inspect`."""
    text: str
    """In one line, with the process as ``it``."""
    place: str = ""
    """The line of the application. Empty: the kernel reports it, not Python."""
    stack: tuple[str, ...] = ()
    """The stack of the thread that holds the GIL, the innermost line first."""
    is_main: bool = True
    """Whether that is the main thread."""
    state: str = ""
    """State of that thread in the kernel; empty if unknown."""
    duration: float
    """Time between the two inspections [s]."""


@define(eq=False)
class WatchedCall:
    """A call of a worker that waits for its answer."""

    link: WorkerLink
    inspect: InspectWorker
    waiting: trio.CancelScope
    """Around the wait for the answer; cancelled once no answer can arrive."""
    since: float = field(factory=trio.current_time)
    blockage: Blockage | None = None
    """Why no answer can arrive."""
    watching: trio.CancelScope | None = None
    """Around the task that inspects the worker."""


@define(eq=False)
class CallWatch:
    """Watches the calls that are not answered soon.

    One task serves all calls: most are answered within a fraction of the time that
    starting a task takes.
    """

    _calls: dict[WatchedCall, None] = field(factory=dict, init=False)
    _added: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )

    def begin(self, call: WatchedCall) -> None:
        """Watch *call* from now on."""
        self._calls[call] = None
        self._added.unpark_all()

    def end(self, call: WatchedCall) -> None:
        """Stop watching *call*."""
        del self._calls[call]
        if call.watching is not None:
            call.watching.cancel()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                if not self._calls:
                    await self._added.park()
                await trio.sleep(ANSWER_WITHIN)
                late = trio.current_time() - ANSWER_WITHIN
                for call in self._calls:
                    if call.since <= late and call.watching is None:
                        call.watching = trio.CancelScope()
                        nursery.start_soon(_watch, call, call.watching)


async def _watch(call: WatchedCall, watching: trio.CancelScope) -> None:
    with watching:
        call.blockage = await wait_blocked(call.link, call.inspect, call.since)
        call.waiting.cancel()


async def wait_blocked(
    link: WorkerLink, inspect: InspectWorker, since: float | None = None
) -> Blockage:
    """Wait until it is certain that a worker cannot answer; return why.

    Never returns for a worker that sends anything, however slow it is. A cancellation
    leaves nothing behind.

    Args:
        since: When the worker was called, by the loop's clock [s]; None: now.
    """
    pause = ANSWER_WITHIN
    since = trio.current_time() if since is None else since
    while True:
        await _wait_silent(link, since)
        is_silent = partial(_is_silent, link, trio.current_time())
        if (found := await inspect_twice(inspect, is_silent)) is not None:
            return found
        # Each inspection interrupts its threads: inspect a slow worker less and less.
        await trio.sleep(pause)
        pause *= 2
        since = trio.current_time()


async def inspect_twice(
    inspect: InspectWorker, is_silent: Callable[[], bool]
) -> Blockage | None:
    """Return why a worker cannot answer; None if that is uncertain, or it answered."""
    before = await inspect()
    began = trio.current_time()
    if not before.get("way"):
        return None
    await trio.sleep(ANSWER_WITHIN)
    if not is_silent():
        return None
    duration = trio.current_time() - began
    now = await inspect()
    # Read first what arrived while this process itself was stopped.
    await trio.lowlevel.checkpoint()
    return find_blockage(before, now, duration) if is_silent() else None


def find_blockage(before: Object, now: Object, duration: float) -> Blockage | None:
    """Return why nothing ran between two inspections; None if that is uncertain."""
    way, text = str(now.get("way", "")), str(now.get("data", ""))
    earlier = str(before.get("data", ""))
    if before.get("way") != way:
        return None
    if way == "kernel":
        is_same = earlier == text
        return Blockage(way=way, text=text, duration=duration) if is_same else None
    if way not in _HAS_STACKS or not _waits_for_gil(before, now, duration):
        return None
    # Imported late: a supervisor should start fast.
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
    for location in thread.locations:  # the source may differ between generations
        linecache.checkcache(location.file)
    place = str(application_location(thread.locations))
    return Blockage(
        way=way,
        text=f"C code called at {place} holds the GIL",
        place=place,
        stack=stack_lines(thread.locations),
        is_main=thread.is_main,
        state=thread.state,
        duration=duration,
    )


def diagnose_blockage(
    blockage: Blockage, process_id: int, duration: float, heard: str
) -> Object:
    """Return the fields of a `Diagnosis` of a worker that cannot answer.

    Args:
        duration: Time since it was called [s].
        heard: When its last message arrived, for people.
    """
    from trio_supervisor.diagnostics.diagnosis_text import describe
    from trio_supervisor.policy.doctor.unresponsive import held, stopped
    from trio_supervisor.wire.codec import to_fields
    from trio_supervisor.wire.diagnosis import Diagnosis

    if blockage.way == "kernel":
        found = stopped(blockage.text, process_id)
        inspected = f"state in the kernel: {blockage.text}"
    else:
        in_kernel = [f"in the kernel: {blockage.state}"] if blockage.state else []
        found = held(
            blockage.place,
            (*blockage.stack, *in_kernel),
            is_main=blockage.is_main,
            duration=blockage.duration,
        )
        means = _HAS_STACKS[blockage.way]
        inspected = f"threads ({means}): same stacks {blockage.duration:.1f} s apart"
    diagnosis = Diagnosis(
        data="",
        duration=duration,
        findings=(found,),
        looked_at=(f"agent: no answer within {duration:.1f} s, {heard}", inspected),
        left_out=("everything else: nothing in the worker can run",),
        overhead=0.0,
        pause=0.0,
        facts={},
        way=blockage.way,
    )
    return {**to_fields(diagnosis), "data": describe(diagnosis)}


def _waits_for_gil(before: Object, now: Object, duration: float) -> bool:
    """Return whether a thread requested the GIL all the time without getting it.

    Otherwise the agent may only lack processor time, or its thread has ended.
    """
    switches: dict[str, int] = before.get("switches", {})
    return any(
        count - switches.get(thread, count) >= _REQUESTS * duration
        for thread, count in now.get("switches", {}).items()
    )


def _is_silent(link: WorkerLink, since: float) -> bool:
    return link.heard_at <= since


async def _wait_silent(link: WorkerLink, began: float) -> None:
    """Wait until a worker has sent nothing for a while and not answered a ping."""
    while True:
        await trio.sleep_until(began + ANSWER_WITHIN)
        if not _is_silent(link, began):
            began = trio.current_time()
            continue
        with trio.move_on_after(ANSWER_WITHIN), suppress(SupervisorError):
            # A refusal shows that it runs as well.
            await link.call("ping", {})
        await trio.lowlevel.checkpoint()
        if _is_silent(link, began):
            return
        began = trio.current_time()
