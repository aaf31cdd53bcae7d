"""When the end of significant services is the end of the application."""

from __future__ import annotations

import pytest

from trio_supervisor.policy.shutdown import AutoShutdown, is_over


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
def test_the_end_comes_with_any_or_with_all(
    mode: AutoShutdown, significant: dict[str, bool], over: set[str]
) -> None:
    """Never where nothing is significant."""
    assert is_over(mode, significant) is (mode in over)
