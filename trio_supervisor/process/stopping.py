"""The one place that ends processes: ask, wait, then kill. Never a leaked child."""

from __future__ import annotations

import signal

import trio
from attrs import define, field, frozen
from attrs.validators import ge

from trio_supervisor.process.child import Process


@frozen(kw_only=True)
class StopPlan:
    """How a process is asked to end, and how long we wait for it."""

    signal: signal.Signals = signal.SIGTERM
    timeout: float = field(default=10.0, validator=ge(0))
    """Time from *signal* to SIGKILL [s]."""


@define(eq=False)
class Patience:
    """Bears the time between asking and killing, until `lose` ends it."""

    is_lost: bool = field(default=False, init=False)
    _scopes: set[trio.CancelScope] = field(factory=set, init=False)

    def lose(self) -> None:
        """Have every stop under way, and every later one, kill at once."""
        self.is_lost = True
        for scope in self._scopes:
            scope.cancel()

    def scope(self, timeout: float) -> trio.CancelScope:
        """Return a scope that is cancelled after *timeout* [s], or when lost."""
        scope = trio.CancelScope(deadline=trio.current_time() + timeout)
        self._scopes = {s for s in self._scopes if not s.cancel_called} | {scope}
        if self.is_lost:
            scope.cancel()
        return scope

    def forget(self, scope: trio.CancelScope) -> None:
        """Say that *scope* was left."""
        self._scopes.discard(scope)


async def stop(
    process: Process, plan: StopPlan, patience: Patience | None = None
) -> None:
    """End *process* and all of its group; SIGKILL follows the plan's timeout.

    Shielded: a cancelled caller still waits here, ``plan.timeout`` seconds at most and
    then as long as the kernel takes. When this returns, the process is reaped and
    nothing of its group is left.

    Args:
        patience: Cuts the wait short when it is lost.
    """
    patience = patience or Patience()
    with trio.CancelScope(shield=True):
        if process.is_gone:
            return
        process.signal(plan.signal)
        # A stopped process (SIGSTOP, Ctrl-Z) acts on nothing but SIGKILL: wake it.
        process.signal(signal.SIGCONT)
        with patience.scope(plan.timeout) as grace:
            await process.wait_gone()
        patience.forget(grace)
        if not process.is_gone:
            process.signal(signal.SIGKILL)
            await process.wait_gone()
