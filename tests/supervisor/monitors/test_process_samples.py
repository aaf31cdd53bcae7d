"""Test both readers on real processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from trio_supervisor.policy.process_usage import UsageSample
from trio_supervisor.supervisor.monitors.process_samples import (
    ProcessReader,
    ProcReader,
    PsutilReader,
    add_memory,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def descriptors_in_use() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    "reader",
    [pytest.param(ProcReader(), marks=linux_only), PsutilReader()],
    ids=["proc", "psutil"],
)
def test_reader_samples_this_process(reader: ProcessReader) -> None:
    assert os.getpid() in reader.process_ids()
    sample = reader.read(os.getpid())
    assert sample is not None
    reader.complete(sample)
    add_memory(sample)
    assert sample.parent_id == os.getppid()
    assert sample.cpu_time > 0
    assert sample.threads >= 1
    assert sample.descriptors is not None
    assert sample.descriptors > 0
    assert sample.voluntary_switches is not None
    assert sample.uss is not None
    assert 0 < sample.uss <= sample.rss * 1.2
    reader.forget_others([])


@linux_only
@pytest.mark.parametrize("most", [0, 100])
def test_exited_process_is_gone_and_its_descriptors_are_closed(most: int) -> None:
    before = descriptors_in_use()
    reader = ProcReader(most=most)
    with subprocess.Popen(["sleep", "60"]) as process:
        sample = reader.read(process.pid)
        assert sample is not None
        reader.complete(sample)
        assert descriptors_in_use() == before + (3 if most else 0)
        process.kill()
        process.wait()
    assert reader.read(process.pid) is None
    reader.complete(sample)  # does not raise
    reader.forget_others([])
    assert descriptors_in_use() == before


@linux_only
def test_reader_agrees_with_psutil() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        found = [reader.read(process.pid) for reader in (ProcReader(), PsutilReader())]
        process.kill()
    one, other = found
    assert isinstance(one, UsageSample)
    assert isinstance(other, UsageSample)
    assert (one.parent_id, one.threads) == (other.parent_id, other.threads)
