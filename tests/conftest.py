"""Settings of all tests."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

# A loaded machine is slow now and then; how fast something is, benchmarks tell.
# The same examples each time; `nox -s hunt` looks for others.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.register_profile("hunt", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))

# What a shell starts in the background ignores these, and so would our children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than there are processors: half of the time is waiting."""
    return (os.cpu_count() or 1) + 1
