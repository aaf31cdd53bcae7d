"""The HostMonitor, on this host."""

from __future__ import annotations

from typing import Any

import pytest

from trio_supervisor import HostMonitor, SpecError


async def test_a_problem_is_logged_once_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    monitor = HostMonitor(disk_minimum=2**60, path=str(tmp_path))
    await monitor.run_once()
    await monitor.run_once()
    assert [r.getMessage().partition(" MiB free")[2] for r in caplog.records] == [
        " on the disk (disk_minimum=1099511627776 MiB)"
    ]
    status = monitor.status()
    assert status["problems"]
    assert isinstance(status["memory_available"], int)
    caplog.clear()
    monitor.limits = HostMonitor(disk_minimum=1).limits
    await monitor.run_once()
    assert [r.getMessage() for r in caplog.records] == [
        "host: recovered (disk_minimum)"
    ]
    assert monitor.status()["problems"] == []


async def test_a_missing_path_is_no_error(tmp_path: Any) -> None:
    monitor = HostMonitor(disk_minimum=1, path=str(tmp_path / "gone"))
    await monitor.run_once()
    assert monitor.status()["disk_free"] is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"memory_minimum": True}, "memory_minimum: expected a number, got True"),
        ({"load_maximum": 0}, "load_maximum: expected more than 0, got 0"),
        ({"path": ""}, "path: expected a path"),
    ],
)
def test_invalid_argument_is_named(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        HostMonitor(**arguments)
