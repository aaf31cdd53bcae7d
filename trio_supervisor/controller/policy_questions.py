"""Ask the policy of the application, which is in the supervisor process."""

from __future__ import annotations

import logging
from typing import Final, Protocol

import attrs
import trio
from attrs import define

from trio_supervisor.application import SUPERVISOR_NAME, Application
from trio_supervisor.application.worker_policy import (
    HOOKS,
    PolicyWorker,
    WorkerExit,
    hooks_of,
)
from trio_supervisor.controller.child.child_facts import ChildFacts
from trio_supervisor.controller.supervisor_link import SupervisorLink
from trio_supervisor.errors import SupervisorError
from trio_supervisor.tasks import ProtectedNursery
from trio_supervisor.wire.codec import parse_result, unparse_operation
from trio_supervisor.wire.messages import Decide, DecideReport

logger = logging.getLogger(__name__)

# Longer than a policy may take: the supervisor itself may be busy [s].
_PATIENCE: Final = 2.0
# At the start of the controller, workers are there before the supervisor [s].
_START_PATIENCE: Final = 30.0


class PolicyOwner(Protocol):
    """What is asked of the controller."""

    link: SupervisorLink
    nursery: ProtectedNursery

    @property
    def application(self) -> Application: ...


@define(eq=False)
class PolicyQuestions:
    """Questions to the present policy. One that is not answered decides nothing."""

    _owner: PolicyOwner

    def tell_started(self, child: ChildFacts) -> None:
        """Tell the policy that a process of *child* was started, when it can be."""
        is_worker = child.service != SUPERVISOR_NAME
        if is_worker and self.wants("worker_started"):
            self._owner.nursery.start_soon(self._tell_started, child)

    async def _tell_started(self, child: ChildFacts) -> None:
        with trio.move_on_after(_START_PATIENCE):
            await self._owner.link.wait_connected()
            await self.ask("worker_started", child)

    def wants(self, hook: str) -> bool:
        """Return whether the policy has the method *hook*."""
        return hook in hooks_of(self._owner.application.policy)

    async def ask(
        self,
        hook: str,
        child: ChildFacts,
        *,
        problem: str = "",
        how: WorkerExit | None = None,
    ) -> str:
        """Return what method *hook* decides about *child*; empty: nothing."""
        if not self.wants(hook):
            return ""
        worker = PolicyWorker(
            name=child.name,
            service=child.service,
            process_id=child.process_id or child.last_process_id or None,
            incarnation=child.incarnation,
            crashes=child.crashes,
        )
        operation = Decide(
            hook=hook,
            worker=attrs.asdict(worker),
            problem=problem,
            exit={} if how is None else attrs.asdict(how),
        )
        try:
            with trio.fail_after(_PATIENCE):
                await self._owner.link.wait_connected()
                call = unparse_operation(operation)
                answer = parse_result(await self._owner.link.ask(*call), DecideReport)
        except (SupervisorError, trio.TooSlowError) as exc:
            text = str(exc) or f"no answer within {_PATIENCE:g} s"
            logger.warning("%s: the policy cannot be asked: %s", child.name, text)
            return ""
        return answer.decision if answer.decision in HOOKS[hook] else ""
