"""Accepting connections while the descriptor limit is reached."""

from __future__ import annotations

import errno
import logging

import pytest
import trio

from trio_supervisor.process.sockets.accept import accept_all
from trio_supervisor.testing import in_virtual_time


class Listener(trio.abc.Listener[trio.SocketStream]):
    """A listener that raises the given errors, then waits."""

    def __init__(self, errors: list[OSError]) -> None:
        self.errors = errors
        self.is_closed = False

    async def accept(self) -> trio.SocketStream:
        """Fail, or wait for ever."""
        await trio.lowlevel.checkpoint()
        if not self.errors:
            await trio.sleep_forever()
        error = self.errors.pop(0)
        if error.errno == 0:
            return None  # type: ignore[return-value]
        raise error

    async def aclose(self) -> None:
        """Note it."""
        self.is_closed = True


async def run(listener: Listener) -> int:
    """Accept for an hour; return the number of connections."""
    count = 0

    async def handle(_: object) -> None:
        nonlocal count
        count += 1

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(3600):
            await accept_all(listener, handle, nursery, "x")  # type: ignore[arg-type]
    return count


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS]
)
def test_accept_all_shortage_is_logged_at_begin_and_end(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    @in_virtual_time
    async def test() -> None:
        ok = OSError(0, "")
        listener = Listener([ok, *[OSError(number, "why")] * 600, ok, ok])
        assert await run(listener) == 3
        assert listener.is_closed

    with caplog.at_level(logging.INFO):
        test()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0].startswith("x: cannot accept connections: why")
    assert messages[1].startswith("x: accepting connections again (failed 600 times")


@in_virtual_time
async def test_accept_all_other_error_is_raised() -> None:
    with pytest.raises(ExceptionGroup) as info:
        await run(Listener([OSError(errno.EBADF, "closed")]))
    assert isinstance(info.value.exceptions[0], OSError)
