"""Stand for the supervisor's listening socket, and for connections that go wrong."""

from __future__ import annotations

import errno
import math
import os
from typing import Any

import trio
from attrs import define, field, frozen
from trio.testing import memory_stream_pair

from trio_supervisor.link.credentials import Credentials
from trio_supervisor.process.cleanup.ancestry import Ancestry

CONTROLLER_PID = 1
"""Process id of the controller in a simulation."""


@define(eq=False)
class FaultyStream(trio.abc.Stream):
    """The end of a connection that the connecting process has; it may go wrong."""

    _stream: trio.StapledStream[Any, Any]
    _is_silent: bool = field(default=False, init=False)
    _is_lost: bool = field(default=False, init=False)
    _is_cut: bool = field(default=False, init=False)
    _repeats: int = field(default=0, init=False)
    _late: float = field(default=0.0, init=False)
    _closed: trio.Event = field(factory=trio.Event, init=False)

    @property
    def is_closed(self) -> bool:
        """Whether this end is closed."""
        return self._closed.is_set()

    # Faults.

    def lose(self) -> None:
        """Break the connection: both ends notice."""
        self._is_lost = True
        self.close()

    def cut_line(self) -> None:
        """Break the connection in the middle of the next line that is sent."""
        self._is_cut = True

    def fall_silent(self) -> None:
        """Deliver nothing in either direction, and no end of the connection."""
        self._is_silent = True

    def repeat(self) -> None:
        """Send the next lines twice."""
        self._repeats += 1

    def delay(self, seconds: float) -> None:
        """Hold what is sent next back for *seconds* [s], and what follows it."""
        self._late += seconds

    # The stream.

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*, or what a fault leaves of it."""
        data = bytes(data)
        await trio.sleep(self._take_delay())
        self._check()
        if self._is_silent:
            return
        if self._is_cut:
            await self._stream.send_all(data[: len(data) // 2])
            self.lose()
            self._check()
        if self._repeats:
            self._repeats -= 1
            data += data
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until something can be sent."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for data; empty at end-of-file."""
        while True:
            self._check()
            try:
                data = await self._stream.receive_some(max_bytes)
            except trio.ClosedResourceError:
                self._check()
                raise
            if not self._is_silent:
                return bytes(data)
            if not data:
                await self._closed.wait()

    async def aclose(self) -> None:
        """Close it."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close it, without a checkpoint."""
        self._closed.set()
        self._stream.send_stream.close()
        self._stream.receive_stream.close()

    def _take_delay(self) -> float:
        late, self._late = self._late, 0.0
        return late

    def _check(self) -> None:
        if self._is_lost:
            raise trio.BrokenResourceError("the connection is lost in this simulation")


@frozen(kw_only=True)
class SimulatedConnection:
    """A connection to the supervisor's socket."""

    process_id: int | None
    """None: of a client, which is none of the application's processes."""
    stream: FaultyStream
    """The end of the process that connected."""
    accepted: trio.abc.Stream
    """The end of the supervisor."""

    @property
    def credentials(self) -> Credentials:
        """What the kernel says of the process that connected."""
        return Credentials(
            process_id=self.process_id, user_id=os.geteuid(), group_id=os.getegid()
        )

    @property
    def origin(self) -> Ancestry | None:
        """Its ancestors; None: it is a client."""
        if self.process_id is None:
            return None
        return Ancestry(
            process_id=self.process_id,
            ancestors=(self.process_id, CONTROLLER_PID),
            groups=frozenset({self.process_id}),
            is_marked=True,
        )


@define(eq=False)
class SimulatedSocket:
    """The listening socket, which stays open while supervisors come and go."""

    connections: list[SimulatedConnection] = field(factory=list, init=False)
    """Those that are open, and some that were closed lately."""
    _refused_until: dict[int | None, float] = field(factory=dict, init=False)
    _waiting: list[SimulatedConnection] = field(factory=list, init=False)
    """The backlog."""
    _arrived: trio.lowlevel.ParkingLot = field(
        factory=trio.lowlevel.ParkingLot, init=False
    )

    async def connect(self, process_id: int | None) -> FaultyStream:
        """Connect a process, or a client (None).

        Raises:
            ConnectionRefusedError: a fault refuses it.
        """
        await trio.lowlevel.checkpoint()
        until = self._refused_until.get(process_id, -math.inf)
        if trio.current_time() < until:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused in a simulation")
        ours, theirs = memory_stream_pair()
        made = SimulatedConnection(
            process_id=process_id, stream=FaultyStream(ours), accepted=theirs
        )
        self.connections = [m for m in self.connections if not m.stream.is_closed]
        self.connections.append(made)
        self._waiting.append(made)
        self._arrived.unpark()
        return made.stream

    async def accept(self) -> SimulatedConnection:
        """Wait for the next connection. A cancellation leaves it to another call."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            await self._arrived.park()
        return self._waiting.pop(0)

    def of(self, process_id: int) -> list[FaultyStream]:
        """Return the connections of a process."""
        found = [made for made in self.connections if made.process_id == process_id]
        return [made.stream for made in found]

    def refuse(self, process_id: int, seconds: float) -> None:
        """Refuse connections of a process for *seconds* [s]."""
        self._refused_until[process_id] = trio.current_time() + seconds

    def close_all(self, process_id: int) -> None:
        """Close the connections of a process that has exited, as the kernel does."""
        for stream in self.of(process_id):
            stream.close()
        self._refused_until.pop(process_id, None)
        self.connections = [
            made for made in self.connections if made.process_id != process_id
        ]
