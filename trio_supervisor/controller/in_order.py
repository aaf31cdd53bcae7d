"""Ending workers one after the other, and waiting for what was started."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trio_supervisor.controller.child import Child
from trio_supervisor.controller.generation import Generation
from trio_supervisor.errors import UnavailableError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.order import dependants, stop_waves


async def stop_in_order(
    generation: Generation,
    children: Sequence[Child],
    ask: Callable[[Child], None],
    whole: frozenset[str] = frozenset(),
) -> None:
    """End *children* in reverse order of declaration, and of dependency.

    Nothing is asked to end before all that need it have ended; one that somebody
    starts again meanwhile is not waited for.

    Args:
        whole: Services of which nothing is to be left: whatever is started while
            this goes on, and needs one of them, is ended before that is.
    """
    services = {child.plan.service for child in children}
    for wave in stop_waves(services, generation.needs, generation.rank):
        late = [
            child
            for name in dependants(wave & whole, generation.needs)
            for child in generation.units[name].children
            if child.is_wanted
        ]
        if late:
            await stop_in_order(generation, late, ask)
        group = [child for child in children if child.plan.service in wave]
        for child in group:
            ask(child)
        for child in group:
            while not (child.is_at_rest or child.is_wanted):
                await child.wait_news()


def crash_of(child: Child) -> str:
    """Return in words that *child* exited before it was up."""
    ending = child.last_ending
    what = "did not become ready"
    if ending is not None and ending.ready_for is not None:
        what = f"did not stay up for {child.plan.stable_for:g} s (stable_for)"
    return f"{child.name} {what}: {child.last_exit}"


async def until_ready(
    child: Child, since: int, despair_of: Callable[[Child], str]
) -> None:
    """Wait until incarnation *since* of *child*, or a later one, is up.

    That is: ready for ``stable_for`` seconds, or a job that has exited with success.

    Args:
        despair_of: Returns why it waits for others in vain, if so.

    Raises:
        UnavailableError: it exited instead, or something that it needs did.
    """
    # At rest and not wanted: a stop has overtaken us.
    while not (child.incarnation >= since and (child.is_stable or child.is_at_rest)):
        if not child.is_wanted and child.is_at_rest:
            break
        if child.last_crash >= since:
            raise UnavailableError(crash_of(child))
        if problem := despair_of(child):
            raise UnavailableError(f"{child.name} {problem}")
        await child.wait_news()
    if child.state is not State.READY and not child.has_ended_itself:
        raise UnavailableError(
            f"{child.name} is not ready, but {child.state.value} ({child.last_exit})"
        )
    if child.state is State.FAILED:
        raise UnavailableError(f"{child.name} failed ({child.last_exit})")
