"""Stop workers in the order of their dependencies, and wait for new ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import trio

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.fleet.generation import Generation
from trio_supervisor.errors import UnavailableError
from trio_supervisor.policy.lifecycle import State
from trio_supervisor.policy.order import Needs, dependents, merged_needs, stop_order
from trio_supervisor.tasks import open_nursery


async def stop_in_order(
    generation: Generation,
    children: Sequence[Child],
    ask: Callable[[Child], None],
    whole: frozenset[str] = frozenset(),
) -> None:
    """Stop *children*, those of independent services concurrently.

    A worker stops only after all its dependents have exited. A dependent that is
    started again before it has exited is not waited for.

    Args:
        whole: Services that are stopped entirely: dependents that start during this
            call are stopped before them.
    """

    def late(name: str) -> list[Child]:
        return [
            child
            for other in dependents({name} & whole, generation.needs)
            for child in generation.units[other].children
            if child.is_wanted
        ]

    async def end(name: str, group: Sequence[Child]) -> None:
        while children := late(name):
            await stop_in_order(generation, children, ask)
        await _end_group(group, ask)

    await end_each(children, generation.needs, generation.rank, end)


async def stop_all(
    generations: Sequence[Generation],
    children: Sequence[Child],
    ask: Callable[[Child], None],
) -> None:
    """Stop *children* of several generations as `stop_in_order` does.

    Args:
        generations: All generations, the oldest first.
    """
    needs: Needs = {}
    rank: dict[str, int] = {}
    for generation in generations:
        needs = merged_needs(needs, generation.needs)
        rank |= generation.rank

    async def end(_: str, group: Sequence[Child]) -> None:
        await _end_group(group, ask)

    await end_each(children, needs, rank, end)


async def end_each(
    children: Sequence[Child],
    needs: Needs,
    rank: Mapping[str, int],
    end: Callable[[str, Sequence[Child]], Awaitable[None]],
) -> None:
    """Run *end* for the children of each service once its dependents have exited.

    Services that may stop at the same time begin in reverse order of declaration,
    which is *rank*.
    """
    groups: dict[str, list[Child]] = {}
    for child in sorted(children, key=lambda c: -rank.get(c.plan.service, 0)):
        groups.setdefault(child.plan.service, []).append(child)
    waiting = stop_order(groups, needs)
    left = set(groups)
    news, has_ended = trio.open_memory_channel[str](len(groups))

    async def end_one(name: str, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await end(name, groups[name])
        news.send_nowait(name)

    async with open_nursery() as nursery:
        while waiting:
            for name in [n for n, before in waiting.items() if not before & left]:
                del waiting[name]
                # Begin here to keep this order: a nursery starts its tasks in any.
                await nursery.start(end_one, name)
            if waiting:
                left.discard(await has_ended.receive())


async def _end_group(children: Sequence[Child], ask: Callable[[Child], None]) -> None:
    for child in children:
        ask(child)
    for child in children:
        while not (child.is_down or child.is_wanted):
            await child.wait_news()


def describe_not_permitted(children: Iterable[Child]) -> str:
    """Describe which of *children* could not be stopped; empty: none."""
    return "; ".join(
        f"{c.name}: {c.not_permitted}" for c in children if c.not_permitted
    )


def crash_of(child: Child) -> str:
    """Describe the exit of *child* before it was ready."""
    ending = child.last_ending
    what = "did not become ready"
    if ending is not None and ending.ready_for is not None:
        what = f"did not stay up for {child.plan.stable_for:g} s (stable_for)"
    return f"{child.name} {what}: {child.last_exit}"


async def until_ready(
    child: Child, since: int, failed_needs_of: Callable[[Child], str]
) -> None:
    """Wait until incarnation *since* of *child*, or a later one, is up.

    It is up when it has been ready for ``stable_for`` seconds, or is a one-shot job
    that has exited successfully.

    Args:
        failed_needs_of: Describes the failed dependencies of a child; empty: none.

    Raises:
        UnavailableError: the child or one of its dependencies exited instead.
    """
    # Stopped and not wanted: another request stopped it in the meantime.
    while not (child.incarnation >= since and (child.is_stable or child.is_down)):
        if not child.is_wanted and child.is_down:
            break
        if child.last_crash >= since:
            raise UnavailableError(crash_of(child))
        if child.incarnation >= since and child.is_in_crash_loop:
            raise UnavailableError(f"{child.name} failed to start: {child.last_exit}")
        if problem := failed_needs_of(child):
            raise UnavailableError(f"{child.name} {problem}")
        await child.wait_news()
    if child.state is not State.READY and not child.has_exited_for_good:
        raise UnavailableError(
            f"{child.name} is not ready: {child.state.value} ({child.trouble})"
        )
    if child.state is State.FAILED:
        raise UnavailableError(f"{child.name} failed ({child.last_exit})")
