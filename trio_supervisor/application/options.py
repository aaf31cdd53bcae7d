"""Options of services and commands. Pure."""

from __future__ import annotations

import signal
from typing import Final, Literal, TypeAlias

from attrs import define, field

from trio_supervisor.application import checks
from trio_supervisor.application.autoscale import MAX_COUNT, worker_count
from trio_supervisor.application.fields import Checked, checked_later, option
from trio_supervisor.application.listen import Listen, checked_sockets
from trio_supervisor.application.timetable import Timetable, timetable_or_none
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.order import Condition
from trio_supervisor.policy.restart import Backoff, RestartPolicy, RestartRules
from trio_supervisor.policy.roles import GRANTS

KillMode: TypeAlias = Literal["group", "leader"]

FORWARDED: Final = (
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGQUIT,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
"""The signals that ``serve`` can forward; it handles the others itself."""
# A worker with a shorter lifetime would do nothing but restart, without any limit.
_SHORTEST_LIFETIME: Final = 0.1


@define(
    eq=False,
    repr=False,
    init=False,
    slots=False,
    kw_only=True,
    on_setattr=[],
    field_transformer=checked_later,
)
class ServiceOptions(Checked):
    """Options that `Service` and `Command` share."""

    rules: RestartRules = field(init=False)
    """What the options about restarts amount to."""

    count: int = field(
        default=1,
        converter=worker_count,
        metadata=option(
            "Number of workers; for a `Service`, also an `Autoscale`, with which their "
            "load decides.",
            least=0,
            most=MAX_COUNT,
        ),
    )
    restart: RestartPolicy = field(
        default=RestartPolicy.ALWAYS,
        converter=checks.restart_policy,
        metadata=option(
            'When a worker that exited is restarted: `"always"`, only `"on-failure"`, '
            'or `"never"`.',
            choices=tuple(policy.value for policy in RestartPolicy),
        ),
    )
    backoff: Backoff | None = field(
        default=Backoff(),
        converter=checks.backoff,
        metadata=option(
            "Delays between restarts in a row; `None` restarts without delay."
        ),
    )
    intensity: int | None = field(
        default=None,
        converter=checks.integer_or_none,
        metadata=option(
            "Restart limit: maximum number of unplanned restarts of one worker within "
            "`period`. One more makes its group fail, see `Group`. `None` "
            "sets no limit: the worker is restarted for ever, with the delays of "
            "`backoff`.",
            least=0,
        ),
    )
    period: float = field(
        default=60.0,
        converter=checks.seconds,
        metadata=option(
            "Length of the sliding window in which restarts are counted for "
            "`intensity`.",
            unit="s",
            least=1e-3,
        ),
    )
    success_exit_codes: frozenset[int] = field(
        default=(0,),
        converter=checks.exit_codes,
        metadata=option(
            "Exit codes that mean success. Any other exit code is a failure, and so is "
            "death by a signal."
        ),
    )
    give_up_on: frozenset[int] = field(
        default=(),
        converter=checks.returncodes,
        metadata=option(
            "Exit codes and signals after which a restart would not help: a worker "
            "that exits on its own with one of them is not restarted, regardless of "
            "`restart`."
        ),
    )
    startup_timeout: float | None = field(
        default=60.0,
        converter=checks.seconds_or_none,
        metadata=option(
            "Maximum time from start to ready; a worker that takes longer is "
            "replaced. `None` waits for ever.",
            unit="s",
        ),
    )
    health_check_timeout: float | None = field(
        default=30.0,
        converter=checks.seconds_or_none,
        metadata=option(
            "Maximum time between two heartbeats of a ready worker's event loop; a "
            "worker that is silent for longer is replaced. `None` disables the check.",
            unit="s",
        ),
    )
    max_lifetime: float | None = field(
        default=None,
        converter=checks.seconds_or_none,
        metadata=option(
            "Age at which a worker is replaced. Each worker's lifetime is up to a "
            "tenth shorter, so that not all are replaced at once. `None` sets no "
            "limit.",
            unit="s",
            least=_SHORTEST_LIFETIME,
        ),
    )
    stable_for: float = field(
        default=None,
        converter=checks.seconds_or_zero,
        metadata=option(
            "Time that a worker must stay ready before `start`, `restart`, `scale` and "
            "`reload` report success, and before all workers count as ready. A worker "
            "that exits earlier makes them fail. Restarts after a crash, and "
            "dependents, do not wait for it. `None` means 0.",
            unit="s",
            least=0,
        ),
    )
    stop_signal: signal.Signals = field(
        default=signal.SIGTERM,
        converter=checks.ending_signal,
        metadata=option("Signal that asks a worker to stop."),
    )
    stop_timeout: float = field(
        default=10.0,
        converter=checks.seconds,
        metadata=option(
            "Time from the stop signal to SIGKILL, including the time that `pre_stop` "
            "takes.",
            unit="s",
            least=0,
        ),
    )
    kill_mode: KillMode = field(
        default="group",
        metadata=option(
            "Processes that get the stop signal: the whole process group of the worker "
            '(`"group"`), or only the worker (`"leader"`). Processes that it leaves '
            "behind are killed after it has exited.",
            choices=("group", "leader"),
        ),
    )
    pre_stop: tuple[str, ...] | None = field(
        default=None,
        converter=checks.arguments_or_none,
        metadata=option(
            "Program, and its arguments, to run before the stop signal is sent. "
            "Its time counts towards `stop_timeout`."
        ),
    )
    depends_on: dict[str, Condition] = field(
        default=None,
        converter=checks.conditions,
        metadata=option(
            "Names of services that this one depends on, each with the condition to "
            'wait for before a worker starts: all of its workers were `"started"`, '
            'are `"ready"`, or have exited for good with success (`"exited_ok"`). '
            "A service is stopped before the services that it depends on."
        ),
    )
    significant: bool = field(
        default=False,
        converter=checks.flag,
        metadata=option(
            "Whether the application ends when this service has exited for good on "
            "its own: see `auto_shutdown` of `Application`."
        ),
    )
    autostart: bool = field(
        default=True,
        converter=checks.flag,
        metadata=option(
            "Whether the workers start with the application. Otherwise they start when "
            "`start` or `restart` names them, or with a service that depends on them."
        ),
    )
    on_demand: bool = field(
        default=False,
        converter=checks.flag,
        metadata=option(
            "Whether the workers start only when a client connects to one of "
            "`sockets`, and then accept its connection. Until then they cost no "
            "process."
        ),
    )
    idle_timeout: float | None = field(
        default=None,
        converter=checks.seconds_or_none,
        metadata=option(
            "With `on_demand`: time without any open connection to `sockets` after "
            "which the workers are stopped, until the next client connects (Linux). "
            "`None`: they keep running.",
            unit="s",
            least=0.1,
        ),
    )
    schedule: Timetable | None = field(
        default=None,
        converter=timetable_or_none,
        metadata=option(
            "When the workers run, if not all the time: see `Timetable`. They do not "
            "start with the application, need not report that they are ready, and are "
            'not restarted after a run; `restart="on-failure"` repeats a run that has '
            "failed. `start` begins a run now; `stop` ends it and pauses the schedule "
            "until the next `start`. A reload lets a run end."
        ),
    )
    overlap: bool = field(
        default=True,
        converter=checks.flag,
        metadata=option(
            "Whether a reload may start new workers before it stops the old ones. "
            "Otherwise it stops the old ones first."
        ),
    )
    sockets: dict[str, Listen] = field(
        default=None,
        converter=checked_sockets,
        metadata=option(
            "Sockets that the controller listens on for this service, by name. Each "
            "worker inherits them; they are open before it starts and stay open while "
            "it is replaced. A name has up to 64 letters, digits, `-` and `_`; at most "
            "32 sockets."
        ),
    )
    forward_signals: tuple[signal.Signals, ...] = field(
        default=(),
        converter=checks.signals,
        metadata=option(
            "Signals that `serve` forwards to each worker when it receives them.",
            choices=FORWARDED,
        ),
    )
    may: tuple[str, ...] = field(
        default=(),
        converter=checks.some_of,
        metadata=option(
            "Operations that the workers, and processes that they start, may ask the "
            "supervisor for, beyond `ping` and their own status.",
            choices=tuple(GRANTS),
        ),
    )
    environment: dict[str, str] = field(
        default=None,
        converter=checks.environment,
        metadata=option(
            "Environment variables to add to those of the controller, or to replace."
        ),
    )
    directory: str | None = field(
        default=None,
        converter=checks.path_or_none,
        metadata=option("Working directory; `None`: the directory of the controller."),
    )
    expand: bool = field(
        default=False,
        converter=checks.flag,
        metadata=option(
            "Whether `{index}`, `{name}` (such as `web.0`), `{service}` and arithmetic "
            "such as `{8000+index}` are replaced for each worker, in the values of "
            "`environment`, `arguments`, `pre_stop`, `directory`, `stdin`, `log_file` "
            "and in probes. Double braces stand for single ones."
        ),
    )

    def __attrs_post_init__(self) -> None:
        """Check the options, and derive *rules* from those about restarts."""
        super().__attrs_post_init__()
        self._check_demand()
        policy = self.restart
        if self.schedule is not None:
            if self.significant:
                raise SpecError("significant", "is not for a service with a schedule")
            if policy is RestartPolicy.ALWAYS:
                policy = RestartPolicy.NEVER
        self.rules = RestartRules(
            policy=policy,
            backoff=self.backoff,
            intensity=self.intensity,
            period=self.period,
            success=self.success_exit_codes,
            give_up_on=self.give_up_on,
        )

    def _check_demand(self) -> None:
        """Check what `on_demand` needs."""
        if not self.on_demand:
            if self.idle_timeout is not None:
                raise SpecError("idle_timeout", "needs on_demand=True")
            return
        if not self.sockets:
            raise SpecError("on_demand", "needs sockets, to which clients connect")
        if any(listen.reuse_port for listen in self.sockets.values()):
            raise SpecError("on_demand", "is not for sockets with reuse_port=True")
        if self.schedule is not None:
            raise SpecError("on_demand", "is not for a service with a schedule")
