"""Test that bytes are passed on as they are written, and no reader is waited for."""

from __future__ import annotations

import os
import sys
import termios

import pytest
import trio

from trio_supervisor.process.output.attachment import (
    Attachment,
    Part,
    ProcessChange,
)
from trio_supervisor.process.output.hub import OutputHub, open_output_hub

STARTED = ProcessChange(7, True, False)


def attachment(limit: int = 100) -> Attachment:
    return Attachment("web.0", 1, lambda _: None, limit)


async def take(reader: Attachment) -> Part:
    with trio.fail_after(5):
        return await anext(reader)


async def test_items_come_in_order_and_then_it_ends() -> None:
    reader = attachment()
    reader.offer(b"a")
    reader.offer(STARTED)
    reader.close()
    assert [part.item async for part in reader] == [b"a", STARTED]


async def test_slow_reader_loses_the_oldest_bytes_but_no_change() -> None:
    reader = attachment(limit=10)
    for item in (b"12345", STARTED, b"abcde", b"ABCDE"):
        reader.offer(item)
    assert await take(reader) == Part(item=STARTED, missed=1)
    assert await take(reader) == Part(item=b"abcde", missed=0)
    reader.offer(b"x" * 50)  # the latest is kept, however long it is
    assert await take(reader) == Part(item=b"x" * 50, missed=1)


async def test_long_bytes_come_in_parts() -> None:
    reader = attachment(limit=10**6)
    reader.offer(b"x" * 40_000)
    reader.close()
    parts = [part.item async for part in reader]
    assert b"".join(bytes(part) for part in parts if isinstance(part, bytes)) == (
        b"x" * 40_000
    )
    assert len(parts) == 3


async def test_incomplete_line_is_passed_on_at_once() -> None:
    async with open_output_hub() as hub:
        with hub.attach("web.0", 1) as reader, hub.open("web.0") as output:
            process_end = os.dup(output.descriptors[0])
            output.started(7)
            os.write(process_end, b"no newline")
            assert (await take(reader)).item == STARTED
            assert (await take(reader)).item == b"no newline"
            os.close(process_end)
            output.finish()
            output.finish()
            assert (await take(reader)).item == ProcessChange(7, False, False)
            with trio.move_on_after(0.01), pytest.raises(trio.Cancelled):
                await anext(reader)


needs_terminal = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


@needs_terminal
async def test_terminal_takes_keys_and_has_the_size_of_the_reader() -> None:
    async with open_output_hub() as hub:
        with hub.attach("web.0", 1) as reader:
            hub.set_size("web.0", (30, 100))
            hub.set_size("other", (1, 1))
            with hub.open("web.0", has_terminal=True) as output:
                process_end = os.dup(output.descriptors[0])
                assert termios.tcgetwinsize(process_end) == (30, 100)
                output.started(7)
                output.resize((40, 120))
                assert termios.tcgetwinsize(process_end) == (40, 120)
                assert await output.type(b"ls\r")
                assert os.read(process_end, 9) == b"ls\n"
                assert (await take(reader)).item == ProcessChange(7, True, True)
                assert (await take(reader)).item == b"ls\r\n"
                os.close(process_end)
        with hub.open("web.0", has_terminal=True) as output:
            assert termios.tcgetwinsize(output.descriptors[0]) == (24, 80)


@needs_terminal
async def test_two_may_type_into_a_full_terminal() -> None:
    async with open_output_hub() as hub:
        with hub.open("web.0", has_terminal=True) as output:
            process_end = os.dup(output.descriptors[0])
            output.started(7)
            with trio.move_on_after(0.05) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(output.type, b"y\n" * 20_000)
                    nursery.start_soon(output.type, b"z\n" * 20_000)
            assert scope.cancelled_caught
            os.close(process_end)


@needs_terminal
async def test_reader_begins_with_the_latest_output_to_a_terminal() -> None:
    """A prompt was written before, and has no newline."""
    async with open_output_hub() as hub:
        with hub.open("web.0", has_terminal=True) as output:
            process_end = os.dup(output.descriptors[0])
            output.started(7)
            os.write(process_end, b"".join(b"%d\n" % n for n in range(900)) + b"> ")
            await _until_read(hub, b"> ")
            with hub.attach("web.0", 1) as reader:
                item = (await take(reader)).item
            assert isinstance(item, bytes)
            assert item.endswith(b"\n898\r\n899\r\n> ")
            first = item.split(b"\r\n")[0]
            assert first.isdigit()
            assert len(first) == 3
            assert len(item) <= 2048
            os.close(process_end)
        hub.forget("web.0")
        with hub.attach("web.0", 1) as reader, trio.move_on_after(0.01) as scope:
            await anext(reader)
        assert scope.cancelled_caught


async def _until_read(hub: OutputHub, end: bytes) -> None:
    with trio.fail_after(5):
        while not hub._latest.get("web.0", b"").endswith(end):  # noqa: ASYNC110
            await trio.sleep(0.001)


async def test_output_without_a_terminal_takes_no_keys() -> None:
    async with open_output_hub() as hub:
        with hub.open("web.0") as output:
            assert not await output.type(b"x")
            os.dup2(output.descriptors[0], process_end := os.dup(1))
            output.started(7)
            assert not await output.type(b"x")
            output.resize((1, 1))
            os.close(process_end)
