"""A service that runs Python. Pure."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from trio_supervisor.application import checks
from trio_supervisor.application.listen import Listen
from trio_supervisor.application.options import KillMode, Supervised
from trio_supervisor.application.target import check_target
from trio_supervisor.policy.order import Condition
from trio_supervisor.policy.restart import Backoff, RestartPolicy

Backend: TypeAlias = Literal["trio", "asyncio", "sync"]
StartMethod: TypeAlias = Literal["fork_server", "exec"]


class Service(Supervised):
    """A named group of identical worker processes that run one Python function.

    Args:
        name: Its workers are ``name.0``, ``name.1`` …; letters, digits, ``-``, ``_``.
        target: Called with a `Worker` (a `SyncWorker` for ``backend="sync"``) in each
            process. A worker whose target returns has ended with exit code 0.
        count: How many workers.
        backend: What runs *target*: ``"trio"`` or ``"asyncio"`` for an async function,
            ``"sync"`` for a plain one.
        restart: When a worker that ended is started again.
        backoff: Delays between restarts; None for no delay.
        intensity: Restart limit: at most so many unplanned restarts of one worker
            within *period*. One more makes its group fail: see `Group`. None for no
            limit: it is restarted for ever, with the delays of *backoff*.
        period: Length of that window [s].
        success_exit_codes: What a worker exits with that ended as it should; a failure
            is anything else, and a signal.
        give_up_on: Exit codes, and signals, after which a worker that ended by itself
            is not started again, whatever *restart* says: it would not help.
        startup_timeout: A worker not ready in this time is replaced [s]; None: wait.
        health_check_timeout: A ready worker whose main loop gave no heartbeat for this
            long is replaced [s]; None: never.
        max_lifetime: A worker this old is replaced [s]; up to a tenth earlier, so that
            not all are at once. None: never.
        stable_for: How long a worker has to be ready before ``start``, ``restart``,
            ``scale`` and ``reload`` report success, and before all workers are said to
            be ready [s]. One that exits earlier makes them fail. Restarts after a crash
            and dependents do not wait for it. None: 0.
        stop_signal: What asks a worker to end.
        stop_timeout: Time from there to SIGKILL [s].
        kill_mode: Who gets the stop signal: all of the worker's process ``"group"``, or
            its ``"leader"`` alone: what that leaves behind is killed once it has ended.
        pre_stop: A program, and its arguments, that is run before the stop signal is
            sent. Its time is part of *stop_timeout*.
        depends_on: Names of services, and what is waited for before a worker is
            started: that all workers of that one were ``"started"``, are ``"ready"``,
            or have ended for good with success (``"exited_ok"``). It is stopped
            before those that it depends on.
        significant: Whether the end of this service, by itself and for good, ends the
            application: see *auto_shutdown* of `Application`.
        overlap: Whether a reload may start new workers beside the old ones; else it
            stops the old ones first.
        sockets: Where the controller listens for it, by name: each worker inherits
            the sockets, open before it starts and while it is replaced. A name has up
            to 64 letters, digits, ``-``, ``_``; 32 sockets at most.
        forward_signals: Signals that ``serve`` passes on to each worker when it gets
            them: SIGUSR2, SIGWINCH, SIGQUIT, SIGTTIN or SIGTTOU.
        may: What its workers, and all that these start, may ask of the supervisor
            beyond ``ping`` and their own status: ``"status"``, ``"health"``,
            ``"events"``, ``"logs"``, ``"forward"``, ``"start"``, ``"stop"``,
            ``"restart"``, ``"scale"``, ``"reload"`` or ``"shutdown"``.
        state: Sent along when a worker registers; JSON values only.
        environment: Variables to add to the worker's environment, or to replace.
        directory: Working directory; None: the controller's.
        log_file: Where its standard output and error go; None: to the controller's.
        start_method: ``"fork_server"`` forks workers within milliseconds from a process
            that has imported the application once; ``"exec"`` starts a new interpreter
            for each, for applications that start threads or connect when imported.
        switch_interval: ``sys.setswitchinterval`` of the worker [s]; None: leave it.
            The default lets diagnostics in beside a busy main loop.

    Raises:
        SpecError: an argument does not fit; the message names it.
    """

    def __init__(
        self,
        name: str,
        target: Callable[..., Any],
        *,
        count: int = 1,
        backend: Backend = "trio",
        restart: RestartPolicy | str = RestartPolicy.ALWAYS,
        backoff: Backoff | None = Backoff(),  # noqa: B008 (frozen)
        intensity: int | None = None,
        period: float = 60.0,
        success_exit_codes: Sequence[int] = (0,),
        give_up_on: Sequence[int | signal.Signals | str] = (),
        startup_timeout: float | None = 60.0,
        health_check_timeout: float | None = 30.0,
        max_lifetime: float | None = None,
        stable_for: float | None = None,
        stop_signal: signal.Signals | str = signal.SIGTERM,
        stop_timeout: float = 10.0,
        kill_mode: KillMode = "group",
        pre_stop: Sequence[str] | None = None,
        depends_on: Mapping[str, Condition] | None = None,
        significant: bool = False,
        overlap: bool = True,
        sockets: Mapping[str, Listen] | None = None,
        forward_signals: Sequence[signal.Signals | str] = (),
        may: Sequence[str] = (),
        state: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        log_file: str | None = None,
        start_method: StartMethod = "fork_server",
        switch_interval: float | None = 1e-4,
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
        self.backend: Backend = checks.one_of(
            "backend", backend, ("trio", "asyncio", "sync")
        )
        check_target("target", target, self.backend, self.name)
        self.target = target
        self.state = checks.state("state", state)
        self.start_method: StartMethod = checks.one_of(
            "start_method", start_method, ("fork_server", "exec")
        )
        self.switch_interval = checks.seconds_or_none(
            "switch_interval", switch_interval
        )

    def __repr__(self) -> str:
        return f"Service({self.name!r}, count={self.count})"
