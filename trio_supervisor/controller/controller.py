"""The public face of a running application, for the program that embeds it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from trio.lowlevel import enable_ki_protection

from trio_supervisor._construction import NoPublicConstructor
from trio_supervisor.application import Application
from trio_supervisor.controller.core import ControllerCore
from trio_supervisor.controller.metrics import metrics_text
from trio_supervisor.controller.streams import open_events, open_logs
from trio_supervisor.controller.supervisor_link import record_of
from trio_supervisor.link.entries import Entries
from trio_supervisor.policy.canary import canary_trial
from trio_supervisor.policy.reload import ReloadOptions, ReloadPlan
from trio_supervisor.wire.controller_messages import HealthReport
from trio_supervisor.wire.workers import WorkerRecord


class Controller(metaclass=NoPublicConstructor):
    """A running application; made by `open_controller`.

    Its methods have the same names as those of `Client`. None has a timeout: use
    `trio.fail_after`. Cancelling a method stops the wait, not the operation that it
    started. A KeyboardInterrupt in the main task is delivered at its next checkpoint.
    """

    def __init__(self, core: ControllerCore) -> None:
        self._core = core

    @property
    def application(self) -> Application:
        """Declaration from the latest import; functions may be names only."""
        return self._core.application

    @property
    def socket_path(self) -> str:
        """Path of the socket at which clients find it."""
        return self._core.socket_path

    @property
    def is_stopping(self) -> bool:
        """Whether a shutdown is in progress."""
        return self._core.is_stopping

    @property
    def workers(self) -> tuple[WorkerRecord, ...]:
        """Records of all workers, in the order of declaration."""
        return tuple(record_of(child) for child in self._core.generation.children)

    @enable_ki_protection
    async def wait_ready(self) -> None:
        """Wait until the supervisor and all workers are ready at the same time.

        There is no timeout: use `trio.fail_after`. If the application fails, the block
        of `open_controller` is cancelled, including this wait.

        Raises:
            UnavailableError: a worker failed for good; the message names it.
        """
        await self._core.readiness.wait()

    @enable_ki_protection
    async def restart(
        self,
        *names: str,
        reason: str = "",
        rolling: bool = False,
        max_unavailable: int = 1,
    ) -> None:
        """Restart workers gracefully: *names* (``web.0`` or ``web``), or all.

        Returns when the new workers are ready. If cancelled, the restart continues; a
        rolling restart starts no further batch.

        Args:
            rolling: Restart in batches; each waits until the one before is ready.
            max_unavailable: With *rolling*: maximum number of workers per service
                restarted at once.

        Raises:
            NoSuchWorkerError: a name is unknown; nothing was restarted.
            SpecError: something the workers need is missing; nothing was stopped.
            UnavailableError: a worker exited for good instead.
        """
        limit = max_unavailable if rolling else None
        await self._core.verbs.restart(names or None, reason, limit)

    @enable_ki_protection
    async def stop(self, *names: str, reason: str = "") -> tuple[str, ...]:
        """Stop workers and their dependents, and keep them stopped.

        Returns the names of all stopped workers, dependents first, once their processes
        are gone. Dependents are stopped only if no worker of the service keeps running.
        A worker that another call has started again is left out.

        Raises:
            NoSuchWorkerError: a name is unknown; nothing was stopped.
        """
        return await self._core.verbs.stop(names, reason)

    @enable_ki_protection
    async def start(self, *names: str) -> None:
        """Start the stopped workers among *names*, and their dependencies.

        Returns when all have been ready for ``stable_for`` seconds. A finished one-shot
        job is not run again for its dependents.

        Raises:
            NoSuchWorkerError: a name is unknown; nothing was started.
            SpecError: something the workers need is missing; nothing was started.
            UnavailableError: a worker exited instead, or a service has no workers; all
                workers that this call started are stopped again.
        """
        await self._core.verbs.start(names)

    @enable_ki_protection
    async def scale(self, counts: Mapping[str, int]) -> None:
        """Change the number of workers of services; the remaining ones keep running.

        Returns when the new workers have been ready for ``stable_for`` seconds and the
        surplus ones, those with the highest numbers, have exited. A reload keeps the
        count unless the new application declares a different one.

        Raises:
            NoSuchWorkerError: a service is unknown; nothing was changed.
            SpecError: something the workers need is missing; nothing was changed.
            PlatformError: there are too few file descriptors; nothing was changed.
            UnavailableError: a count is out of range, or a shutdown is in progress; or
                a new worker exited instead, and the previous counts were restored.
            SignalNotPermittedError: a worker to stop runs as another user.
        """
        await self._core.verbs.scale(counts)

    @enable_ki_protection
    async def reload(
        self,
        application: Application | None = None,
        *,
        changed_only: bool = False,
        dry_run: bool = False,
        canary: int | None = None,
        canary_for: float | None = None,
    ) -> ReloadPlan:
        """Import the application again and replace all workers with a new generation.

        The new workers start beside the old ones, which are stopped once all new ones
        are ready. If one does not become ready, the reload is rolled back and the
        previous generation keeps running.

        Args:
            application: New declaration, if it does not come from a target.
            changed_only: Keep the workers whose declaration and code are unchanged.
            dry_run: Only return what the reload would do.
            canary: Try at most this many new workers of each service first, beside all
                the old ones. If they do worse, the reload is rolled back.
            canary_for: How long they are compared [s]. None: 60.

        Raises:
            SpecError: a number is out of range; nothing was changed.
            TargetError: the import failed; nothing was changed.
            ReloadError: the new generation did not become ready, or its canary did
                worse than the old workers; the message says why.
            SignalNotPermittedError: the reload succeeded, but an old worker that runs
                as another user could not be stopped.
            UnavailableError: a reload or a shutdown is in progress.
        """
        trial = canary_trial(canary, canary_for, dry_run=dry_run)
        options = ReloadOptions(
            changed_only=changed_only, dry_run=dry_run, canary=trial
        )
        return await self._core.reloader.reload(application, options)

    @enable_ki_protection
    async def abort_reload(self) -> None:
        """Abort the reload in progress; return when it has been rolled back.

        The caller of the reload gets a `ReloadError`.

        Raises:
            UnavailableError: no reload is in progress, or it can no longer be aborted.
        """
        await self._core.reloader.abort()

    @enable_ki_protection
    def request_restart(self, reason: str = "") -> None:
        """Request a restart of all workers that should run; return immediately.

        Does nothing during a shutdown.
        """
        self._core.verbs.request_restart(reason)

    @enable_ki_protection
    def shutdown(self, reason: str = "shutdown requested") -> None:
        """Begin an ordered shutdown; the block is cancelled when it is complete."""
        self._core.shutdown.request(reason)

    @enable_ki_protection
    def hurry(self) -> None:
        """Cut the shutdown short: kill the remaining processes immediately."""
        self._core.shutdown.hurry()

    @enable_ki_protection
    def forward_signal(self, number: int) -> None:
        """Forward a signal to the processes of the services that subscribe to it."""
        self._core.members.forward_signal(number)

    @enable_ki_protection
    def health(self, kind: str) -> HealthReport:
        """Return the health of the application and the reasons for it.

        Args:
            kind: ``"startup"``: all workers have been ready once. ``"readiness"``:
                every service that should run has a ready worker. ``"liveness"``: the
                controller responds and has not been without a supervisor for long.
        """
        is_ok, details = self._core.readiness.health(kind)
        return HealthReport(is_ok=is_ok, details=details)

    @enable_ki_protection
    async def metrics(
        self, *, per_worker: bool = False, openmetrics: bool = False
    ) -> str:
        """Return all metrics as text, in Prometheus' format or as OpenMetrics.

        Args:
            per_worker: Metrics of services are those of each worker's present process.
        """
        core = self._core
        return await metrics_text(core, per_worker=per_worker, is_open=openmetrics)

    @asynccontextmanager
    async def events(self, *, follow: bool = False) -> AsyncIterator[Entries]:
        """Iterate over events: the stored ones, oldest first, then new ones.

        Each is a mapping with the fields that ``events --json`` prints, such as
        ``event``, ``time`` and ``message``. Example::

            async with controller.events(follow=True) as events:
                async for event in events:
                    print(event["message"])

        Args:
            follow: Go on with new events until the block is left.
        """
        async with open_events(self._core, follow=follow) as entries:
            yield entries

    @asynccontextmanager
    async def logs(
        self, *names: str, tail: int = 100, follow: bool = False
    ) -> AsyncIterator[Entries]:
        """Iterate over the workers' output lines; see `events`.

        Args:
            names: Workers (``web.0``) or services (``web``); none: all.
            tail: Number of past lines, of all workers together.
            follow: Go on with new lines until the block is left.

        Raises:
            NoSuchWorkerError: a name is unknown.
            UnavailableError: output is not captured: see *output* of
                `open_controller`.
        """
        async with open_logs(self._core, names, tail=tail, follow=follow) as entries:
            yield entries

    @enable_ki_protection
    async def attend(self) -> None:
        """Make one full pass of supervision: wait until each child's task has run once.

        Feeds the watchdog of the service manager: if this hangs, supervision hangs.
        """
        await self._core.attend()


def core_of(controller: Controller) -> ControllerCore:
    """Return the parts of *controller*: for this package alone."""
    return controller._core
