"""What is declared of every service, whatever it runs. Pure."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

from trio_supervisor.application import checks
from trio_supervisor.application.listen import Listen
from trio_supervisor.application.listen import sockets as checked_sockets
from trio_supervisor.policy.order import Condition
from trio_supervisor.policy.restart import Backoff, RestartPolicy

KillMode: TypeAlias = Literal["group", "leader"]

MAX_COUNT: Final = 10_000
FORWARDED: Final = (
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGQUIT,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
"""The signals that ``serve`` passes on; the others mean something to itself."""
# A process that is recycled faster does nothing else, and no intensity would stop it.
_LEAST_LIFETIME: Final = 0.1


class Supervised:
    """What `Service` and `Command` have in common; neither more nor less than both."""

    def __init__(
        self,
        name: str,
        *,
        count: int,
        restart: RestartPolicy | str,
        backoff: Backoff | None,
        intensity: int | None,
        period: float,
        success_exit_codes: Sequence[int],
        give_up_on: Sequence[int | signal.Signals | str],
        startup_timeout: float | None,
        health_check_timeout: float | None,
        max_lifetime: float | None,
        stable_for: float | None,
        stop_signal: signal.Signals | str,
        stop_timeout: float,
        kill_mode: KillMode,
        pre_stop: Sequence[str] | None,
        depends_on: Mapping[str, Condition] | None,
        significant: bool,
        overlap: bool,
        sockets: Mapping[str, Listen] | None,
        forward_signals: Sequence[signal.Signals | str],
        may: Sequence[str],
        environment: Mapping[str, str] | None,
        directory: str | None,
        log_file: str | None,
    ) -> None:
        self.name = checks.name("name", name)
        self.count = checks.integer("count", count, least=0, most=MAX_COUNT)
        self.success_exit_codes = checks.exit_codes(
            "success_exit_codes", success_exit_codes
        )
        self.give_up_on = checks.returncodes("give_up_on", give_up_on)
        self.rules = checks.rules(
            restart,
            backoff,
            intensity,
            period,
            self.success_exit_codes,
            self.give_up_on,
        )
        self.startup_timeout = checks.seconds_or_none(
            "startup_timeout", startup_timeout
        )
        self.health_check_timeout = checks.seconds_or_none(
            "health_check_timeout", health_check_timeout
        )
        self.max_lifetime = checks.seconds_or_none(
            "max_lifetime", max_lifetime, least=_LEAST_LIFETIME
        )
        self.stable_for = (
            checks.seconds_or_none("stable_for", stable_for, least=0) or 0.0
        )
        self.stop_signal = checks.ending_signal("stop_signal", stop_signal)
        self.stop_timeout = checks.seconds("stop_timeout", stop_timeout, least=0)
        self.kill_mode: KillMode = checks.one_of(
            "kill_mode", kill_mode, ("group", "leader")
        )
        self.pre_stop = checks.arguments_or_none("pre_stop", pre_stop)
        self.depends_on = checks.conditions("depends_on", depends_on)
        self.significant = checks.flag("significant", significant)
        self.overlap = checks.flag("overlap", overlap)
        self.sockets = checked_sockets("sockets", sockets)
        self.forward_signals = checks.signals(
            "forward_signals", forward_signals, FORWARDED
        )
        self.may = checks.grants("may", may)
        self.environment = checks.strings("environment", environment)
        self.directory = checks.text_or_none("directory", directory)
        self.log_file = checks.text_or_none("log_file", log_file)
