"""A worker's process in a simulation: it runs the target, and dies as processes do."""

from __future__ import annotations

import math
import signal
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, Final

import trio
from attrs import define, field, frozen

from trio_supervisor.process.notify.sd_notify import Notification
from trio_supervisor.process.spawn.boot import WorkerBoot
from trio_supervisor.testing.fakes import FakeProcess
from trio_supervisor.testing.process_tasks import ProcessTasks
from trio_supervisor.testing.recorder import Recorder
from trio_supervisor.testing.simulated_agent import make_registration
from trio_supervisor.testing.simulated_network import SimulatedSocket
from trio_supervisor.worker.handlers import Handlers
from trio_supervisor.worker.instance import Worker
from trio_supervisor.worker.loop_calls import LoopCaller

Target = Callable[[Worker], Awaitable[object]]
Hear = Callable[[Notification], None]
_RAISED: Final = 1
"""The exit code of Python after an exception."""
_MASK: Final = 0xFF
"""Bits of an exit code that a parent sees."""


@frozen(kw_only=True)
class StartFault:
    """What goes wrong with the next process of a worker. Times in seconds."""

    error: OSError | None = None
    """Why no process can be started, such as ``OSError(errno.EAGAIN, "no fork")``."""
    delay: float = 0.0
    """How much later the target runs."""
    is_never_ready: bool = False
    """Whether its READY is lost."""
    ignores_stop: bool = False
    """Whether it ignores the stop signal."""


@define(eq=False, kw_only=True)
class SimulatedProcess(FakeProcess):
    """A worker's process, whose target runs as a task; see `simulated`."""

    boot: WorkerBoot
    hear: Hear
    """Called with each notification that the worker sends."""
    target: Target | None
    """None: a program that runs until a signal ends it."""
    socket: SimulatedSocket = field(factory=SimulatedSocket)
    """The supervisor's, to which its agent connects."""
    fault: StartFault = field(factory=StartFault)
    error: BaseException | None = field(default=None, init=False)
    """What the target raised."""
    _tasks: ProcessTasks = field(factory=ProcessTasks, init=False)
    _agent: ProcessTasks = field(factory=ProcessTasks, init=False)
    """A thread of its own in a real worker: it answers while the event loop hangs."""
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _worker: Worker | None = field(default=None, init=False)
    _caller: LoopCaller | None = field(default=None, init=False)
    _was_told: bool = field(default=False, init=False)
    _hangs: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        """``service.index``."""
        return self.boot.name

    @property
    def is_frozen(self) -> bool:
        """Whether it is stopped, or hangs."""
        return self._tasks.is_frozen

    async def live(self) -> None:
        """Be the process, until it has exited."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat)
            if self.target is not None:
                nursery.start_soon(self._agent.run, self._stay_registered)
                await self._tasks.run(self._run)
            await self.wait()
            self._kill_tasks()
            self.socket.close_all(self.pid)
            nursery.cancel_scope.cancel()

    def hang(self) -> None:
        """Block its event loop: it neither runs nor reacts to a stop signal."""
        self._hangs = True
        self._tasks.freeze()

    def wake(self) -> None:
        """Let it go on after `hang`."""
        self._hangs = False
        self._resume()

    def exit(self, returncode: int) -> None:
        """Exit at once, without running another line."""
        super().exit(returncode)
        self._kill_tasks()

    def signal(self, sig: int) -> None:
        """Send *sig*: stop signals reach the target as ``worker.stopping``."""
        super().signal(sig)
        if not self.is_running:
            self._kill_tasks()
        elif sig == signal.SIGSTOP:
            self._tasks.freeze()
            self._agent.freeze()
        elif sig == signal.SIGCONT:
            self._agent.thaw()
            self._resume()

    def _kill_tasks(self) -> None:
        self._tasks.kill()
        self._agent.kill()

    def _receive(self, sig: int) -> None:
        if self.target is None or sig != self.boot.stop_signal:
            super()._receive(sig)
        elif not self.fault.ignores_stop:
            self._was_told = True
            self._pass_stop_on()

    def _resume(self) -> None:
        if not (self._hangs or self.is_paused):
            self._tasks.thaw()
            self._pass_stop_on()

    def _pass_stop_on(self) -> None:
        if not self._was_told or self.is_frozen or self._worker is None:
            return
        stopping = self._worker._stopping
        stopping._set()
        if not stopping.is_noticed:
            self._scope.cancel()

    async def _run(self) -> None:
        assert self.target is not None, "live() runs a target only"
        await trio.sleep(self.fault.delay)
        recorder = Recorder(None)
        recorder.on_text = self._report
        self._worker = Worker._create(self.boot, recorder, {}, Handlers())
        async with trio.open_nursery() as nursery:
            group: Any = nursery  # as far as a LoopCaller needs one
            # In this context, so that its tasks are the process's own.
            soon = copy_context().run
            self._caller = LoopCaller(group, soon)
            code = await self._run_target(self._worker)
            self._caller.close()
            nursery.cancel_scope.cancel()
        self._end(code, trio.current_time())

    async def _run_target(self, worker: Worker) -> int:
        """Run the target to its end; return the exit code."""
        assert self.target is not None, "live() runs a target only"
        code = 0
        with self._scope:
            self._pass_stop_on()
            try:
                await self.target(worker)
            except trio.Cancelled:
                raise
            except BaseException as exc:
                code = self._code_of(exc)
        return code

    async def _stay_registered(self) -> None:
        boot = self.boot
        state = {
            "process_id": self.pid,
            "name": boot.name,
            "service": boot.service,
            "index": boot.index,
            "incarnation": boot.incarnation,
        }
        registration = make_registration(
            self.socket,
            state,
            lambda: None if self._worker is None else self._worker._handlers,
            lambda: None if self._caller is None else self._caller.call,
        )
        await registration.run()

    def _code_of(self, exc: BaseException) -> int:
        if isinstance(exc, BaseExceptionGroup):
            _, rest = exc.split(trio.Cancelled)
            if rest is None:
                return 0
        self.error = exc
        if isinstance(exc, SystemExit):
            return _exit_code(exc.code)
        return _RAISED

    def _report(self, text: str) -> None:
        if self.fault.is_never_ready:
            text = "\n".join(t for t in text.splitlines() if t != "READY=1")
        if text:
            self.hear(self.says(*text.splitlines()))

    async def _beat(self) -> None:
        interval = self.boot.heartbeat or math.inf
        while True:
            await trio.sleep(interval)
            if not self.is_frozen and self.is_running:
                self.hear(self.says("WATCHDOG=1"))


def _exit_code(code: Any) -> int:
    if code is None:
        return 0
    return code & _MASK if isinstance(code, int) else _RAISED
