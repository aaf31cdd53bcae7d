"""Hurt the real processes of a running application, at random."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.controller.controller import Controller, core_of

_STOPPED_FOR: Final = 0.2
"""How long a process stays stopped [s]."""
_DEEDS: Final = ("kill", "kill", "terminate", "stop", "supervisor")


@define(eq=False)
class Chaos:
    """Sends signals to workers and supervisor of a controller that embeds them.

    The same *seed* makes the same choices; when the processes are hit differs. Give it
    to ``print``: the log of a failed test then says how to repeat it.
    """

    seed: int
    deeds: list[str] = field(factory=list, init=False)
    """What was done, such as ``"kill web.0 (pid 4711)"``."""
    _random: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.seed)

    async def run(
        self, controller: Controller, *, seconds: float, interval: float = 0.2
    ) -> None:
        """Do something every *interval* [s] on average for *seconds*.

        A cancellation leaves no process stopped.
        """
        with trio.move_on_after(seconds):
            while True:
                await trio.sleep(self._random.expovariate(1 / interval))
                await self.strike(controller)

    async def strike(self, controller: Controller) -> None:
        """Do one thing: kill, terminate or stop a worker, or kill the supervisor."""
        deed = self._random.choice(_DEEDS)
        name, process_id = "supervisor", self._supervisor_of(controller)
        if deed != "supervisor":
            workers = [one for one in controller.workers if one.process_id]
            if not workers:
                return
            worker = self._random.choice(workers)
            name, process_id = worker.name, worker.process_id
        await self._signal(deed, name, process_id)

    async def _signal(self, deed: str, name: str, process_id: int | None) -> None:
        await trio.lowlevel.checkpoint()
        if process_id is None:
            return
        self.deeds.append(f"{deed} {name} (pid {process_id})")
        sig = {"terminate": signal.SIGTERM, "stop": signal.SIGSTOP}
        with suppress(ProcessLookupError):
            os.kill(process_id, sig.get(deed, signal.SIGKILL))
            if deed == "stop":
                try:
                    await trio.sleep(_STOPPED_FOR)
                finally:
                    os.kill(process_id, signal.SIGCONT)

    def _supervisor_of(self, controller: Controller) -> int | None:
        process = core_of(controller).supervisor.process
        return None if process is None else process.pid
