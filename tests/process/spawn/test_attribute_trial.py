"""Test that attributes that the system refuses are found before a start."""

from __future__ import annotations

import resource

import pytest

from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.kernel import child_pids
from trio_supervisor.process.spawn.attribute_trial import refused_attributes
from trio_supervisor.process.spawn.attributes import ProcessAttributes, available_cpus

pytestmark = pytest.mark.skipif(not IS_LINUX, reason="Linux only")


async def test_trial_finds_what_is_refused_and_leaves_no_process() -> None:
    before, limit = child_pids(), resource.getrlimit(resource.RLIMIT_NOFILE)
    found = await refused_attributes(
        ProcessAttributes(
            cpu_affinity=(8190, 8191), limits={"nofile": (2**40, 2**40), "core": (0, 0)}
        )
    )
    assert [refused.option for refused in found] == ["cpu_affinity", "limits['nofile']"]
    assert "CPU 8190-8191 is not available to the controller" in str(found[0])
    assert child_pids() == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limit


async def test_trial_accepts_what_needs_no_privilege() -> None:
    attributes = ProcessAttributes(
        nice=5,
        umask=0o077,
        ionice="idle",
        oom_score_adj=1000,
        cpu_affinity=tuple(available_cpus()),
        limits={"nofile": (100, 100), "core": (0, 0)},
    )
    assert await refused_attributes(attributes) == []
