"""Test when an application shuts down, and how long that takes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from trio_supervisor.policy.order import Needs
from trio_supervisor.policy.shutdown import (
    AutoShutdown,
    is_over,
    kill_after,
    longest_stop,
    stop_warning,
)


@pytest.mark.parametrize(
    ("significant", "over"),
    [
        pytest.param({}, set(), id="nothing is significant"),
        pytest.param({"a": False, "b": False}, set(), id="both run"),
        pytest.param({"a": True, "b": False}, {"any"}, id="one ended"),
        pytest.param({"a": True, "b": True}, {"any", "all"}, id="both ended"),
    ],
)
@pytest.mark.parametrize("mode", ["any", "all"])
def test_is_over_with_any_or_all_significant_services(
    mode: AutoShutdown, significant: dict[str, bool], over: set[str]
) -> None:
    """Never without a significant service."""
    assert is_over(mode, significant) is (mode in over)


@pytest.mark.parametrize(
    ("stop_timeout", "kills_after"), [(10.0, 9.0), (60.0, 59.0), (2.0, 1.8)]
)
def test_kill_after_leaves_time_to_finish(
    stop_timeout: float, kills_after: float
) -> None:
    assert kill_after(stop_timeout) == pytest.approx(kills_after)


TIMEOUTS = {"proxy": 1.0, "web": 4.0, "jobs": 5.0, "db": 3.0}
CHAIN: Needs = {
    "proxy": {"web": "started"},
    "web": {"db": "ready"},
    "jobs": {"db": "exited_ok"},
}


def test_longest_stop_is_the_sum_of_the_longest_chain() -> None:
    assert longest_stop(CHAIN, TIMEOUTS) == (8.0, ("proxy", "web", "db"))


def test_longest_stop_without_dependencies_is_the_longest_timeout() -> None:
    assert longest_stop({}, TIMEOUTS) == (5.0, ("jobs",))
    assert longest_stop({}, {}) == (0.0, ())


def test_longest_stop_follows_a_long_chain() -> None:
    """The chain is longer than the recursion limit."""
    names = [f"s{index}" for index in range(1_500)]
    needs: Needs = {name: {other: "ready"} for name, other in pairwise(names)}
    seconds, chain = longest_stop(needs, dict.fromkeys(names, 0.5))
    assert (seconds, list(chain)) == (750.0, names)


def test_stop_warning_names_the_chain_and_the_times() -> None:
    assert stop_warning(7.0, CHAIN, TIMEOUTS) == (
        "stopping can take 8 s (proxy 1 s, then web 4 s, then db 3 s), longer than the "
        "application's stop_timeout=7; workers still running after 6.3 s will be killed"
    )


@pytest.mark.parametrize("stop_timeout", [None, 8.0, 100.0])
def test_stop_warning_is_empty_if_all_can_stop_in_time(
    stop_timeout: float | None,
) -> None:
    assert stop_warning(stop_timeout, CHAIN, TIMEOUTS) == ""
