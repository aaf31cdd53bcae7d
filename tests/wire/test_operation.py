"""Declarations of operations."""

from __future__ import annotations

import inspect

import attrs
import pytest

from trio_supervisor.wire.operation import Operation, Side, operation
from trio_supervisor.wire.protocol import OPERATIONS


@pytest.mark.parametrize("do", OPERATIONS)
def test_operation_result_type_is_an_attrs_class(do: str) -> None:
    """Also where it is declared by its path, which nothing checks before its use."""
    result = OPERATIONS[do].spec.result_type
    assert result is None or attrs.has(result)


@pytest.mark.parametrize("do", OPERATIONS)
def test_operation_has_a_docstring_of_its_own(do: str) -> None:
    """It becomes the reference."""
    assert inspect.getdoc(OPERATIONS[do]) != inspect.getdoc(Operation)


def test_operation_declared_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="operation 'ping' is declared twice"):

        @operation("ping", answered_by=Side.WORKER)
        class AnotherPing(Operation):
            pass
