"""Dispatch of calls by the operation that a method is marked with."""

from __future__ import annotations

from typing import Any, cast

from trio_supervisor.controller.calls import PassedOnCalls
from trio_supervisor.link.answers import answers, find_answer
from trio_supervisor.link.peer import Fields, IncomingCall
from trio_supervisor.supervisor.client_calls import ClientCalls
from trio_supervisor.supervisor.connection import ClientConnection
from trio_supervisor.supervisor.controller_calls import ControllerCalls
from trio_supervisor.wire.messages import Ping, Status
from trio_supervisor.wire.operation import Operation, Side
from trio_supervisor.wire.protocol import OPERATIONS
from trio_supervisor.worker.diagnostics import WorkerDiagnostics
from trio_supervisor.worker.operations import Operations


class Pinged:
    """Answers pings, and nothing else."""

    @answers(Ping)
    def ping(self, operation: Ping, call: IncomingCall) -> Fields:
        return {"do": operation.spec.do, "call": call}


def test_find_answer_marked_method_is_bound() -> None:
    call = cast(IncomingCall, "the call")
    method = find_answer(Pinged(), Ping())
    assert method is not None
    assert method(Ping(), call) == {"do": "ping", "call": call}


def test_find_answer_other_operation_is_none() -> None:
    assert find_answer(Pinged(), Status()) is None


def answered(*classes: type) -> set[str]:
    """Return the operations that instances of *classes* answer."""
    found = set()
    for class_ in classes:
        instance: Any = object.__new__(class_)
        for do, type_ in OPERATIONS.items():
            operation: Operation = object.__new__(type_)
            if find_answer(instance, operation) is not None:
                found.add(do)
    return found


def declared(side: Side) -> set[str]:
    return {do for do, type_ in OPERATIONS.items() if side in type_.spec.answered_by}


def test_every_operation_is_answered_where_it_is_declared() -> None:
    assert answered(WorkerDiagnostics, Operations) == declared(Side.WORKER)
    assert answered(PassedOnCalls) == declared(Side.CONTROLLER)
    # Of the operations of the controller, these two are rewritten on the way.
    supervisor = answered(ClientCalls, ClientConnection, ControllerCalls)
    assert supervisor - declared(Side.CONTROLLER) == declared(Side.SUPERVISOR)
