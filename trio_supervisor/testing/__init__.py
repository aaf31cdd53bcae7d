"""For tests of programs that use this package: virtual time, and fake processes.

Every fake shares a contract suite with the real thing, in this package's own tests.
"""

from trio_supervisor.testing.fakes import FakeProcess
from trio_supervisor.testing.virtual_time import simulated, sleep_through

__all__ = ["FakeProcess", "simulated", "sleep_through"]
