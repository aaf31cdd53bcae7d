"""Decide when an application shuts down, and how long that may take. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Final, Literal, TypeAlias, assert_never

from trio_supervisor.policy.order import Needs

# Part of the application's stop_timeout that is reserved for killing the remaining
# processes and stopping the supervisor: this share of it, but at most this long [s].
_KILL_SHARE: Final = 0.1
_KILL_MOST: Final = 1.0

AutoShutdown: TypeAlias = Literal["any", "all"]
"""OTP's ``any_significant`` and ``all_significant``."""


def is_over(mode: AutoShutdown, significant: Mapping[str, bool]) -> bool:
    """Return whether the application shuts down.

    Args:
        mode: The option ``auto_shutdown`` of the application.
        significant: For each significant service, whether all of its workers have
            exited for good on their own. Workers stopped on request do not count.
    """
    match mode:
        case "any":
            return any(significant.values())
        case "all":
            return bool(significant) and all(significant.values())
    assert_never(mode)


def kill_after(stop_timeout: float) -> float:
    """Return when remaining processes are killed, to finish in time [s].

    Args:
        stop_timeout: The option of the application [s].
    """
    return stop_timeout - min(_KILL_SHARE * stop_timeout, _KILL_MOST)


def longest_stop(
    needs: Needs, timeouts: Mapping[str, float]
) -> tuple[float, tuple[str, ...]]:
    """Return how long a shutdown can take, and the services that determine it.

    Services stop at the same time, except that a service stops after its dependents. A
    job that others wait for as ``"exited_ok"`` has exited before.

    Args:
        timeouts: ``stop_timeout`` of each service [s].

    Returns:
        The sum of the longest chain [s], and its services in the order of their stop.
    """
    graph = {
        name: [o for o, condition in needed.items() if condition != "exited_ok"]
        for name, needed in needs.items()
    }
    longest: dict[str, tuple[float, tuple[str, ...]]] = {}
    for name in TopologicalSorter(graph).static_order():
        below = max(
            (longest[other] for other in graph.get(name, ())), default=(0.0, ())
        )
        longest[name] = (timeouts.get(name, 0.0) + below[0], (name, *below[1]))
    alone = [(timeout, (name,)) for name, timeout in timeouts.items()]
    return max([*longest.values(), *alone], default=(0.0, ()), key=lambda it: it[0])


def stop_warning(
    stop_timeout: float | None, needs: Needs, timeouts: Mapping[str, float]
) -> str:
    """Return a warning if the services may not stop within *stop_timeout*, or "".

    Args:
        stop_timeout: The option of the application [s]; None: no limit.
        timeouts: ``stop_timeout`` of each service [s].
    """
    seconds, chain = longest_stop(needs, timeouts)
    if stop_timeout is None or seconds <= stop_timeout:
        return ""
    steps = ", then ".join(f"{name} {timeouts[name]:g} s" for name in chain)
    return (
        f"stopping can take {seconds:g} s ({steps}), longer than the application's "
        f"stop_timeout={stop_timeout:g}; workers still running after "
        f"{kill_after(stop_timeout):g} s will be killed"
    )
