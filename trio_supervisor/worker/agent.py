"""Run the agent: a thread with its own trio loop, beside the worker's target.

The agent stays connected to the supervisor, answers calls while the main thread is busy
or blocked, and stops the worker on a signal or when the controller has exited.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import trio
from attrs import define, field

from trio_supervisor.link.peer import Dispatch
from trio_supervisor.process.spawn.boot import WorkerBoot
from trio_supervisor.worker.registration import Registration

logger = logging.getLogger(__name__)

FORCE_AFTER: Final = 0.8
"""Part of ``stop_timeout`` after which a target that has not returned is cancelled."""
# Python's own; an application that has set another one keeps it.
_DEFAULT_SWITCH_INTERVAL: Final = 0.005


@define(eq=False)
class Agent:
    """The agent of one worker; the main thread calls `start` and `stop`.

    Args:
        lifeline: Descriptor that reads end-of-file when the controller has exited.
        read_state: Returns the state to register with.
        on_stop: Called in the agent's thread with False when the worker should stop,
            and with True if it still runs after `FORCE_AFTER` of ``stop_timeout``.
        dispatch: Answers calls, in the agent's loop.
        beside: Runs in the agent's loop as well.
    """

    _boot: WorkerBoot
    _lifeline: int
    _read_state: Callable[[], Mapping[str, Any]]
    _on_stop: Callable[[bool], None]
    _dispatch: Dispatch
    _beside: Callable[[], Awaitable[None]]
    _thread: threading.Thread | None = field(default=None, init=False)
    _token: trio.lowlevel.TrioToken | None = field(default=None, init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _has_started: threading.Event = field(factory=threading.Event, init=False)
    _wake_read: int = field(init=False)
    _wake_write: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Created before the thread starts: no signal in between is lost.
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def start(self) -> None:
        """Start the thread, and return without waiting for it."""
        self._thread = threading.Thread(
            target=self._run, name="trio_supervisor agent", daemon=True
        )
        self._thread.start()

    def request_stop(self) -> None:
        """Stop the worker. Safe in signal handlers: only writes to a pipe."""
        with suppress(OSError):  # the pipe is full, or closed
            os.write(self._wake_write, b"\0")

    def stop(self) -> None:
        """Stop the thread; wait for it up to 2 s."""
        assert self._thread is not None
        self._has_started.wait()
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)
        # Nothing that the agent does takes long. If it is blocked anyway, the process
        # exits without it: it is a daemon thread.
        self._thread.join(2.0)

    def _run(self) -> None:
        # Starting its loop takes 3 ms, by which the worker's own code would be delayed.
        time.sleep(self._boot.head_start)
        # Signals are handled in the main thread.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        is_default = sys.getswitchinterval() == _DEFAULT_SWITCH_INTERVAL
        if self._boot.switch_interval is not None and is_default:
            # A main loop that makes many short system calls would starve this thread:
            # the switch interval starts again after each. Set only now, so that the
            # main thread is not interrupted while it starts.
            sys.setswitchinterval(self._boot.switch_interval)
        try:
            trio.run(self._main)
        except BaseException:
            logger.exception(
                "%s: the agent failed; the worker continues without it", self._boot.name
            )
        finally:
            self._has_started.set()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._has_started.set()
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_signals)
                nursery.start_soon(self._watch_lifeline)
                nursery.start_soon(self._beside)
                registration = Registration(
                    self._boot.socket_path, self._boot.name, self._state, self._dispatch
                )
                await registration.run()

    def _state(self) -> dict[str, Any]:
        return {
            **self._read_state(),
            "process_id": os.getpid(),
            "name": self._boot.name,
            "service": self._boot.service,
            "index": self._boot.index,
            "incarnation": self._boot.incarnation,
        }

    async def _watch_signals(self) -> None:
        async with trio.lowlevel.FdStream(self._wake_read) as wake:
            await wake.receive_some(64)
            self._on_stop(False)
            await trio.sleep(self._boot.stop_timeout * FORCE_AFTER)
            self._on_stop(True)
            await trio.sleep_forever()

    async def _watch_lifeline(self) -> None:
        await trio.lowlevel.wait_readable(self._lifeline)
        logger.warning("%s: the controller has exited; stopping", self._boot.name)
        self.request_stop()
        await trio.sleep(self._boot.stop_timeout)
        # In case the guardian, which does the same, was killed as well.
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpgrp(), signal.SIGKILL)
