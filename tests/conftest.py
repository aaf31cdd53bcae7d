"""Configure all tests."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import Phase, settings

# A loaded machine is slow at times; speed is what the benchmarks measure.
# The same examples in each run; `nox -s hunt` tries random ones.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.register_profile("hunt", deadline=None, print_blob=True)
# For `tests.mutations`: that a property fails is enough, the smallest example is not
# needed.
settings.register_profile(
    "mutations",
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))

# A shell ignores these signals for background jobs, and our children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one more than the number of processors: tests wait half of the time."""
    return (os.cpu_count() or 1) + 1
