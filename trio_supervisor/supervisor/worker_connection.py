"""The connection of a worker that has registered."""

from __future__ import annotations

import uuid
from typing import Any

from attrs import define, field

from trio_supervisor.link.peer import Peer
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.messages import ConnectionStatus


@define(eq=False)
class WorkerConnection:
    """A connection with what the worker reported when it registered."""

    peer: Peer
    process_id: int
    state: dict[str, Any]
    size: int = 0
    """Size of *state* as JSON [bytes]."""
    connection_id: str = field(factory=lambda: str(uuid.uuid4()))
    _connection: Object | None = field(default=None, init=False)

    @property
    def own_name(self) -> str | None:
        """The name in its state; None if that is not a nonempty string."""
        name = self.state.get("name")
        return name if isinstance(name, str) and name else None

    def to_short_connection(self) -> Object:
        """Return the fields of its `ConnectionStatus` without the state."""
        state = {
            "process_id": self.process_id,
            "name": self.own_name or "",
            "connection_id": self.connection_id,
            "note": f"{self.size} bytes omitted: all states together are too long",
        }
        return {
            "connection_id": self.connection_id,
            "process_id": self.process_id,
            "state": state,
        }

    def to_connection(self) -> Object:
        """Return the fields of its `ConnectionStatus`, as Ruby's clients expect it."""
        if self._connection is None:
            connection = ConnectionStatus(
                connection_id=self.connection_id,
                process_id=self.process_id,
                state={**self.state, "connection_id": self.connection_id},
            )
            self._connection = to_fields(connection)
        return self._connection

    def renew(self, state: dict[str, Any], size: int = 0) -> None:
        """Replace the state: the worker registered again over this connection."""
        self.state, self.size, self._connection = state, size, None
