"""Options that limit a worker and all processes that it starts. Pure."""

from __future__ import annotations

from typing import Final

from attrs import define, field

from trio_supervisor.application import checks
from trio_supervisor.application.fields import checked_later, option
from trio_supervisor.application.log_options import LogOptions, size_or_none
from trio_supervisor.errors import SpecError

# The kernel refuses a quota of less than 1 ms in a period of 100 ms.
LEAST_CORES: Final = 0.01
_MOST_CORES: Final = 8192  # CONFIG_NR_CPUS
_MOST_PROCESSES: Final = 2**22  # PID_MAX_LIMIT


def cores_or_none(value: float | None, field: str = "") -> float | None:
    """Return *value* if it is None, or a number of processors such as 1.5."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        problem = "expected a number of processors such as 1.5"
        raise SpecError(field, f"{problem}, got {checks.shown(value)}")
    if not LEAST_CORES <= value <= _MOST_CORES:
        problem = f"expected {LEAST_CORES} to {_MOST_CORES}"
        raise SpecError(field, f"{problem}, got {checks.shown(value)}")
    return float(value)


@define(
    eq=False,
    repr=False,
    init=False,
    slots=False,
    kw_only=True,
    on_setattr=[],
    field_transformer=checked_later,
)
class CgroupOptions(LogOptions):
    """Options that `Service` and `Command` share, those of their cgroups included."""

    memory_max: int | None = field(
        default=None,
        converter=size_or_none,
        metadata=option(
            "Memory that a worker and the processes that it starts may use together, "
            "in bytes or as `512 MiB`, page cache included. When more is needed, the "
            "kernel kills one of them. Needs cgroup v2, see "
            "[Limits of a worker](../services.md#limits-of-a-worker). `None` sets no "
            "limit.",
            unit="bytes",
        ),
    )
    memory_high: int | None = field(
        default=None,
        converter=size_or_none,
        metadata=option(
            "Memory from which on the kernel slows them down and reclaims what it can, "
            "in bytes or as `400 MiB`. It is at most `memory_max`. Needs cgroup v2. "
            "`None` sets no limit.",
            unit="bytes",
        ),
    )
    cpu_max: float | None = field(
        default=None,
        converter=cores_or_none,
        metadata=option(
            "Processor time that they may use together, as a number of processors: "
            "`1.5` is 150 ms in each 100 ms. From 0.01 on. Needs cgroup v2. `None` "
            "sets no limit."
        ),
    )
    pids_max: int | None = field(
        default=None,
        converter=checks.integer_or_none,
        metadata=option(
            "Number of processes and threads that they may have together; fork(2) "
            "fails with EAGAIN beyond it. Needs cgroup v2. `None` sets no limit.",
            least=1,
            most=_MOST_PROCESSES,
        ),
    )

    def __attrs_post_init__(self) -> None:
        """Check the options, and that the kernel reclaims before it kills."""
        super().__attrs_post_init__()
        high, most = self.memory_high, self.memory_max
        if high is not None and most is not None and high > most:
            raise SpecError("memory_high", f"{high} is more than memory_max, {most}")
