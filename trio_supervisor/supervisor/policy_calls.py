"""Ask the application's policy, which may raise, hang, or answer nonsense."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import trio
from attrs import define

from trio_supervisor.application import MonitorLike
from trio_supervisor.application.worker_policy import (
    HOOKS,
    Policy,
    PolicyWorker,
    WorkerExit,
    hooks_of,
)
from trio_supervisor.supervisor.monitors.base import MonitoredWorker
from trio_supervisor.supervisor.monitors.memory import MemoryMonitor
from trio_supervisor.wire.messages import Decide

logger = logging.getLogger(__name__)

LIMIT: Final = 1.0
"""How long a policy may take to decide [s]."""


@define(eq=False)
class PolicyCalls:
    """Calls the methods of one policy."""

    _policy: Policy

    async def decide(self, operation: Decide) -> str:
        """Return what the policy decides; empty: nothing."""
        worker = PolicyWorker(**operation.worker)
        if operation.hook == "worker_exited":
            details: object = WorkerExit(**operation.exit)
        else:
            details = operation.problem
        arguments = (
            [worker] if operation.hook == "worker_started" else [worker, details]
        )
        return await self.ask(operation.hook, *arguments)

    def decide_leaks_of(self, monitors: Sequence[MonitorLike]) -> None:
        """Have each `MemoryMonitor` ask what is done about a leak."""
        if "leak_detected" in hooks_of(self._policy):
            for monitor in monitors:
                if isinstance(monitor, MemoryMonitor):
                    monitor.ask_policy = self._decide_leak

    async def _decide_leak(self, worker: MonitoredWorker, leak: str) -> Any:
        name = worker.name
        facts = PolicyWorker(
            name=name,
            service=name.rpartition(".")[0] or name,
            process_id=worker.process_id,
            incarnation=getattr(worker, "incarnation", 0),
            crashes=0,
        )
        return await self.ask("leak_detected", facts, leak) or None

    async def ask(self, hook: str, worker: PolicyWorker, *arguments: object) -> str:
        """Return what method *hook* decides; empty: nothing, or it failed."""
        what = f"policy {type(self._policy).__qualname__}.{hook}({worker.name})"
        method: Callable[..., Awaitable[Any]] = getattr(self._policy, hook)
        try:
            with trio.fail_after(LIMIT):
                decision = await method(worker, *arguments)
                is_known = isinstance(decision, str) and decision in HOOKS[hook]
        except trio.TooSlowError:
            logger.error("%s took longer than %g s; it decides nothing", what, LIMIT)
            return ""
        except (Exception, SystemExit, KeyboardInterrupt) as exc:
            logger.error("%s failed; it decides nothing", what, exc_info=exc)
            return ""
        if decision is None or is_known:
            return decision or ""
        allowed = ", ".join(map(repr, (*HOOKS[hook], None)))
        logger.error("%s returned %.80r, not one of %s", what, decision, allowed)
        return ""
