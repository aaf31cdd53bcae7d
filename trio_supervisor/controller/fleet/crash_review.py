"""Decide what follows a crash, beyond the worker's own restart rules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import trio
from attrs import define, field, frozen

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.events import Event, GroupFailed
from trio_supervisor.controller.fleet.generation import Generation
from trio_supervisor.policy.operations import GroupRestart
from trio_supervisor.policy.restart import (
    Cause,
    Decision,
    Ending,
    GiveUp,
    Leave,
    RestartAfter,
)
from trio_supervisor.policy.strategy import GiveUpAll, RestartTogether


def _ignore(child: Child, ending: Ending) -> None:
    """Take no note of an exit."""


@frozen
class ReviewedCrash:
    """What follows a crash."""

    decision: Decision
    """What follows for the worker itself."""
    group: GroupRestart | None = None
    """The restart of its group."""


@define(eq=False)
class CrashReview:
    """Crashes of all workers, counted against their restart groups."""

    _on_event: Callable[[Event], None]
    dismissed: set[Child] = field(factory=set, init=False)
    """Workers that were replaced or removed and are never started again."""
    _on_trial: Generation | None = field(default=None, init=False)
    """New generation that has not taken over: a worker's crash fails the reload."""
    _may_fail: Collection[Child] = field(default=(), init=False)
    """Workers of that generation that may fail, as their predecessors did."""
    on_exit: Callable[[Child, Ending], None] = field(default=_ignore, init=False)
    """Called with every exit that was not planned."""

    def begin_trial(self, new: Generation, may_fail: Collection[Child]) -> None:
        """Begin the trial of *new*.

        Args:
            may_fail: Workers of *new* that are restarted if they crash.
        """
        self._on_trial, self._may_fail = new, may_fail

    def end_trial(self) -> None:
        """End the trial, whether it succeeded or failed."""
        self._on_trial, self._may_fail = None, ()

    def review(
        self,
        child: Child,
        home: Generation,
        ending: Ending,
        decision: Decision,
        is_held: bool,
    ) -> ReviewedCrash:
        """Count the crash of *child*, and return what follows.

        Args:
            ending: How its process ended, which was not planned.
            decision: What its own restart rules say.
            is_held: Whether it was to be stopped with its group anyway.
        """
        self.on_exit(child, ending)
        if isinstance(decision, Leave):
            return ReviewedCrash(decision)
        if child in self.dismissed:
            return ReviewedCrash(Leave())
        if home is self._on_trial:
            is_retried = child in self._may_fail and isinstance(decision, RestartAfter)
            return ReviewedCrash(decision if is_retried else Leave())
        if ending.cause is Cause.SHORTAGE:
            return ReviewedCrash(decision)  # caused by neither worker nor group
        if is_held and isinstance(decision, RestartAfter):
            return ReviewedCrash(RestartAfter(0.0))  # no failure of its group
        outcome = home.tree.failed(
            child.service,
            now=trio.current_time(),
            is_exhausted=isinstance(decision, GiveUp),
        )
        match outcome:
            case GiveUpAll(failures):
                if isinstance(decision, GiveUp):
                    return ReviewedCrash(decision)
                problem = f"{failures[0]}; last crash: {child.name}"
                return ReviewedCrash(GiveUp(0, 0.0, problem))
            case RestartTogether():
                if isinstance(decision, GiveUp):
                    decision = RestartAfter(decision.delay)
                group = self._restart_together(child, home, outcome)
                return ReviewedCrash(decision, group)

    def _restart_together(
        self, crashed: Child, home: Generation, outcome: RestartTogether
    ) -> GroupRestart | None:
        services: Sequence[str] = outcome.services
        for failure in outcome.failures:
            event = GroupFailed(
                name=failure.group, problem=str(failure), services=outcome.services
            )
            self._on_event(event)
        if not services:
            return None
        others = [
            child
            for name in services
            if name in home.units
            for child in home.units[name].children
            if child.is_wanted and child is not crashed
        ]
        # If a group failed, the crashed worker is reset as well.
        is_forgiven = bool(outcome.failures)
        return GroupRestart(crashed, others, home.needs, home.rank, is_forgiven)
