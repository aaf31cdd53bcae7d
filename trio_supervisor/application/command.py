"""A service that runs any other program. Pure."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Final

from trio_supervisor.application import checks
from trio_supervisor.application.listen import Listen
from trio_supervisor.application.options import KillMode, Supervised
from trio_supervisor.application.probe import Probe
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.order import Condition
from trio_supervisor.policy.restart import Backoff, RestartPolicy
from trio_supervisor.policy.secrets import hide_words

_STABLE_FOR: Final = 1.0


class Command(Supervised):
    """A named group of identical processes that run any other program.

    Takes what `Service` takes, but for what concerns Python. It is ready when all of
    these that it has say so: its own ``READY=1`` (*notify*), *startup*, *readiness*;
    without any, once it is started. A reload that has to replace it stops the old
    processes first, unless ``overlap=True``: most programs hold something, a port or
    a file, that no second one can have.

    Args:
        arguments: The program and its arguments; found on PATH, run without a shell.
        notify: Give it ``NOTIFY_SOCKET`` and wait for its ``READY=1`` (sd_notify(3)).
        health_check_timeout: With *notify*: it also gets ``WATCHDOG_USEC``, and is
            replaced when ``WATCHDOG=1`` does not come in time [s].
        startup: Asks whether it has started. Until it has, the two others are not
            asked; if it fails, the process is replaced.
        readiness: Asks whether it can work. While it cannot, the process is shown as
            unready, and goes on.
        liveness: Asks whether it still works. If not, the process is replaced.

        stable_for: As for a `Service`; None: 1 s for a command that nothing says is
            ready, else 0.

    Raises:
        SpecError: an argument does not fit; the message names it.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        count: int = 1,
        notify: bool = False,
        restart: RestartPolicy | str = RestartPolicy.ALWAYS,
        backoff: Backoff | None = Backoff(),  # noqa: B008 (frozen)
        intensity: int | None = None,
        period: float = 60.0,
        success_exit_codes: Sequence[int] = (0,),
        give_up_on: Sequence[int | signal.Signals | str] = (),
        startup: Probe | None = None,
        readiness: Probe | None = None,
        liveness: Probe | None = None,
        startup_timeout: float | None = 60.0,
        health_check_timeout: float | None = None,
        max_lifetime: float | None = None,
        stable_for: float | None = None,
        stop_signal: signal.Signals | str = signal.SIGTERM,
        stop_timeout: float = 10.0,
        kill_mode: KillMode = "group",
        pre_stop: Sequence[str] | None = None,
        depends_on: Mapping[str, Condition] | None = None,
        significant: bool = False,
        overlap: bool = False,
        sockets: Mapping[str, Listen] | None = None,
        forward_signals: Sequence[signal.Signals | str] = (),
        may: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        log_file: str | None = None,
    ) -> None:
        super().__init__(
            name,
            count=count,
            restart=restart,
            backoff=backoff,
            intensity=intensity,
            period=period,
            success_exit_codes=success_exit_codes,
            give_up_on=give_up_on,
            startup_timeout=startup_timeout,
            health_check_timeout=health_check_timeout,
            max_lifetime=max_lifetime,
            stable_for=stable_for,
            stop_signal=stop_signal,
            stop_timeout=stop_timeout,
            kill_mode=kill_mode,
            pre_stop=pre_stop,
            depends_on=depends_on,
            significant=significant,
            overlap=overlap,
            sockets=sockets,
            forward_signals=forward_signals,
            may=may,
            environment=environment,
            directory=directory,
            log_file=log_file,
        )
        self.arguments = checks.arguments("arguments", arguments)
        self.notify = checks.flag("notify", notify)
        if health_check_timeout is not None and not notify:
            raise SpecError("health_check_timeout", "needs notify=True")
        self.startup = _probe("startup", startup)
        self.readiness = _probe("readiness", readiness)
        self.liveness = _probe("liveness", liveness)
        if stable_for is None and not (notify or startup or readiness):
            self.stable_for = _STABLE_FOR

    def __repr__(self) -> str:
        words = hide_words(self.arguments)
        return f"Command({self.name!r}, {words!r}, count={self.count})"


def _probe(field: str, value: object) -> Probe | None:
    if value is not None and not isinstance(value, Probe):
        problem = "expected a Probe, as Probe.http('http://127.0.0.1:8000/'), or None"
        raise SpecError(field, f"{problem}, got {checks.shown(value)}")
    return value
