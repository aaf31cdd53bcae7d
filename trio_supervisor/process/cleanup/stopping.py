"""Stop a process: send its stop signal, wait, then kill. Never leak a child."""

from __future__ import annotations

import math
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

import trio
from attrs import define, field, frozen
from attrs.validators import ge

from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.remaining import Forbidden

# Time between two SIGKILLs to a group that is still there [s].
_KILL_INTERVAL: Final = 0.1
_MAX_KILL_INTERVAL: Final = 2.0

PreStop: TypeAlias = Callable[[Process], Awaitable[None]]
"""Called before the stop signal. It is cancelled if it takes too long."""


@frozen(kw_only=True)
class StopPlan:
    """How to stop a process."""

    signal: signal.Signals = signal.SIGTERM
    timeout: float = field(default=10.0, validator=ge(0))
    """Time from *signal* to SIGKILL [s]."""
    kill_mode: Literal["group", "leader"] = "group"
    """``"leader"``: only the leader gets the stop signal, and has to stop the others.
    Processes that are left when it has exited are killed."""


@define(eq=False)
class StopDeadline:
    """A common deadline for stops: after it, processes are killed immediately."""

    _ends_at: float = field(default=math.inf, init=False)
    _scopes: set[trio.CancelScope] = field(factory=set, init=False)

    @property
    def has_expired(self) -> bool:
        """Whether processes are killed immediately."""
        return self._ends_at <= trio.current_time()

    def expire(self) -> None:
        """Make every current and later stop kill immediately."""
        self.limit(-math.inf)

    def limit(self, moment: float) -> None:
        """Make every current and later stop kill at *moment* at the latest.

        By trio's clock. A later moment than the previous limit changes nothing.
        """
        self._ends_at = min(self._ends_at, moment)
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, self._ends_at)

    def bound(self, timeout: float) -> float:
        """Return *timeout*, or the time until the limit if that is shorter [s]."""
        return max(0.0, min(timeout, self._ends_at - trio.current_time()))

    @contextmanager
    def scope(self, timeout: float) -> Iterator[None]:
        """Cancel the block after *timeout* [s], or at the limit."""
        deadline = min(trio.current_time() + timeout, self._ends_at)
        scope = trio.CancelScope(deadline=deadline)
        self._scopes.add(scope)
        if self.has_expired:
            scope.cancel()
        try:
            with scope:
                yield
        finally:
            self._scopes.discard(scope)


async def stop(
    process: Process,
    plan: StopPlan,
    stop_deadline: StopDeadline | None = None,
    pre_stop: PreStop | None = None,
    before_kill: PreStop | None = None,
) -> tuple[Forbidden, ...]:
    """Stop *process* and its whole group; send SIGKILL after the plan's timeout.

    Shielded: a cancelled caller still waits here, up to ``plan.timeout`` seconds and
    then as long as the kernel takes. When this returns, the process is reaped and
    no process of its group is left, except those returned, which this process is not
    permitted to signal.

    Args:
        stop_deadline: Shortens the wait when it expires.
        pre_stop: Called first, if the process still runs; within the plan's timeout.
        before_kill: Called before SIGKILL; has to be fast.
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
    with stop_deadline.scope(plan.timeout):
        if pre_stop is not None and process.returncode is None:
            await pre_stop(process)
        target.signal(plan.signal)
        # A stopped process (SIGSTOP, Ctrl-Z) handles no signal but SIGKILL: resume it.
        target.signal(signal.SIGCONT)
        await target.wait_gone()
    if before_kill is not None and not target.is_gone:
        await before_kill(process)


async def _kill(process: Process) -> tuple[Forbidden, ...]:
    pause = _KILL_INTERVAL
    while not process.is_gone:
        # Repeated: a member may have forked just before it was killed.
        process.signal(signal.SIGKILL)
        with trio.move_on_after(pause):
            await process.wait_gone()
        if not process.is_gone and (left := process.forbidden()):
            return left
        pause = min(2 * pause, _MAX_KILL_INTERVAL)
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
