"""All operations of protocol 1, whichever module declares them."""

from __future__ import annotations

from trio_supervisor.wire import controller_messages, messages, worker_messages
from trio_supervisor.wire.operation import OPERATIONS, Operation, OperationSpec, Side

MODULES = (messages, controller_messages, worker_messages)
"""By who answers: the supervisor, the controller, a worker."""

__all__ = ["MODULES", "OPERATIONS", "Operation", "OperationSpec", "Side"]
