"""Restart workers that use too much memory, or leak."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, TypeAlias, TypeVar, get_args

import trio
from attrs import define, evolve

from trio_supervisor.diagnostics.memory_usage import (
    host_free_memory,
    read_full_memory,
    read_memory,
)
from trio_supervisor.errors import SupervisorError
from trio_supervisor.policy.leak import DEFAULT_RATE, GrowthHistory, SteadyGrowth
from trio_supervisor.policy.memory import (
    BASELINE_SAMPLES,
    DEFAULT_THRESHOLD,
    BelowBaseline,
    GrownBeyond,
    HostShort,
    MemoryHistory,
    MemoryUse,
    TooLarge,
    TotalTooLarge,
    Verdict,
    largest,
    total_size,
)
from trio_supervisor.supervisor.monitors.arguments import (
    flag,
    not_negative,
    one_of,
    positive,
    whole,
)
from trio_supervisor.supervisor.monitors.base import Monitor, MonitoredWorker

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Workers sampled in one turn of the event loop, which takes about 1 ms.
_AT_ONCE: Final = 50
# How long a leaking worker is sampled, and how long its answer may take [s].
_SAMPLE_DURATION: Final = 10.0
_SAMPLE_WITHIN: Final = 60.0

Measure: TypeAlias = Literal["rss", "uss"]
OnLeak: TypeAlias = Literal["report", "sample", "restart"]
AskAboutLeak: TypeAlias = Callable[[MonitoredWorker, str], Awaitable[OnLeak | None]]


@define(eq=False)
class _Watched:
    """A worker with the history of its memory."""

    worker: MonitoredWorker
    history: MemoryHistory
    growth: GrowthHistory | None = None
    leak: SteadyGrowth | None = None
    """The last leak that was found."""
    was_sampled: bool = False
    samples_over_limit: int = 0
    """Samples in a row above ``maximum_size_limit`` or ``growth_limit``."""
    needs: int | None = None
    """Memory of a replacement right after its start [bytes]."""

    def add(self, use: MemoryUse, *, is_replacement: bool) -> Verdict:
        """Add a sample; return what is wrong with the process, if anything."""
        is_new = self.history.sample_count < BASELINE_SAMPLES
        if is_replacement and is_new:
            self.needs = use.size
        return self.history.add(use, was_futile=is_replacement and is_new)

    def has_grown(self, use: MemoryUse) -> bool:
        """Return whether a restart could help: only if it has grown since its start."""
        return self.needs is None or use.size > self.needs + self.history.threshold_size


class MemoryMonitor(Monitor):
    """Samples the memory of all workers; gracefully restarts those over a limit.

    Only one worker is restarted at a time. If its replacement exceeds the limit in one
    of its first two samples, the limit is below the baseline: the monitor logs that
    once, and restarts the worker again only after it has grown by ``threshold_size``.

    Example::

        Application(
            [Service("web", "app:serve")],
            monitors=[MemoryMonitor(maximum_size_limit=512 * 1024**2)],
        )

    Args:
        interval: Time between two samples [s].
        maximum_size_limit: Maximum resident memory (rss) of each process [bytes].
        total_size_limit: Maximum of all workers together, by pss, which divides shared
            pages among those that share them [bytes]. Above it, the worker with the
            largest private memory is restarted.
        free_size_minimum: Minimum free memory of the host [bytes]; below it, likewise.
        threshold_size: Growth beyond the high-water mark that counts [bytes].
        increase_limit: Number of such increases after which a worker is leaking.
        growth_limit: How much each process may grow beyond its baseline, the larger of
            its first two samples [bytes].
        measure: What is compared with the limits of each process, and used for leaks:
            ``rss`` (resident memory) or ``uss`` (the private part of it, which is
            slower to read).
        samples: Samples in a row above ``maximum_size_limit`` or ``growth_limit`` that
            cause a restart.
        cool_down: Minimum time between two restarts by this monitor [s].
        evidence: Whether to log a memory sample of 10 s, which names the holders of new
            memory, before each restart.
        leak_window: Time over which the memory of a leaking worker grows steadily, such
            as 6 hours; None: no such check [s].
        leak_rate: Growth that counts as a leak [bytes/s].
        on_leak: What steady growth leads to: ``report`` logs it, ``sample`` also logs
            a memory sample, which names the holders, ``restart`` logs both and restarts
            the worker gracefully.

    Raises:
        SpecError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        *,
        interval: float = 10.0,
        maximum_size_limit: int | None = None,
        total_size_limit: int | None = None,
        free_size_minimum: int | None = None,
        threshold_size: int = DEFAULT_THRESHOLD,
        increase_limit: int | None = None,
        growth_limit: int | None = None,
        measure: Measure = "rss",
        samples: int = 1,
        cool_down: float = 0.0,
        evidence: bool = False,
        leak_window: float | None = None,
        leak_rate: float = DEFAULT_RATE,
        on_leak: OnLeak = "restart",
    ) -> None:
        super().__init__(interval=interval)
        self.maximum_size_limit = _size("maximum_size_limit", maximum_size_limit)
        self.total_size_limit = _size("total_size_limit", total_size_limit)
        self.free_size_minimum = _size("free_size_minimum", free_size_minimum)
        self.threshold_size = _size("threshold_size", threshold_size) or 0
        self.increase_limit = _size("increase_limit", increase_limit)
        self.growth_limit = _size("growth_limit", growth_limit)
        self.leak_window = None
        if leak_window is not None:
            self.leak_window = positive("leak_window", leak_window)
        self.leak_rate = positive("leak_rate", leak_rate)
        self.on_leak = one_of("on_leak", on_leak, get_args(OnLeak))
        self.measure = one_of("measure", measure, get_args(Measure))
        self.samples = whole("samples", samples, least=1)
        self.cool_down = not_negative("cool_down", cool_down)
        self.evidence = flag("evidence", evidence)
        self._restarted_at = -math.inf
        self.ask_policy: AskAboutLeak | None = None
        """Set by the supervisor, if the application has a policy for leaks."""
        self._watched: dict[str, _Watched] = {}
        self._restarted: set[str] = set()
        """Names of workers that were restarted for their memory."""
        self._total_size: int | None = None
        self._has_warned = False

    def register(self, worker: MonitoredWorker) -> None:
        """Begin a history for *worker*."""
        history = MemoryHistory(
            maximum_size_limit=self.maximum_size_limit,
            threshold_size=self.threshold_size,
            increase_limit=self.increase_limit,
            growth_limit=self.growth_limit,
        )
        growth = None
        if self.leak_window is not None:
            growth = GrowthHistory(window=self.leak_window, rate=self.leak_rate)
        self._watched[worker.connection_id] = _Watched(worker, history, growth)

    def remove(self, worker: MonitoredWorker) -> None:
        """Forget *worker*."""
        self._watched.pop(worker.connection_id, None)

    async def run_once(self) -> None:
        """Sample all workers that are ready; have at most one restarted."""
        uses: dict[str, MemoryUse] = {}
        for index, (key, watched) in enumerate(list(self._watched.items())):
            if index % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            if not watched.worker.is_ready:
                continue
            use = await self._sample(watched.worker.process_id)
            if use is not None and key in self._watched:
                uses[key] = use
        self._total_size = total_size(uses.values())
        # Judge all before the first restart, which takes a while: the first samples of
        # a replacement must be recorded as such.
        for worker, reason in self._judge(uses):
            if await self._restart(worker, reason):
                return  # sample the others again next time
        for watched in self._find_leaks(uses):
            if await self._act_on_leak(watched):
                return
        await self._check_host(uses)

    def status(self) -> Mapping[str, object]:
        """Return the last samples of each process id [bytes]."""
        return {
            "total_size": self._total_size,
            "total_size_limit": self.total_size_limit,
            "free_size_minimum": self.free_size_minimum,
            "processes": {
                str(watched.worker.process_id): _status_of(watched)
                for watched in self._watched.values()
            },
        }

    async def _sample(self, process_id: int) -> MemoryUse | None:
        has_total = self.total_size_limit is not None
        is_full = (
            has_total or self.measure == "uss" or self.free_size_minimum is not None
        )

        def read() -> MemoryUse | None:
            if has_total:
                if (full := read_full_memory(process_id)) is None:
                    return None
                return MemoryUse(size=full.rss, private=full.uss, proportional=full.pss)
            if (found := read_memory(process_id, is_full=is_full)) is None:
                return None
            return MemoryUse(size=found[0], private=found[1])

        # Reading blocks while the process maps memory: both take its mmap lock.
        return await trio.to_thread.run_sync(read) if is_full else read()

    def _judge(
        self, uses: Mapping[str, MemoryUse]
    ) -> list[tuple[MonitoredWorker, str]]:
        """Add a sample of each worker; return those to restart, and why."""
        found = []
        for key, use in uses.items():
            if (watched := self._watched.get(key)) is None:
                continue  # it disconnected while the others were sampled
            # Only now: when it registered, the restart was still in progress.
            is_replacement = watched.worker.name in self._restarted
            measured = self._measured(use)
            verdict = watched.add(measured, is_replacement=is_replacement)
            if isinstance(verdict, TooLarge | GrownBeyond):
                watched.samples_over_limit += 1
                if watched.samples_over_limit < self.samples:
                    continue
            else:
                watched.samples_over_limit = 0
            if isinstance(verdict, BelowBaseline):
                logger.warning("%s: %s", watched.worker.name, verdict)
            elif verdict is not None and watched.worker.is_managed:
                found.append((watched.worker, str(verdict)))
        return found

    def _find_leaks(self, uses: Mapping[str, MemoryUse]) -> list[_Watched]:
        """Return the workers that were found to leak; each is reported once."""
        found = []
        for key, use in uses.items():
            watched = self._watched.get(key)
            if watched is None or watched.growth is None:
                continue
            leak = watched.growth.add(trio.current_time(), self._measured(use).size)
            if leak is not None:
                is_news, watched.leak = watched.leak is None, leak
                # A restart that failed is tried again with the next block.
                if is_news or self.on_leak == "restart" or self.ask_policy:
                    found.append(watched)
        return found

    async def _act_on_leak(self, watched: _Watched) -> bool:
        """Do what *on_leak* says; return whether the worker was restarted."""
        worker, reason = watched.worker, str(watched.leak)
        on_leak = self.on_leak
        if self.ask_policy is not None:
            on_leak = await self.ask_policy(worker, reason) or on_leak
        is_evidence = on_leak == "restart" and self.evidence  # see `_restart`
        if on_leak != "report" and not watched.was_sampled and not is_evidence:
            watched.was_sampled = True
            await self._take_sample(worker)
        if on_leak == "restart" and worker.is_managed:
            return await self._restart(worker, reason)
        logger.warning("%s: %s", worker.name, reason)
        return False

    async def _take_sample(self, worker: MonitoredWorker) -> None:
        """Log a memory sample of *worker*; a failure must not prevent its restart."""
        try:
            with trio.fail_after(_SAMPLE_WITHIN):
                answer = await worker.call("memory_sample", duration=_SAMPLE_DURATION)
        except (SupervisorError, trio.TooSlowError) as exc:
            logger.warning("%s: no memory sample: %s", worker.name, exc)
        else:
            logger.warning(
                "%s: memory sample:\n%s", worker.name, answer.get("data", "")
            )

    def _measured(self, use: MemoryUse) -> MemoryUse:
        """Return *use* with the size that is compared with limits."""
        if self.measure == "rss" or use.private is None:
            return use
        return evolve(use, size=use.private)

    async def _check_host(self, uses: Mapping[str, MemoryUse]) -> None:
        assert self._total_size is not None
        limit, minimum = self.total_size_limit, self.free_size_minimum
        verdict: TotalTooLarge | HostShort | None = None
        if limit is not None and self._total_size > limit:
            verdict = TotalTooLarge(total=self._total_size, limit=limit)
        elif minimum is not None and (free := host_free_memory()) < minimum:
            verdict = HostShort(free=free, minimum=minimum)
        if verdict is None:
            self._has_warned = False
            return
        candidates = {
            key: use
            for key, use in uses.items()
            if (watched := self._watched.get(key)) is not None
            and watched.worker.is_managed
            and watched.has_grown(self._measured(use))
        }
        if (key := largest(candidates)) is not None:
            await self._restart(self._watched[key].worker, str(verdict))
        elif not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s; no worker has grown since its start, so none is restarted", verdict
            )

    async def _restart(self, worker: MonitoredWorker, reason: str) -> bool:
        name = worker.name  # later it is the name of the replacement
        if trio.current_time() < self._restarted_at + self.cool_down:
            return False
        if self.evidence:
            await self._take_sample(worker)
        logger.warning("%s: %s; restarting", name, reason)
        try:
            await worker.restart(reason)
        except SupervisorError as exc:
            logger.error("%s: restart failed: %s", name, exc)
            return False
        self._restarted.add(name)
        self._restarted_at = trio.current_time()
        return True


def _status_of(watched: _Watched) -> dict[str, object]:
    history = watched.history
    use = history.current
    return {
        "process_id": watched.worker.process_id,
        "name": watched.worker.name,
        "sample_count": history.sample_count,
        "current_size": use and use.size,
        "current_shared_size": use and use.private and use.shared,
        "current_private_size": use and use.private,
        "baseline_size": history.start_size,
        "maximum_size": history.maximum_size,
        "maximum_size_limit": history.maximum_size_limit,
        "threshold_size": history.threshold_size,
        "increase_count": history.increase_count,
        "increase_limit": history.increase_limit,
        "growth_limit": history.growth_limit,
        "leak": None if watched.leak is None else str(watched.leak),
    }


def _size(field: str, value: object) -> int | None:
    return None if value is None else whole(field, value)
