"""Keep one connection open: connect, use it, and reconnect when it is lost."""

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
"""Uses a stream until it ends; returns True if the session was successful."""


@frozen(kw_only=True)
class ReconnectPlan:
    """Timeout of a connect, and delays between attempts."""

    # The first attempt after a loss is immediate: the listening socket stays open while
    # the supervisor is replaced, so the connect succeeds immediately.
    backoff: Backoff = field(
        # With this cap, all workers reconnect within a second, even if the supervisor
        # is killed repeatedly.
        factory=lambda: Backoff(base=0.05, cap=0.5, stable_after=1.0)
    )
    connect_timeout: float = field(default=10.0, validator=gt(0))
    """Time limit for connecting, not for the session [s]."""


async def keep_connected(
    connect: Connect, session: Session, plan: ReconnectPlan, rng: random.Random
) -> NoReturn:
    """Run *session* over one new stream after another, until cancelled.

    A lost connection is normal and is retried. An error other than SupervisorError and
    OSError is a bug and propagates. Each stream is closed before the next one is
    opened.

    Args:
        connect: Opens a stream, or raises OSError.
        session: Uses the stream until it ends. After a successful one, the next attempt
            is immediate.
    """
    attempt = 0
    while True:
        stream: trio.abc.Stream | None = None
        # Only connect() is in this scope: a session inside it would be cancelled after
        # connect_timeout seconds, although it is healthy.
        with trio.move_on_after(plan.connect_timeout):
            try:
                stream = await connect()
            except OSError as exc:
                logger.debug("attempt %d: no connection: %s", attempt, exc)

        if stream is not None:
            began, is_good = trio.current_time(), False
            # except*, since a nursery in a session raises groups.
            try:
                async with stream:
                    is_good = await session(stream) is True
            except* (SupervisorError, OSError, trio.BrokenResourceError) as group:
                logger.debug("attempt %d: lost: %r", attempt, group.exceptions)
            # A peer that accepts and closes immediately never resets the backoff.
            if is_good or trio.current_time() - began >= plan.backoff.stable_after:
                attempt = 0

        await trio.sleep(plan.backoff.delay(attempt, rng.random()))
        attempt += 1
