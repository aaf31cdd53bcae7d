"""Test what is written into the files of a cgroup."""

from __future__ import annotations

from trio_supervisor.application import Command
from trio_supervisor.process.cgroups.limits import CgroupLimits


def test_limits_are_files_of_their_controllers() -> None:
    command = Command(
        "a",
        ["a"],
        memory_max="1 MiB",
        memory_high=1000,
        cpu_max=1.5,
        pids_max=7,
    )
    settings = CgroupLimits.of(command).settings
    assert [(each.file, each.text, each.controller) for each in settings] == [
        ("memory.high", "1000", "memory"),
        ("memory.max", "1048576", "memory"),
        ("pids.max", "7", "pids"),
        ("cpu.max", "150000 100000", "cpu"),
    ]
    assert settings[1].shown == "memory_max=1048576"


def test_service_without_limits_has_no_settings() -> None:
    assert CgroupLimits.of(Command("a", ["a"])).settings == ()
