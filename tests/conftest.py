"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# A loaded machine is slow now and then; how fast something is, benchmarks tell.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
