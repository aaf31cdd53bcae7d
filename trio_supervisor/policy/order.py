"""Who is started after whom, and stopped before whom. Pure; over names of services.

*needs* says per service what it depends on, and how; a service that is missing there
depends on nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from graphlib import CycleError, TopologicalSorter
from typing import Final, Literal, TypeAlias

Condition: TypeAlias = Literal["started", "ready", "exited_ok"]
CONDITIONS: Final[tuple[Condition, ...]] = ("started", "ready", "exited_ok")
Needs: TypeAlias = Mapping[str, Mapping[str, Condition]]


class Standing(Enum):
    """How far one worker has come, as far as others may depend on it."""

    NOT_STARTED = "not_started"
    """Since the application, or its group, was started last."""
    STARTED = "started"
    """It was started, and is not ready at the moment: it may be in a backoff."""
    READY = "ready"
    EXITED_OK = "exited_ok"
    """It ended with success, and is not started again."""
    FAILED = "failed"
    """It ended as it should not have, and is not started again."""


_MEETS: Final[Mapping[Condition, frozenset[Standing]]] = {
    "started": frozenset(Standing) - {Standing.NOT_STARTED},
    "ready": frozenset({Standing.READY, Standing.EXITED_OK}),
    "exited_ok": frozenset({Standing.EXITED_OK}),
}


def is_met(condition: Condition, workers: Iterable[Standing]) -> bool:
    """Return whether *condition* holds for a service with *workers*.

    It has to hold for every one of them: for a service without workers it does.
    """
    return all(standing in _MEETS[condition] for standing in workers)


def unmet(
    service: str, needs: Needs, standing: Mapping[str, Collection[Standing]]
) -> tuple[tuple[str, Condition], ...]:
    """Return what still keeps the workers of *service* from being started.

    Raises:
        KeyError: *standing* lacks a service that *service* depends on.
    """
    return tuple(
        (name, condition)
        for name, condition in needs.get(service, {}).items()
        if not is_met(condition, standing[name])
    )


def needs_of(names: Collection[str], needs: Needs) -> frozenset[str]:
    """Return all others that *names* depend on, directly or not."""
    return _reached(names, lambda name: needs.get(name, ())) - frozenset(names)


def dependants(names: Collection[str], needs: Needs) -> frozenset[str]:
    """Return all others that have to be stopped before *names* are.

    Those that depend on them, directly or not. Who only waited for one to exit does
    not count: it goes on without it by definition.
    """
    by = _dependants(needs, frozenset({"started", "ready"}))
    return _reached(names, lambda name: by.get(name, ())) - frozenset(names)


def start_waves(names: Collection[str], needs: Needs) -> list[frozenset[str]]:
    """Return which of *names* are started together, one wave after the other.

    Each wave holds what needs nothing of a later one, not even through services that
    are not among *names*.

    Raises:
        ValueError: there is a cycle in *needs*.
    """
    left = set(names)
    before = {
        name: _reached(needs.get(name, ()), lambda other: needs.get(other, ())) & left
        for name in left
    }
    waves = []
    while left:
        wave = frozenset(name for name in left if before[name].isdisjoint(left))
        if not wave:
            raise ValueError(f"a cycle among {sorted(left)}")
        waves.append(wave)
        left -= wave
    return waves


def stop_order(names: Collection[str], needs: Needs) -> dict[str, frozenset[str]]:
    """Return for each of *names* those that have to end before it is asked to.

    Those of *names* that need it, directly or not, even through services that are not
    among *names*. All others may stop at the same time.
    """
    by = _dependants(needs, frozenset(CONDITIONS))
    all_names = frozenset(names)
    return {
        name: (_reached([name], lambda other: by.get(other, ())) - {name}) & all_names
        for name in names
    }


def merged_needs(old: Needs, new: Needs) -> Needs:
    """Return the needs of two declarations that run at once.

    Where they contradict each other, so that there would be a cycle, *new* counts.
    """
    merged = {
        name: {**old.get(name, {}), **new.get(name, {})}
        for name in dict.fromkeys([*old, *new])
    }
    return new if find_cycle(merged) else merged


def find_cycle(needs: Needs) -> tuple[str, ...] | None:
    """Return services that need each other in a circle; None: there is none.

    Each needs the next; the last is the first again.
    """
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as exc:
        # graphlib tells the way of the work: each is done before the next.
        return tuple(reversed(exc.args[1]))
    return None


def _dependants(needs: Needs, conditions: frozenset[str]) -> dict[str, list[str]]:
    by: dict[str, list[str]] = {}
    for name, needed in needs.items():
        for other, condition in needed.items():
            if condition in conditions:
                by.setdefault(other, []).append(name)
    return by


def _reached(
    names: Iterable[str], following: Callable[[str], Iterable[str]]
) -> frozenset[str]:
    seen = set(names)
    new = list(seen)
    while new:
        for name in following(new.pop()):
            if name not in seen:
                seen.add(name)
                new.append(name)
    return frozenset(seen)
