"""Accept connections, and keep trying when the descriptor limit is reached."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import trio

from trio_supervisor.process.repeated_failures import RepeatedFailures
from trio_supervisor.process.shortage import shortage_of, text_of

logger = logging.getLogger(__name__)

# Delay before the next attempt; clients wait in the backlog [s].
_PAUSE: Final = 0.1


async def accept_all(
    listener: trio.SocketListener,
    handler: Callable[[trio.SocketStream], Awaitable[object]],
    nursery: trio.Nursery,
    what: str,
) -> NoReturn:
    """Accept connections until cancelled, then close *listener*.

    Like `trio.serve_listeners`, which logs a traceback ten times a second while the
    descriptor limit is reached; this logs one line at the beginning and one at the end.

    Args:
        handler: Runs in *nursery*, and closes the stream.
        what: Name of the server, for the log.
    """
    trouble = RepeatedFailures(logger, f"{what}: accepting connections")
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as exc:
                if (short := shortage_of(exc)) is None:
                    raise
                trouble.failed(
                    f"{what}: cannot accept connections: {text_of(short)}; clients "
                    f"wait in the backlog"
                )
                await trio.sleep(_PAUSE)
            else:
                trouble.worked()
                nursery.start_soon(handler, stream)
