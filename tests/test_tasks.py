"""Test the errors that leave our blocks, and the end of background tasks."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.lowlevel import currently_ki_protected

from trio_supervisor.tasks import (
    Background,
    combined,
    interrupt_safe,
    open_nursery,
    single,
)

ERROR, FAILURE = ValueError("of the body"), LookupError("of ours")


async def test_tasks_and_their_callees_are_protected() -> None:
    found: list[bool] = []

    async def child(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.lowlevel.checkpoint()
        found.append(currently_ki_protected())
        task_status.started()

    async with open_nursery() as nursery:
        await nursery.start(child)
        nursery.start_soon(_note, found)
        assert not currently_ki_protected()
    assert found == [True, True]


async def _note(found: list[bool]) -> None:
    found.append(currently_ki_protected())


async def test_blocks_are_protected_but_bodies_are_not() -> None:
    found: list[bool] = []

    @interrupt_safe
    @asynccontextmanager
    async def open_it() -> AsyncIterator[None]:
        found.append(currently_ki_protected())
        yield
        found.append(currently_ki_protected())

    async with open_it():
        assert not currently_ki_protected()
    assert found == [True, True]


def test_single_unwraps_groups_and_drops_cancellations() -> None:
    assert single(ERROR) is ERROR
    group = ExceptionGroup("", [ExceptionGroup("", [ERROR])])
    assert single(group) is ERROR
    two = ExceptionGroup("", [ERROR, FAILURE])
    assert single(ExceptionGroup("", [two])) is two
    mixed = BaseExceptionGroup("", [_cancelled(), ERROR])
    assert single(mixed) is ERROR


def test_combined_prefers_failures_to_cancellations() -> None:
    assert combined(None, None) is None
    assert combined(ERROR, None) is ERROR
    assert combined(None, FAILURE) is FAILURE
    assert combined(ERROR, ERROR) is ERROR
    cancelled = _cancelled()
    assert combined(cancelled, None) is cancelled
    assert combined(cancelled, FAILURE) is FAILURE
    assert combined(BaseExceptionGroup("", [cancelled]), FAILURE) is FAILURE
    assert combined(ERROR, cancelled) is ERROR


def test_combined_groups_two_errors() -> None:
    group = combined(ERROR, FAILURE)
    assert isinstance(group, ExceptionGroup)
    assert group.exceptions == (ERROR, FAILURE)


def test_combined_prefers_interrupts_and_exits() -> None:
    for interrupt in (KeyboardInterrupt(), SystemExit(3)):
        assert combined(interrupt, FAILURE) is interrupt
        assert interrupt.__notes__ == ["also: LookupError: of ours"]
    interrupt = KeyboardInterrupt()
    assert combined(ERROR, interrupt) is interrupt
    assert interrupt.__notes__ == ["also: ValueError: of the body"]


def _cancelled() -> BaseException:
    caught: list[BaseException] = []

    async def be_cancelled() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as exc:
                caught.append(exc)
                raise

    trio.run(be_cancelled)
    return caught[0]


class Recorder:
    """A background task that takes three seconds to end, or one when hurried."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.asked = trio.Event()
        self.hurried = trio.Event()

    async def run(self, background: Background[Recorder]) -> None:
        """Run until asked to end."""
        background.started(self)
        await self.asked.wait()
        with trio.move_on_after(3):
            await self.hurried.wait()
        self.seen.append("ended")

    def end(self) -> None:
        """Record the call."""
        self.seen.append("asked")
        self.asked.set()

    def hurry(self) -> None:
        """Record the call."""
        self.seen.append("hurried")
        self.hurried.set()

    def background(self) -> Background[Recorder]:
        """Return the block that runs the task."""
        return Background(self.run, Recorder.end, Recorder.hurry)


def _clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.mark.parametrize("checkpoints", range(8))
@pytest.mark.parametrize("how", ["cancel", "interrupt"])
def test_background_interrupted_anywhere_ends(how: str, checkpoints: int) -> None:
    """It is interrupted at each of its checkpoints, in virtual time."""
    recorder = Recorder()
    scope = trio.CancelScope()

    class Breaker(trio.abc.Instrument):
        steps = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.steps += 1
            if self.steps == 3 + checkpoints:
                if how == "cancel":
                    scope.cancel()
                else:
                    signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        with scope:
            async with recorder.background() as background:
                await background.wait_started()
                await trio.sleep(1)
        assert trio.current_time() - began <= 4.1

    began = 0.0

    async def timed() -> None:
        nonlocal began
        began = trio.current_time()
        await main()

    try:
        trio.run(timed, instruments=[Breaker()], clock=_clock())
    except KeyboardInterrupt:
        assert how == "interrupt"
    assert recorder.seen in (["asked", "ended"], [])


def test_second_interrupt_hurries() -> None:
    recorder = Recorder()

    async def main() -> None:
        async with recorder.background() as background:
            await background.wait_started()
            trio.lowlevel.spawn_system_task(_interrupt_twice)
            await trio.sleep_forever()

    async def _interrupt_twice() -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.sleep(1)
        assert recorder.seen == ["asked"]
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=_clock())
    assert recorder.seen == ["asked", "hurried", "ended"]


def test_background_of_abandoned_generator_ends_with_run() -> None:
    recorder = Recorder()
    kept: list[AsyncIterator[None]] = []

    async def generate() -> AsyncIterator[None]:
        async with recorder.background() as background:
            await background.wait_started()
            yield

    async def main() -> None:
        kept.append(generate())
        await anext(kept[0])

    trio.run(main, clock=_clock())
    assert recorder.seen == ["asked", "ended"]


async def test_error_in_background_ends_block() -> None:
    async def fail(background: Background[int]) -> None:
        background.started(1)
        raise ExceptionGroup("", [FAILURE])

    block = trio.CancelScope()
    background = Background(fail, lambda _: None, on_over=block.cancel)
    with block:
        async with background:
            await trio.sleep_forever()
    assert background.error is FAILURE


async def test_error_at_start_of_background_is_raised_at_entry() -> None:
    async def fail(background: Background[int]) -> None:
        raise FAILURE

    with pytest.raises(LookupError, match="of ours"):
        async with Background(fail, lambda _: None) as background:
            await background.wait_started()
