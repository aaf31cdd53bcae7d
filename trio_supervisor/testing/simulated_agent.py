"""The agent of a simulated worker: the real one, at a simulated socket."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import trio
from attrs import define, field

from trio_supervisor.testing.simulated_network import SimulatedSocket
from trio_supervisor.worker.handlers import Handlers
from trio_supervisor.worker.operations import Operations, Run
from trio_supervisor.worker.registration import Registration


class _NoDiagnostics:
    """Answers no operation: all workers share the process of the test."""


@define(eq=False)
class SimulatedRegistration(Registration):
    """A registration over a simulated socket."""

    _socket: SimulatedSocket = field(kw_only=True)
    _process_id: int = field(kw_only=True)

    async def _connect(self) -> trio.abc.Stream:
        return await self._socket.connect(self._process_id)


def make_registration(
    socket: SimulatedSocket,
    state: Mapping[str, Any],
    handlers: Callable[[], Handlers | None],
    run: Callable[[], Run | None],
) -> Registration:
    """Return what keeps a worker registered, and answers its calls.

    Args:
        state: What it registers with: at least its name and its process id.
        handlers: Returns its operations; None: the target does not run yet.
        run: Returns what runs them beside the target; None: likewise.
    """
    nothing: Any = _NoDiagnostics()

    def dispatch(call: Any) -> Any:
        return Operations(nothing, handlers() or Handlers(), run).dispatch(call)

    return SimulatedRegistration(
        "/nowhere",
        str(state["name"]),
        lambda: state,
        dispatch,
        rng=random.Random(int(state["process_id"])),
        socket=socket,
        process_id=int(state["process_id"]),
    )
