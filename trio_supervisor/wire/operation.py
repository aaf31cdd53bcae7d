"""Declare an operation of protocol 1 once: its name, its answer and who gives it.

A new operation is one attrs class with `operation` above it, and one method with
`trio_supervisor.link.answers.answers` in the class that answers. The table of
operations, parsing, permissions and the reference derive from these two.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeVar

from attrs import frozen


class Side(Enum):
    """One side of a connection."""

    CLIENT = "client"
    SUPERVISOR = "supervisor"
    CONTROLLER = "controller"
    WORKER = "worker"
    CONNECTION = "connection"
    """Either end of the connection itself, before any of the others."""


@frozen(kw_only=True)
class OperationSpec:
    """What is known of an operation beside its arguments."""

    do: str
    """The name of the operation on the wire."""
    answered_by: tuple[Side, ...]
    """The supervisor passes a client's call on to the controller where that answers it,
    and to a worker by `Forward`."""
    called_by: Side
    """`Side.CLIENT`: any connection to the socket of the supervisor."""
    result: type | str | None
    """Class of the last answer, or its path below ``trio_supervisor.wire`` where only
    diagnostics import it. None: no fields, or those that the docstring names."""
    may: str
    """What ``may`` of a service has to list so that its workers can call this. Empty:
    every connection can."""
    is_stream: bool
    """Whether intermediate answers arrive for as long as the caller listens."""
    has_report: bool
    """Whether the text of the answer can go into a file or the worker's log."""

    @property
    def result_type(self) -> type | None:
        """The class of the last answer, imported if necessary."""
        if not isinstance(self.result, str):
            return self.result
        module, _, name = self.result.rpartition(".")
        found: type = getattr(import_module(f"trio_supervisor.wire.{module}"), name)
        return found


class Operation:
    """Base of all operations: attrs classes whose fields are the arguments."""

    __slots__ = ()
    spec: ClassVar[OperationSpec]


OperationT = TypeVar("OperationT", bound=Operation)

_operations: dict[str, type[Operation]] = {}

OPERATIONS: Final = MappingProxyType(_operations)
"""Operations by name; complete once `trio_supervisor.wire.protocol` is imported."""


def operation(
    do: str,
    *,
    answered_by: Side | tuple[Side, ...],
    called_by: Side = Side.CLIENT,
    result: type | str | None = None,
    may: str = "",
    is_stream: bool = False,
    has_report: bool = False,
) -> Callable[[type[OperationT]], type[OperationT]]:
    """Register the class below as the operation *do*; see `OperationSpec`.

    ::

        @operation("thread_dump", answered_by=Side.WORKER, result=ThreadReport)
        @frozen(kw_only=True)
        class ThreadDump(Operation):
            locals: bool = False
    """
    spec = OperationSpec(
        do=do,
        answered_by=(answered_by,) if isinstance(answered_by, Side) else answered_by,
        called_by=called_by,
        result=result,
        may=may,
        is_stream=is_stream,
        has_report=has_report,
    )

    def register(type_: type[OperationT]) -> type[OperationT]:
        if do in _operations:
            raise ValueError(f"operation {do!r} is declared twice")
        type_.spec = spec
        _operations[do] = type_
        return type_

    return register


def operations_of(side: Side) -> tuple[str, ...]:
    """Return the names of the operations that *side* answers, as declared."""
    return tuple(
        do for do, type_ in _operations.items() if side in type_.spec.answered_by
    )


@frozen
class _Sized:
    what: str
    lengths: tuple[int, int]

    def __call__(self, _: object, attribute: Any, value: str) -> None:
        least, most = self.lengths
        if not least <= len(value) <= most:
            raise ValueError(
                f"{attribute.name!r}: expected {self.what} of {least} to {most} "
                f"characters, got {len(value)}"
            )


def sized(what: str, most: int, least: int = 0) -> Any:
    """Return a validator for the length of a text, whose message omits the text."""
    return _Sized(what, (least, most))
