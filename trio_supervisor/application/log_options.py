"""Options about the files that a service's output is written to. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from attrs import define, field

from trio_supervisor.application import checks
from trio_supervisor.application.fields import checked_later, option
from trio_supervisor.application.options import ServiceOptions
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.log_target import parse_log_target

_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKMGT]i?)?B?")
_FACTORS: Final[Mapping[str | None, int]] = {
    None: 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "ki": 2**10,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_MOST: Final = 2**50
_MOST_KEPT: Final = 10_000


def size_or_none(value: int | str | None, field: str = "") -> int | None:
    """Return *value*, a number of bytes or a text such as ``"50 MB"``, in bytes."""
    if value is None:
        return None
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            problem = 'expected bytes, or a size such as "50 MB" or "10 MiB"'
            raise SpecError(field, f"{problem}, got {checks.shown(value)}")
        value = int(float(match[1]) * _FACTORS[match[2]])
    return checks.integer(value, field, least=1, most=_MOST)


def log_target_or_none(value: str | None, field: str = "") -> str | None:
    """Return *value* if it is None or names a log service."""
    if value is None:
        return None
    problem = f"expected a text, got {checks.shown(value)}"
    if isinstance(value, str):
        try:
            parse_log_target(value)
        except ValueError as exc:
            problem = f"{exc}, got {checks.shown(value)}"
        else:
            return value
    raise SpecError(field, problem)


@define(
    eq=False,
    repr=False,
    init=False,
    slots=False,
    kw_only=True,
    on_setattr=[],
    field_transformer=checked_later,
)
class LogOptions(ServiceOptions):
    """Options that `Service` and `Command` share, those of their logs included."""

    log_file: str | None = field(
        default=None,
        converter=checks.path_or_none,
        metadata=option(
            "File that standard output and standard error are appended to; `None`: "
            "the output of the controller."
        ),
    )
    stderr_log_file: str | None = field(
        default=None,
        converter=checks.path_or_none,
        metadata=option(
            "File for standard error alone; `None`: it goes where standard output goes."
        ),
    )
    log_to: str | None = field(
        default=None,
        converter=log_target_or_none,
        metadata=option(
            "Log service that gets each line of output: `journald`, `syslog`, either "
            "with the path of its socket, such as `syslog:/run/log`, or "
            "`syslog:udp://HOST:PORT` or `syslog:tcp://HOST:PORT`. `None`: the output "
            "of the controller. With `stderr_log_file`, only standard output."
        ),
    )
    log_max_size: int | None = field(
        default=None,
        converter=size_or_none,
        metadata=option(
            "Size at which a log file is rotated, in bytes or as `50 MB` or `10 MiB`: "
            "it is renamed to `FILE.1`, the one before to `FILE.2` and so on. `None` "
            "sets no limit.",
            unit="bytes",
        ),
    )
    log_max_age: float | None = field(
        default=None,
        converter=checks.seconds_or_none,
        metadata=option(
            "Time after which a log file is rotated, counted from midnight, local "
            "time: `86400` is once a day. `None` sets no limit.",
            unit="s",
            least=1,
        ),
    )
    log_keep: int = field(
        default=10,
        converter=checks.integer,
        metadata=option(
            "Number of rotated files that are kept.", least=0, most=_MOST_KEPT
        ),
    )
    log_compress: bool = field(
        default=True,
        converter=checks.flag,
        metadata=option("Whether rotated files are compressed, as `FILE.1.gz`."),
    )
    log_timestamps: bool = field(
        default=False,
        converter=checks.flag,
        metadata=option(
            "Whether each line in a log file begins with its time, in UTC. Otherwise "
            "the file has the output byte for byte."
        ),
    )

    def __attrs_post_init__(self) -> None:
        """Check the options, and that there is a file that they are about."""
        super().__attrs_post_init__()
        for name in ("log_max_size", "log_max_age", "log_timestamps"):
            if getattr(self, name) and not self.log_files:
                raise SpecError(name, "needs log_file")
        if self.log_to is not None and self.log_file is not None:
            raise SpecError("log_to", "cannot be combined with log_file")

    @property
    def log_files(self) -> tuple[str, ...]:
        """The files that the output is written to."""
        return tuple(filter(None, (self.log_file, self.stderr_log_file)))

    @property
    def has_own_log(self) -> bool:
        """Whether output goes to files or to a log service."""
        return bool(self.log_files or self.log_to)
