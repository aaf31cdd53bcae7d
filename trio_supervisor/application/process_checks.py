"""Check single values of the options about a process's attributes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

from trio_supervisor.application import checks
from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.errors import SpecError

Limit: TypeAlias = "int | Literal['unlimited']"
Limits: TypeAlias = dict[str, tuple[Limit, Limit]]
"""Soft and hard limit by resource."""

UNLIMITED: Final = "unlimited"
# The RLIMIT_ constants of Linux, getrlimit(2), that Python's resource module has.
RESOURCES: Final = (
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
)
# RLIM_INFINITY is the greatest 64-bit number, and Python's is -1.
_MAX_LIMIT: Final = 2**63 - 1
# CONFIG_NR_CPUS of a Linux kernel is at most 8192.
_MAX_CPU: Final = 8191
_MAX_UMASK: Final = 0o777
_OCTAL: Final = re.compile(r"(0o)?[0-7]{1,4}")
_IONICE: Final = re.compile(r"idle|(best-effort|realtime)(:[0-7])?")


# (uid_t) -1 means "unchanged"; setreuid(2).
_MAX_OWNER: Final = 2**32 - 2


class Octal(int):
    """A number that is shown in octal digits, as permissions are."""

    def __repr__(self) -> str:
        return f"0o{self:03o}"


def owner_or_none(value: str | int | None, field: str = "") -> str | int | None:
    """Return *value* if it is None, or a user or group by name or number."""
    return None if value is None else _owner(value, field)


def owners_or_none(
    value: Sequence[str | int] | None, field: str = ""
) -> tuple[str | int, ...] | None:
    """Return the groups in the list *value*, each by name or number; None for None."""
    if value is None:
        return None
    return tuple(
        _owner(item, f"{field}[{index}]")
        for index, item in enumerate(checks.items(value, field))
    )


def _owner(value: object, field: str) -> str | int:
    if checks.is_text(value) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return checks.integer(value, field, least=0, most=_MAX_OWNER)
    problem = "expected a name or a number"
    raise SpecError(field, f"{problem}, got {checks.shown(value)}")


def umask_or_none(value: int | str | None, field: str = "") -> int | None:
    """Return *value* if it is None, a umask, or octal digits such as ``"027"``."""
    if value is None:
        return None
    if isinstance(value, str) and _OCTAL.fullmatch(value):
        value = int(value, 8)
    if isinstance(value, bool) or not isinstance(value, int):
        problem = "expected a number such as 0o027, or its octal digits as a string"
        raise SpecError(field, f"{problem}, got {checks.shown(value)}")
    if not 0 <= value <= _MAX_UMASK:
        problem = f"expected 0 to 0o777, got {checks.shown(value)}"
        raise SpecError(field, problem)
    return Octal(value)


def cpus_or_none(
    value: Sequence[int] | None, field: str = ""
) -> tuple[int, ...] | None:
    """Return the CPU numbers in the list *value*, each once; None for None."""
    if value is None:
        return None
    found = {
        checks.integer(item, f"{field}[{index}]", least=0, most=_MAX_CPU)
        for index, item in enumerate(checks.items(value, field))
    }
    if not found:
        raise SpecError(field, "expected at least one CPU number, got an empty list")
    return tuple(sorted(found))


def ionice_or_none(value: str | None, field: str = "") -> str | None:
    """Return *value* if it is None, or an I/O scheduling class with its level."""
    if value is None or (isinstance(value, str) and _IONICE.fullmatch(value)):
        return value
    problem = (
        "expected 'idle', or 'best-effort' or 'realtime' with a level from 0 to 7 such "
        "as 'best-effort:6'"
    )
    raise SpecError(field, f"{problem}, got {checks.shown(value)}")


def limits(
    value: Mapping[str, int | str | Sequence[int | str]] | None, field: str = ""
) -> Limits:
    """Return the soft and hard limit of each resource in *value*."""
    found: Limits = {}
    for name, item in checks.dictionary(value, field).items():
        if name not in RESOURCES:
            expected = ", ".join(RESOURCES)
            problem = (
                f"unknown resource {checks.shown(name)}{did_you_mean(name, RESOURCES)}"
            )
            raise SpecError(field, f"{problem}; expected one of {expected}")
        found[name] = _soft_and_hard(item, f"{field}[{name!r}]")
    return found


def _soft_and_hard(value: object, field: str) -> tuple[Limit, Limit]:
    if not isinstance(value, list | tuple):
        both = _limit(value, field)
        return both, both
    if len(value) != 2:
        problem = f"expected two items, (soft, hard), got {checks.shown(value)}"
        raise SpecError(field, problem)
    soft, hard = (_limit(item, f"{field}[{n}]") for n, item in enumerate(value))
    if hard != UNLIMITED and (soft == UNLIMITED or soft > hard):
        problem = f"the soft limit {soft} is greater than the hard limit {hard}"
        raise SpecError(field, problem)
    return soft, hard


def _limit(value: object, field: str) -> Limit:
    if value == UNLIMITED:
        return "unlimited"
    if isinstance(value, bool) or not isinstance(value, int):
        problem = f"expected a whole number or 'unlimited', got {checks.shown(value)}"
        raise SpecError(field, problem)
    return checks.integer(value, field, least=0, most=_MAX_LIMIT)
