"""Judge the state of the host. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

_MIB: Final = 1024**2
_AVERAGE: Final = re.compile(rb"^(some|full) avg10=([0-9.]+)", re.MULTILINE)


@frozen(kw_only=True)
class HostFigures:
    """What is known of a host at one moment; None: not known here."""

    memory_available: int | None = None
    """[bytes]"""
    memory_total: int | None = None
    """[bytes]"""
    load: float | None = None
    """Load average over one minute."""
    cpu_count: int = 1
    pressure: Mapping[str, float] = field(factory=dict)
    """Share of the last ten seconds in which some task waited, by resource (``cpu``,
    ``memory``, ``io``) [%]."""
    disk_free: int | None = None
    """Free for this user on the disk that is watched [bytes]."""


@frozen(kw_only=True)
class HostLimits:
    """What a host must have; None: no limit."""

    memory_minimum: int | None = None
    """[bytes]"""
    load_maximum: float | None = None
    """Load average for each processor."""
    pressure_maximum: float | None = None
    """[%]"""
    disk_minimum: int | None = None
    """[bytes]"""


def parse_pressure(text: bytes) -> float | None:
    """Return the share of ten seconds in which some task waited, of ``/proc/pressure``.

    Source: "PSI - Pressure Stall Information" of the Linux kernel's documentation.
    """
    for kind, average in _AVERAGE.findall(text):
        if kind == b"some":
            return float(average)
    return None


def problems_of(figures: HostFigures, limits: HostLimits) -> dict[str, str]:
    """Return what is wrong, by the name of the limit: value and setting in words."""
    found: dict[str, str] = {}
    memory, least = figures.memory_available, limits.memory_minimum
    if memory is not None and least is not None and memory < least:
        found["memory_minimum"] = f"{_mib(memory)} of memory available"
    load, most = figures.load, limits.load_maximum
    if load is not None and most is not None and load > most * figures.cpu_count:
        found["load_maximum"] = f"load {load:.1f} on {figures.cpu_count} processors"
    pressure = limits.pressure_maximum
    if pressure is not None:
        high = {k: v for k, v in figures.pressure.items() if v > pressure}
        if high:
            texts = [f"{name} {value:.0f} %" for name, value in high.items()]
            found["pressure_maximum"] = f"pressure: {', '.join(texts)}"
    disk, free = figures.disk_free, limits.disk_minimum
    if disk is not None and free is not None and disk < free:
        found["disk_minimum"] = f"{_mib(disk)} free on the disk"
    shown = {
        "memory_minimum": None if least is None else _mib(least),
        "load_maximum": None if most is None else f"{most:g} a processor",
        "pressure_maximum": None if pressure is None else f"{pressure:g} %",
        "disk_minimum": None if free is None else _mib(free),
    }
    return {key: f"{text} ({key}={shown[key]})" for key, text in found.items()}


def _mib(size: int) -> str:
    return f"{size / _MIB:.0f} MiB"
