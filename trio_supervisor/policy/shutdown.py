"""When an application ends, and how long that may take. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Final, Literal, TypeAlias, assert_never

from trio_supervisor.policy.order import Needs

# Of the time that an application has to stop, this much is left to kill the rest, and
# to end the supervisor: a share of it, and at most so many seconds.
_KILL_SHARE: Final = 0.1
_KILL_MOST: Final = 1.0

AutoShutdown: TypeAlias = Literal["any", "all"]
"""OTP's ``any_significant`` and ``all_significant``."""


def is_over(mode: AutoShutdown, significant: Mapping[str, bool]) -> bool:
    """Return whether the application is to end.

    Args:
        mode: Whether the end of any significant service ends it, or of all.
        significant: Of each significant service, whether all of its workers ended by
            themselves and for good. One that somebody stopped has not.
    """
    match mode:
        case "any":
            return any(significant.values())
        case "all":
            return bool(significant) and all(significant.values())
    assert_never(mode)


def kill_after(stop_timeout: float) -> float:
    """Return when what has not stopped is killed, so that all ends in time [s].

    Args:
        stop_timeout: Within which the whole application has to have ended [s].
    """
    return stop_timeout - min(_KILL_SHARE * stop_timeout, _KILL_MOST)


def longest_stop(
    needs: Needs, timeouts: Mapping[str, float]
) -> tuple[float, tuple[str, ...]]:
    """Return how long a stop of everything can take, and which services make it so.

    Services stop side by side, but for those that others need: these follow one after
    the other. A job that others wait for as ``"exited_ok"`` has ended by then.

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
    """Return what to warn of at the start; empty: all can stop within *stop_timeout*.

    Args:
        stop_timeout: Of the whole application [s]; None: there is no limit.
        timeouts: ``stop_timeout`` of each service [s].
    """
    seconds, chain = longest_stop(needs, timeouts)
    if stop_timeout is None or seconds <= stop_timeout:
        return ""
    steps = ", then ".join(f"{name} {timeouts[name]:g} s" for name in chain)
    return (
        f"stopping can take {seconds:g} s ({steps}), longer than the application's "
        f"stop_timeout={stop_timeout:g}; what has not stopped after "
        f"{kill_after(stop_timeout):g} s will be killed"
    )
