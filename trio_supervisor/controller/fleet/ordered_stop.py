"""Make the operations that stop workers in the order of their dependencies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.fleet.generation import Generation
from trio_supervisor.errors import SignalNotPermittedError
from trio_supervisor.policy.operations import StopOperation
from trio_supervisor.policy.order import Needs, dependents, merged_needs
from trio_supervisor.policy.restart import Cause


def stop_operation(
    generation: Generation,
    chosen: Sequence[Child],
    reason: str,
    cause: Cause = Cause.STOP,
) -> StopOperation:
    """Return the operation that stops *chosen* and what depends on them.

    Dependents are stopped only if no worker of the service keeps running.
    """
    # Services that have no running worker after this stop.
    whole = {
        name
        for name in {child.service for child in chosen}
        if all(
            child in chosen or not child.is_wanted
            for child in generation.units[name].children
        )
    }
    affected = dependents(whole, generation.needs)
    # Wait as well for workers that a concurrent stop is stopping.
    there = [
        child
        for name in affected
        for child in generation.units[name].children
        if child.is_wanted or not child.is_down
    ]
    return StopOperation(
        list(dict.fromkeys([*chosen, *there])),
        generation.needs,
        generation.rank,
        cause,
        reason=reason,
        whole=affected | whole,
        links=generation,
    )


def retirement(
    generation: Generation, children: Sequence[Child], reason: str
) -> StopOperation:
    """Return the operation that stops *children* for good, because of a reload."""
    return StopOperation(
        children,
        generation.needs,
        generation.rank,
        Cause.RELOAD,
        reason,
        is_for_good=True,
    )


def stop_all_operation(
    generations: Iterable[Generation], children: Sequence[Child], reason: str
) -> StopOperation:
    """Return the operation that stops *children* of several generations.

    Args:
        generations: All generations, the oldest first.
    """
    needs: Needs = {}
    rank: dict[str, int] = {}
    for generation in generations:
        needs = merged_needs(needs, generation.needs)
        rank |= generation.rank
    return StopOperation(children, needs, rank, reason=reason)


def check_ended(children: Iterable[Child]) -> None:
    """Check that all of *children* have been stopped.

    Raises:
        SignalNotPermittedError: some could not be; the message lists them.
    """
    if problems := describe_not_permitted(children):
        raise SignalNotPermittedError(problems)


def describe_not_permitted(children: Iterable[Child]) -> str:
    """Describe which of *children* could not be stopped; empty: none."""
    return "; ".join(
        f"{c.name}: {c.not_permitted}" for c in children if c.not_permitted
    )
