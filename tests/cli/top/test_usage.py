"""Test what is read of processes on this machine."""

from __future__ import annotations

import os
import subprocess

from trio_supervisor.cli.top.usage import LocalUsage


def test_usage_of_this_process() -> None:
    usage, own = LocalUsage(), os.getpid()
    first = usage.read([own])[own]
    assert first["cpu_share"] is None
    assert first["rss"] > 2**20
    sum(range(100_000))
    assert usage.read([own])[own]["cpu_share"] >= 0


def test_usage_leaves_out_exited_processes() -> None:
    with subprocess.Popen(["sleep", "100"]) as process:
        usage = LocalUsage()
        assert usage.read([process.pid]).keys() == {process.pid}
        process.kill()
        process.wait()
        assert usage.read([process.pid]) == {}
