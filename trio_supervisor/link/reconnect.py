"""Keep one connection alive: connect, use it, lose it, wait, connect again."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeAlias

import trio
from attrs import field, frozen
from attrs.validators import gt

from trio_supervisor.errors import SupervisorError
from trio_supervisor.policy.restart import Backoff

logger = logging.getLogger(__name__)

Connect: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]
Session: TypeAlias = Callable[[trio.abc.Stream], Awaitable[bool | None]]
"""Uses a stream until it ends; returns True if it came to do what it is for."""


@frozen(kw_only=True)
class ReconnectPlan:
    """How long to try, and how long to wait in between."""

    # The first attempt after a loss is immediate: while a supervisor is replaced its
    # listener goes on living, so a connect succeeds at once.
    backoff: Backoff = field(
        # The cap keeps the promise that all are back within a second, also of a
        # supervisor that is killed again and again.
        factory=lambda: Backoff(base=0.05, cap=0.5, stable_after=1.0)
    )
    connect_timeout: float = field(default=10.0, validator=gt(0))
    """Time allowed to connecting alone, not to the session [s]."""


async def keep_connected(
    connect: Connect, session: Session, plan: ReconnectPlan, rng: random.Random
) -> NoReturn:
    """Run *session* over one fresh stream after another, until cancelled.

    Losing the peer is normal and is retried; an error that is none of this package's,
    and no OSError, is a bug and propagates. Each stream is closed before the next one
    is opened.

    Args:
        connect: Opens a stream, or raises OSError.
        session: Uses the stream until it ends. The attempt after a good one is
            immediate.
    """
    attempt = 0
    while True:
        stream: trio.abc.Stream | None = None
        # This scope holds connect() alone. A session inside it would be cut,
        # connected and well, connect_timeout seconds after it began.
        with trio.move_on_after(plan.connect_timeout):
            try:
                stream = await connect()
            except OSError as exc:
                logger.debug("attempt %d: no connection: %s", attempt, exc)

        if stream is not None:
            began, is_good = trio.current_time(), False
            # except*, for a nursery inside a session wraps what it raises.
            try:
                async with stream:
                    is_good = await session(stream) is True
            except* (SupervisorError, OSError, trio.BrokenResourceError) as group:
                logger.debug("attempt %d: lost: %r", attempt, group.exceptions)
            # A peer that accepts and hangs up at once never resets the backoff.
            if is_good or trio.current_time() - began >= plan.backoff.stable_after:
                attempt = 0

        await trio.sleep(plan.backoff.delay(attempt, rng.random()))
        attempt += 1
