"""Test the reader of the kernel log."""

from __future__ import annotations

import os
from pathlib import Path

from trio_supervisor.policy.out_of_memory import KernelMessage
from trio_supervisor.process.inspection.kernel_log import KERNEL_LOG, read_kernel_log


def test_records_are_parsed_and_other_lines_left_out(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    path.write_text(
        "6,339,5140900,-,caller=T1;NET: Registered; family\n"
        " SUBSYSTEM=acpi\n"
        "garbage\n"
        "3,340,7000001,-;Out of memory: Killed process 1 (x) total-vm:1kB\n"
    )
    assert list(read_kernel_log(path)) == [
        KernelMessage(time=5.1409, text="NET: Registered; family"),
        KernelMessage(
            time=7.000001, text="Out of memory: Killed process 1 (x) total-vm:1kB"
        ),
    ]


def test_unreadable_log_is_empty(tmp_path: Path) -> None:
    assert list(read_kernel_log(tmp_path / "none")) == []
    assert list(read_kernel_log(tmp_path)) == []  # a directory


def test_real_log_is_readable_or_empty() -> None:
    messages = list(read_kernel_log())
    if messages:
        assert os.access(KERNEL_LOG, os.R_OK)
        assert all(message.time >= 0 for message in messages)
