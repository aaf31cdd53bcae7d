"""Test that attributes that the system refuses are found before a start."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.kernel import child_pids
from trio_supervisor.process.spawn.attribute_trial import refused_attributes
from trio_supervisor.process.spawn.attributes import ProcessAttributes, available_cpus
from trio_supervisor.process.spawn.exec import spawn_exec

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


async def test_private_directories_hide_the_socket_from_a_worker() -> None:
    private = ProcessAttributes(private_tmp=True)
    found = await refused_attributes(private, socket_path="/tmp/a/s.ipc")
    assert "hides the socket /tmp/a/s.ipc" in str(found[0])
    assert "choose another place than /tmp with --socket" in str(found[0])
    elsewhere = await refused_attributes(private, socket_path="/run/s.ipc")
    assert not any("hides" in str(refused) for refused in elsewhere)


async def test_private_directories_are_empty_or_refused(tmp_path: Path) -> None:
    """Only their process sees what it writes there."""
    private = ProcessAttributes(private_tmp=True)
    refused = await refused_attributes(private)
    if refused:  # in a container, or without root
        assert str(refused[0]) == (
            "cannot set private_tmp=1: Operation not permitted (needs CAP_SYS_ADMIN)"
        )
        return
    name = f"/tmp/{tmp_path.name}-{os.getpid()}"
    process = await spawn_exec(
        ["sh", "-c", f'test -z "$(ls -A /tmp /var/tmp | grep -v :)" && echo > {name}'],
        environment=os.environ,
        own=private.own(),
    )
    assert await process.wait() == 0
    process.close()
    assert name.removeprefix("/tmp/") not in os.listdir("/tmp")


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
