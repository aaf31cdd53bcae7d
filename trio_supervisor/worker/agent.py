"""Run the agent: a thread beside the worker's target.

The agent stays connected to the supervisor, answers calls while the main thread is busy
or blocked, and stops the worker on a signal or when the controller has exited. Until
the supervisor calls, it only waits; the event loop that answers is started by the first
call on a connection, and ends with the connection.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio
from attrs import define, field

from trio_supervisor.link.peer import Dispatch, open_peer
from trio_supervisor.process.spawn.boot import WorkerBoot
from trio_supervisor.worker.duties import Duties
from trio_supervisor.worker.refusals import Refusals
from trio_supervisor.worker.registration import Registration
from trio_supervisor.worker.standby import Established, NeedsLoopError, StandBy

logger = logging.getLogger(__name__)

# Python's own; an application that has set another one keeps it.
_DEFAULT_SWITCH_INTERVAL: Final = 0.005


@define(eq=False)
class Agent:
    """The agent of one worker; the main thread calls `start` and `stop`.

    Args:
        lifeline: Descriptor that reads end-of-file when the controller has exited.
        read_state: Returns the state to register with.
        on_stop: Called in the agent's thread with False when the worker should stop,
            and with True if it still runs after `duties.FORCE_AFTER` of
            ``stop_timeout``.
        dispatch: Answers calls, in the agent's loop.
        look: Samples the main loop; returns after how long to do so again [s].
    """

    _boot: WorkerBoot
    _lifeline: int
    _read_state: Callable[[], Mapping[str, Any]]
    _on_stop: Callable[[bool], None]
    _dispatch: Dispatch
    _look: Callable[[], float]
    _duties: Duties = field(init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        boot = self._boot
        self._duties = Duties(
            boot.name, boot.stop_timeout, self._lifeline, self._on_stop, self._look
        )

    def start(self) -> None:
        """Start the thread, and return without waiting for it."""
        self._thread = threading.Thread(
            target=self._run, name="trio_supervisor agent", daemon=True
        )
        self._thread.start()

    def request_stop(self) -> None:
        """Stop the worker. Safe in signal handlers: only writes to a pipe."""
        self._duties.request_stop()

    def stop(self) -> None:
        """Stop the thread; wait for it up to 2 s."""
        assert self._thread is not None
        self._duties.end()
        # Nothing that the agent does takes long. If it is blocked anyway, the process
        # exits without it: it is a daemon thread.
        self._thread.join(2.0)

    def _run(self) -> None:
        # Starting delays the worker's own code.
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
            self._answer_calls()
        except BaseException:
            logger.exception(
                "%s: the agent failed; the worker continues without it", self._boot.name
            )
        finally:
            self._duties.close()

    def _answer_calls(self) -> None:
        boot, duties = self._boot, self._duties
        standby = StandBy(boot.socket_path, self._state, Refusals(boot.name), duties)
        while not duties.is_over:
            try:
                if (established := standby.wait_call()) is not None:
                    trio.run(self._serve, established)
            except NeedsLoopError:
                trio.run(self._serve, None)

    async def _serve(self, established: Established | None) -> None:
        """Answer calls until the connection ends, or the agent should."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._attend, nursery.cancel_scope)
            if established is None:
                boot = self._boot
                registration = Registration(
                    boot.socket_path, boot.name, self._state, self._dispatch
                )
                await registration.run()
            else:
                stream = trio.SocketStream(
                    trio.socket.from_stdlib_socket(established.socket)
                )
                session = established.session
                async with open_peer(stream, session, self._dispatch) as peer:
                    await peer.closed.wait()
            nursery.cancel_scope.cancel()

    async def _attend(self, scope: trio.CancelScope) -> None:
        duties = self._duties
        while not duties.is_over:
            readable: set[int] = set()
            left = duties.due_at - time.monotonic()
            with trio.move_on_after(max(0.0, left)):
                async with trio.open_nursery() as nursery:
                    for each in duties.descriptors:
                        nursery.start_soon(_wait_one, each, readable, nursery)
            duties.attend(readable)
        scope.cancel()

    def _state(self) -> dict[str, Any]:
        return {
            **self._read_state(),
            "process_id": os.getpid(),
            "name": self._boot.name,
            "service": self._boot.service,
            "index": self._boot.index,
            "incarnation": self._boot.incarnation,
        }


async def _wait_one(descriptor: int, found: set[int], nursery: trio.Nursery) -> None:
    await trio.lowlevel.wait_readable(descriptor)
    found.add(descriptor)
    nursery.cancel_scope.cancel()
