"""Order the start and stop of services by their dependencies. Pure.

*needs* has, for each service by name, the services that it depends on and the condition
to wait for. A service that is not in it has no dependencies.
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
    """How far one worker has come, as far as dependents are concerned."""

    NOT_STARTED = "not_started"
    """Not since the last start of the application or of its group."""
    STARTED = "started"
    """It was started, but is not ready now: it may be in backoff."""
    READY = "ready"
    EXITED_OK = "exited_ok"
    """It exited with success, and is not restarted."""
    FAILED = "failed"
    """It exited with a failure, and is not restarted."""


_AWAITED: Final[Mapping[Condition, str]] = {
    "started": "to start",
    "ready": "to be ready",
    "exited_ok": "to exit with success",
}
_MEETS: Final[Mapping[Condition, frozenset[Standing]]] = {
    "started": frozenset(Standing) - {Standing.NOT_STARTED},
    "ready": frozenset({Standing.READY, Standing.EXITED_OK}),
    "exited_ok": frozenset({Standing.EXITED_OK}),
}


def describe_need(name: str, condition: Condition) -> str:
    """Return what is awaited of service *name*, such as ``db to be ready``."""
    return f"{name} {_AWAITED[condition]}"


def is_met(condition: Condition, workers: Iterable[Standing]) -> bool:
    """Return whether *condition* holds for each of a service's *workers*.

    It holds for a service without workers.
    """
    return all(standing in _MEETS[condition] for standing in workers)


def unmet(
    service: str, needs: Needs, standing: Mapping[str, Collection[Standing]]
) -> tuple[tuple[str, Condition], ...]:
    """Return the dependencies of *service* that are not satisfied yet.

    Raises:
        KeyError: *standing* has no entry for a dependency of *service*.
    """
    return tuple(
        (name, condition)
        for name, condition in needs.get(service, {}).items()
        if not is_met(condition, standing[name])
    )


def needs_of(names: Collection[str], needs: Needs) -> frozenset[str]:
    """Return all other services that *names* depend on, directly or indirectly."""
    return _reached(names, lambda name: needs.get(name, ())) - frozenset(names)


def dependents(names: Collection[str], needs: Needs) -> frozenset[str]:
    """Return all other services that must stop before *names* do.

    These are their direct and indirect dependents, except those that only waited for a
    service to exit: they run without it by definition.
    """
    by = _dependents(needs, frozenset({"started", "ready"}))
    return _reached(names, lambda name: by.get(name, ())) - frozenset(names)


def start_waves(names: Collection[str], needs: Needs) -> list[frozenset[str]]:
    """Return *names* in waves: the services of a wave start at the same time.

    No service depends on one of a later wave, not even through services that are not
    among *names*.

    Raises:
        ValueError: *needs* has a dependency cycle.
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
            raise ValueError(f"dependency cycle among {sorted(left)}")
        waves.append(wave)
        left -= wave
    return waves


def stop_order(names: Collection[str], needs: Needs) -> dict[str, frozenset[str]]:
    """Return for each of *names* the services that must exit before it is stopped.

    These are its direct and indirect dependents among *names*, even through services
    that are not among *names*. All others may stop at the same time.
    """
    by = _dependents(needs, frozenset(CONDITIONS))
    all_names = frozenset(names)
    return {
        name: (_reached([name], lambda other: by.get(other, ())) - {name}) & all_names
        for name in names
    }


def merged_needs(old: Needs, new: Needs) -> Needs:
    """Return the dependencies of two generations that run at the same time.

    If they contradict each other, so that there would be a cycle, those of *new* count.
    """
    merged = {
        name: {**old.get(name, {}), **new.get(name, {})}
        for name in dict.fromkeys([*old, *new])
    }
    return new if find_cycle(merged) else merged


def find_cycle(needs: Needs) -> tuple[str, ...] | None:
    """Return the services of a dependency cycle; None if there is none.

    Each depends on the next; the last is the first again.
    """
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as exc:
        # graphlib lists predecessors first: each is done before the next.
        return tuple(reversed(exc.args[1]))
    return None


def _dependents(needs: Needs, conditions: frozenset[str]) -> dict[str, list[str]]:
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
