"""Accept connections, also while no descriptor is left for one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import trio

from trio_supervisor.process.repeated_failures import RepeatedFailures
from trio_supervisor.process.shortage import shortage_of, text_of

logger = logging.getLogger(__name__)

# Until another attempt: clients wait in the backlog [s].
_PAUSE: Final = 0.1


async def accept_all(
    listener: trio.SocketListener,
    handler: Callable[[trio.SocketStream], Awaitable[object]],
    nursery: trio.Nursery,
    what: str,
) -> NoReturn:
    """Accept until cancelled, and close *listener* then.

    As `trio.serve_listeners`, which writes a traceback ten times a second while the
    limit of descriptors is reached; here one line says it, and one that it is over.

    Args:
        handler: Runs in *nursery*, and closes the stream.
        what: Who accepts, for the log.
    """
    trouble = RepeatedFailures(logger, f"{what}: connections are accepted")
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
