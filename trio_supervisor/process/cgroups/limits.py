"""Say what a service's limits are in the files of a cgroup. Pure.

Source: the kernel's cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from trio_supervisor.application import AnyService

# Period of cpu.max [µs], the kernel's default.
_PERIOD = 100_000


@frozen
class LimitSetting:
    """One limit."""

    option: str
    value: float
    controller: str
    file: str
    """Name of the file in the directory of the cgroup."""
    text: str
    """What is written there."""

    @property
    def shown(self) -> str:
        """The option and its value, for messages."""
        return f"{self.option}={self.value}"


@frozen(kw_only=True)
class CgroupLimits:
    """Limits of one worker; None: no limit."""

    memory_max: int | None = None
    memory_high: int | None = None
    cpu_max: float | None = None
    pids_max: int | None = None

    @classmethod
    def of(cls, service: AnyService) -> CgroupLimits:
        """Return the limits that *service* declares."""
        return cls(
            memory_max=service.memory_max,
            memory_high=service.memory_high,
            cpu_max=service.cpu_max,
            pids_max=service.pids_max,
        )

    @property
    def settings(self) -> tuple[LimitSetting, ...]:
        """The declared limits."""
        return tuple(self._settings())

    def _settings(self) -> Iterator[LimitSetting]:
        for option in ("memory_high", "memory_max", "pids_max"):
            if (value := getattr(self, option)) is not None:
                file = option.replace("_", ".")
                controller = file.partition(".")[0]
                yield LimitSetting(option, value, controller, file, str(value))
        if (cores := self.cpu_max) is not None:
            quota = f"{round(cores * _PERIOD)} {_PERIOD}"
            yield LimitSetting("cpu_max", cores, "cpu", "cpu.max", quota)
