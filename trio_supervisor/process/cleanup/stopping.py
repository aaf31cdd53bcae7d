"""The one place that ends processes: ask, wait, then kill. Never a leaked child."""

from __future__ import annotations

import math
import signal
from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeAlias

import trio
from attrs import define, field, frozen
from attrs.validators import ge

from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.remaining import Forbidden

# How long what was killed has to end before it is looked at, and killed, again [s].
_KILL_PAUSE: Final = 0.1
_KILL_PAUSE_MOST: Final = 2.0

PreStop: TypeAlias = Callable[[Process], Awaitable[None]]
"""Done before a process is asked to end. Is cancelled when it takes too long."""


@frozen(kw_only=True)
class StopPlan:
    """How a process is asked to end, and how long we wait for it."""

    signal: signal.Signals = signal.SIGTERM
    timeout: float = field(default=10.0, validator=ge(0))
    """Time from *signal* to SIGKILL [s]."""
    kill_mode: Literal["group", "leader"] = "group"
    """``"leader"``: the others are not asked, for it is to end them. What it has left
    when it is gone is killed."""


@define(eq=False)
class StopDeadline:
    """Bears the time between asking and killing, until `lose` or a `limit` ends it."""

    _ends_at: float = field(default=math.inf, init=False)
    _scopes: set[trio.CancelScope] = field(factory=set, init=False)

    @property
    def has_expired(self) -> bool:
        """Whether what does not end is killed at once."""
        return self._ends_at <= trio.current_time()

    def expire(self) -> None:
        """Have every stop under way, and every later one, kill at once."""
        self.limit(-math.inf)

    def limit(self, moment: float) -> None:
        """Have every stop, under way or later, kill at *moment* at the latest.

        By the clock of trio; a later moment than the one before changes nothing.
        """
        self._ends_at = min(self._ends_at, moment)
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, self._ends_at)

    def bound(self, timeout: float) -> float:
        """Return *timeout*, or what is left until the limit, if that is less [s]."""
        return max(0.0, min(timeout, self._ends_at - trio.current_time()))

    def scope(self, timeout: float) -> trio.CancelScope:
        """Return a scope that is cancelled after *timeout* [s], or when lost."""
        deadline = min(trio.current_time() + timeout, self._ends_at)
        scope = trio.CancelScope(deadline=deadline)
        self._scopes = {s for s in self._scopes if not s.cancel_called} | {scope}
        if self.has_expired:
            scope.cancel()
        return scope

    def forget(self, scope: trio.CancelScope) -> None:
        """Say that *scope* was left."""
        self._scopes.discard(scope)


async def stop(
    process: Process,
    plan: StopPlan,
    stop_deadline: StopDeadline | None = None,
    pre_stop: PreStop | None = None,
    before_kill: PreStop | None = None,
) -> tuple[Forbidden, ...]:
    """End *process* and all of its group; SIGKILL follows the plan's timeout.

    Shielded: a cancelled caller still waits here, ``plan.timeout`` seconds at most and
    then as long as the kernel takes. When this returns, the process is reaped and
    nothing of its group is left, but for what is returned: nobody here is permitted to
    signal that.

    Args:
        stop_deadline: Cuts the wait short when it is lost.
        pre_stop: Done first, if the process still runs; its time is the plan's.
        before_kill: Done before SIGKILL; to be quick.
    """
    stop_deadline = stop_deadline or StopDeadline()
    target: Process = process
    if plan.kill_mode == "leader":
        target = _Leader(process)
    with trio.CancelScope(shield=True):
        await _ask(process, target, plan, stop_deadline, pre_stop, before_kill)
        return await _kill(process)
    raise AssertionError("a shielded scope was cancelled")


async def _ask(
    process: Process,
    target: Process,
    plan: StopPlan,
    stop_deadline: StopDeadline,
    pre_stop: PreStop | None,
    before_kill: PreStop | None,
) -> None:
    if process.is_gone:
        return
    with stop_deadline.scope(plan.timeout) as grace:
        if pre_stop is not None and process.returncode is None:
            await pre_stop(process)
        target.signal(plan.signal)
        # A stopped process (SIGSTOP, Ctrl-Z) acts on nothing but SIGKILL: wake it.
        target.signal(signal.SIGCONT)
        await target.wait_gone()
    stop_deadline.forget(grace)
    if before_kill is not None and not target.is_gone:
        await before_kill(process)


async def _kill(process: Process) -> tuple[Forbidden, ...]:
    pause = _KILL_PAUSE
    while not process.is_gone:
        # Again: one of them may have had a child between our look and our signal.
        process.signal(signal.SIGKILL)
        with trio.move_on_after(pause):
            await process.wait_gone()
        if not process.is_gone and (left := process.forbidden()):
            return left
        pause = min(2 * pause, _KILL_PAUSE_MOST)
    return ()


@define(eq=False)
class _Leader:
    """A process without its group."""

    _process: Process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def is_gone(self) -> bool:
        return self._process.returncode is not None

    def signal(self, sig: int) -> None:
        self._process.signal_leader(sig)

    def signal_leader(self, sig: int) -> None:
        self._process.signal_leader(sig)

    def forbidden(self) -> tuple[Forbidden, ...]:
        return self._process.forbidden()

    def describe_remaining(self) -> str:
        return self._process.describe_remaining()

    async def wait(self) -> int:
        return await self._process.wait()

    async def wait_gone(self) -> None:
        await self._process.wait()

    def close(self) -> None:
        self._process.close()
