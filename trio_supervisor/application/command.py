"""A service that runs any other program. Pure."""

from __future__ import annotations

from typing import Final

from attrs import define, field

from trio_supervisor.application import checks
from trio_supervisor.application.fields import checked_later, documented, option
from trio_supervisor.application.probe import Probe, probe_or_none
from trio_supervisor.application.process_options import ProcessOptions
from trio_supervisor.application.templates import check_templates
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.secrets import hide_words

# Without any sign of readiness, a command that fails at once would count as started.
_STABLE_FOR: Final = 1.0


@documented
@define(
    eq=False,
    repr=False,
    slots=False,
    on_setattr=[],
    field_transformer=checked_later,
)
class Command(ProcessOptions):
    """A named group of identical processes that run any program.

    It is ready when everything that was configured says so: its own ``READY=1``
    (*notify*), *startup* and *readiness*. Without any of these it is ready once
    started.

    Example::

        Command("redis", ["redis-server", "--port", "7000"], stop_timeout=30)

    Raises:
        SpecError: the value of an option is not valid; the message names the option.
    """

    name: str = field(
        converter=checks.name,
        metadata=option(
            "Name of the service; its processes are `NAME.0`, `NAME.1` and so on. Up "
            "to 64 letters, digits, `-` and `_`."
        ),
    )
    arguments: tuple[str, ...] = field(
        converter=checks.arguments,
        metadata=option(
            "Program to run, and its arguments. It is searched for on PATH, and "
            "started without a shell."
        ),
    )
    tty: bool = field(
        default=False,
        kw_only=True,
        converter=checks.flag,
        metadata=option(
            "Whether each process gets a terminal of its own, of 80 columns and 24 "
            "lines: for programs that buffer their output, or refuse to run, without "
            "one. Standard output and error are then one stream. Linux only."
        ),
    )
    notify: bool = field(
        default=False,
        kw_only=True,
        converter=checks.flag,
        metadata=option(
            "Whether the program reports readiness: it gets `NOTIFY_SOCKET`, and is "
            "ready when it has sent `READY=1` (sd_notify(3))."
        ),
    )
    startup: Probe | None = field(
        default=None,
        kw_only=True,
        converter=probe_or_none,
        metadata=option(
            "Probe of whether the program has started. The other probes wait until it "
            "succeeds; when it fails, the process is replaced."
        ),
    )
    readiness: Probe | None = field(
        default=None,
        kw_only=True,
        converter=probe_or_none,
        metadata=option(
            "Probe of whether the program can do its work. While it fails, the process "
            "is shown as not ready, but keeps running."
        ),
    )
    liveness: Probe | None = field(
        default=None,
        kw_only=True,
        converter=probe_or_none,
        metadata=option(
            "Probe of whether the program still works; when it fails, the process is "
            "replaced."
        ),
    )
    health_check_timeout: float | None = field(
        default=None,
        kw_only=True,
        converter=checks.seconds_or_none,
        metadata=option(
            "Maximum time between two `WATCHDOG=1` of the program, which gets "
            "`WATCHDOG_USEC`; a process that is silent for longer is replaced. Needs "
            "`notify=True`. `None` disables the check.",
            unit="s",
        ),
    )
    stable_for: float = field(
        default=None,
        kw_only=True,
        converter=checks.seconds_or_none,
        metadata=option(
            "As for a service, but `None` means 1 s if neither `notify`, `startup` nor "
            "`readiness` tells when the program is ready.",
            unit="s",
            least=0,
        ),
    )
    overlap: bool = field(
        default=False,
        kw_only=True,
        converter=checks.flag,
        metadata=option(
            "Whether a reload may start new processes before it stops the old ones. "
            "Otherwise it stops the old ones first, because most programs hold "
            "a port or a file that no second process can have."
        ),
    )

    def __attrs_post_init__(self) -> None:
        """Check the options, and those that depend on each other."""
        super().__attrs_post_init__()
        if not isinstance(self.count, int):
            raise SpecError(
                "count", "expected a whole number: a Command has no metrics"
            )
        if self.health_check_timeout is not None and not self.notify:
            raise SpecError("health_check_timeout", "needs notify=True")
        if self.stable_for is None:
            tells_ready = self.notify or self.startup or self.readiness
            self.stable_for = 0.0 if tells_ready else _STABLE_FOR
        check_templates(self)
        for name in ("startup", "readiness", "liveness"):
            probe: Probe | None = getattr(self, name)
            if probe is not None and probe.template and not self.expand:
                raise SpecError(name, f"{probe} needs expand=True")

    def __repr__(self) -> str:
        words = hide_words(self.arguments)
        return f"Command({self.name!r}, {words!r}, count={self.count})"
