"""Test how mistakes in the tables of monitors are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.configured import configured
from trio_supervisor.errors import SpecError

MONITOR = '[[monitors]]\ntarget = "trio_supervisor:MemoryMonitor"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("monitors = [3]", "line 1: monitors[0]: expected a table with target = "),
        ("[[monitors]]\nx = 1", "line 1: monitors[0]: expected a table with target"),
        (
            '[[monitors]]\ntarget = "trio_supervisor:Nothing"',
            "line 2: monitors[0].target: ",
        ),
        (
            f"{MONITOR}maximum_size_limt = 3",
            "line 3: monitors[0].maximum_size_limt: unknown key (did you mean",
        ),
        (f"{MONITOR}interval = 'x'", "line 3: monitors[0].interval: "),
        ('[[monitors]]\ntarget = "time:sleep"', "line 1: monitors[0]: TypeError: "),
    ],
)
def test_mistake_in_monitor_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        configured(tmp_path, text)
    assert str(caught.value).startswith(f"supervisor.toml, {message}")
