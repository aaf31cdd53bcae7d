"""The agent: a thread with a trio loop of its own, beside whatever the worker runs.

It keeps the connection to the supervisor, answers calls while the main thread is busy
or stuck, and notices when the worker is to end: by a signal, or because the controller
is gone.
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
"""The part of the stop timeout after which a target that should return is cancelled."""
# Python's: where the import has set another one, it knows why.
_DEFAULT_SWITCH_INTERVAL: Final = 0.005


@define(eq=False)
class Agent:
    """Runs from `start` to `stop`; both are called by the main thread.

    Args:
        lifeline: Descriptor that reads end-of-file when the controller is gone.
        read_state: Returns what is sent on registering.
        on_stop: Called in the agent's thread when the worker is to end, with False;
            and with True if it still runs after `FORCE_AFTER` of its time.
        dispatch: Answers calls, in the agent's loop.
        beside: Runs in the agent's loop, too.
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
        # There before the thread is: a signal that comes in between is kept for it.
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def start(self) -> None:
        """Start the thread. Returns at once: the worker's own code need not wait."""
        self._thread = threading.Thread(
            target=self._run, name="trio_supervisor agent", daemon=True
        )
        self._thread.start()

    def request_stop(self) -> None:
        """Have the worker end; for signal handlers: only writes to a pipe."""
        with suppress(OSError):  # it was asked often enough, or has ended already
            os.write(self._wake_write, b"\0")

    def stop(self) -> None:
        """End the thread."""
        assert self._thread is not None
        self._has_started.wait()
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)
        # It has no work of its own that could take long; if it is stuck all the same
        # it is a daemon, and the process ends without it.
        self._thread.join(2.0)

    def _run(self) -> None:
        # Its loop takes 3 ms to begin, which would be so many that the worker's own
        # code is ready later.
        time.sleep(self._boot.head_start)
        # Signals are the main thread's.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        is_default = sys.getswitchinterval() == _DEFAULT_SWITCH_INTERVAL
        if self._boot.switch_interval is not None and is_default:
            # A main loop that goes from system call to system call would starve us: the
            # waiter's 5 ms begin anew at each. Not set before we run, so that the main
            # thread has these 5 ms for itself when it begins.
            sys.setswitchinterval(self._boot.switch_interval)
        try:
            trio.run(self._main)
        except BaseException:
            logger.exception("the agent failed: this worker is on its own")
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
        logger.warning("%s: the controller is gone; stopping", self._boot.name)
        self.request_stop()
        await trio.sleep(self._boot.stop_timeout)
        # The guardian does the same, unless it was killed, too.
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpgrp(), signal.SIGKILL)
