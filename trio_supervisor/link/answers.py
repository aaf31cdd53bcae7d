"""Dispatch a call to the method that is marked as answering its operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, TypeVar

from trio_supervisor.link.peer import Answer, IncomingCall
from trio_supervisor.wire.operation import Operation

_MARK: Final = "answers_operation"

SelfT = TypeVar("SelfT")
OperationT = TypeVar("OperationT", bound=Operation)
AnswerT = TypeVar("AnswerT", bound=Answer)


def answers(
    type_: type[OperationT],
) -> Callable[
    [Callable[[SelfT, OperationT, IncomingCall], AnswerT]],
    Callable[[SelfT, OperationT, IncomingCall], AnswerT],
]:
    """Mark the method below as the one that answers calls of *type_*.

    ::

        @answers(ThreadDump)
        def dump_threads(self, operation: ThreadDump, call: IncomingCall) -> Fields: ...
    """

    def mark(
        method: Callable[[SelfT, OperationT, IncomingCall], AnswerT],
    ) -> Callable[[SelfT, OperationT, IncomingCall], AnswerT]:
        setattr(method, _MARK, type_)
        return method

    return mark


def find_answer(
    answerer: object, operation: Operation
) -> Callable[[Any, IncomingCall], Answer] | None:
    """Return the bound method of *answerer* for *operation*; None: it has none."""
    class_: Any = type(answerer)
    name = _methods(class_).get(type(operation))
    found: Callable[[Any, IncomingCall], Answer] | None = None
    if name is not None:
        found = getattr(answerer, name)
    return found


@cache
def _methods(type_: type) -> Mapping[type[Operation], str]:
    """Return the marked methods of a class by the operation that each answers."""
    return {
        getattr(method, _MARK): name
        for name, method in vars(type_).items()
        if hasattr(method, _MARK)
    }
