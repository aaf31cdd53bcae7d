"""Operations that a service adds: names, types and descriptions."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from functools import lru_cache, partial
from typing import Any, Literal

import pytest
from attrs import field, frozen

from trio_supervisor.errors import (
    BadRequestError,
    OperationFailedError,
    SpecError,
    UnknownOperationError,
)
from trio_supervisor.worker.handlers import Handlers, to_result


@frozen
class Range:
    """What a handler may ask for."""

    first: int
    last: int


class Colour(Enum):
    """What a handler may choose from."""

    RED = "red"
    BLUE = "blue"


@frozen
class Even:
    """What says itself what is wrong with a value."""

    number: int = field()

    @number.validator
    def _check(self, _: object, value: int) -> None:
        if value % 2:
            raise ValueError("odd")


class Secretive:
    """What can be called, and does not tell how."""

    __signature__ = "none of your business"

    def __call__(self, value: int) -> int:
        """Return *value*."""
        return value


def stats(prefix: str, limit: int = 3) -> dict[str, int]:
    """How full it is.

    And more that a list does not need.
    """
    return {prefix: limit}


def handlers_with(name: str, function: Callable[..., Any]) -> Handlers:
    handlers = Handlers()
    handlers.add(name, function)
    return handlers


def test_arguments_have_declared_types() -> None:
    def clear(keys: tuple[str, ...], where: Range, is_deep: bool = False) -> None: ...

    handler = handlers_with("clear", clear).find("clear")
    bound = handler.bind({"keys": ["a", "b"], "where": {"first": 1, "last": 2}})
    assert bound == {"keys": ("a", "b"), "where": Range(1, 2)}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "prefix: missing"),
        ({"prefix": 1}, "prefix: expected str, got 1"),
        ({"prefix": "x", "limit": "3"}, "limit: expected int, got '3'"),
        ({"prefix": "x", "limit": True}, "limit: expected int"),
        ({"prefix": "x", "other": 1}, "other: unknown"),
    ],
)
def test_invalid_argument_is_refused_by_name(
    arguments: dict[str, object], problem: str
) -> None:
    handler = handlers_with("stats", stats).find("stats")
    with pytest.raises(BadRequestError, match=f"stats: .*{problem}"):
        handler.bind(arguments)


@pytest.mark.parametrize(
    ("type_", "value", "problem"),
    [
        (Literal["a", "b"], "c", "value: expected 'a' or 'b', got 'c'"),
        (Literal["a"], ["a"], "value: expected 'a', got ['a']"),
        (Literal[1, 2], True, "value: expected 1 or 2, got True"),
        (Literal[1, 2], 1.0, "value: expected 1 or 2, got 1.0"),
        (Literal[True], 1, "value: expected True, got 1"),
        (Literal[Colour.RED], "blue", "value: expected 'red', got 'blue'"),
        (Literal["a"] | None, "b", "value: expected 'a', got 'b'"),
        (tuple[Literal["a"], ...], ["b"], "value: expected 'a', got 'b' @ $[0]"),
        (Even, {"number": 3}, "value: odd @ $"),
    ],
)
def test_value_not_allowed_is_refused_by_name(
    type_: Any, value: object, problem: str
) -> None:
    def takes(value: object) -> None: ...

    takes.__annotations__["value"] = type_
    handler = handlers_with("takes", takes).find("takes")
    with pytest.raises(BadRequestError) as caught:
        handler.bind({"value": value})
    assert str(caught.value) == f"takes: {problem}"


def test_allowed_value_is_accepted() -> None:
    def takes(
        number: Literal[1, 2], colour: Literal[Colour.RED], truth: Literal[1, True]
    ) -> None: ...

    handler = handlers_with("takes", takes).find("takes")
    bound = handler.bind({"number": 2, "colour": "red", "truth": True})
    assert bound == {"number": 2, "colour": Colour.RED, "truth": True}
    assert bound["truth"] is True


def test_all_problems_are_reported_together() -> None:
    handler = handlers_with("stats", stats).find("stats")
    with pytest.raises(BadRequestError) as caught:
        handler.bind({"limit": "x", "other": 1})
    message = str(caught.value)
    assert "prefix" in message
    assert "limit" in message
    assert "other" in message


def test_parameter_without_annotation_accepts_any_value() -> None:
    def anything(value) -> object:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return value

    handler = handlers_with("anything", anything).find("anything")
    assert handler.bind({"value": [1, "2", None]}) == {"value": [1, "2", None]}


@pytest.mark.parametrize(
    "name",
    ["", "Stats", "1st", "cache-stats", "cache stats", "x" * 65, "thread_dump", "ping"],
)
def test_invalid_or_taken_name_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="name"):
        Handlers().add(name, stats)


def test_function_not_callable_by_name_is_refused() -> None:
    def positional(value: int, /) -> None: ...
    def rest(*values: int) -> None: ...
    def options(**values: int) -> None: ...

    for function in (positional, rest, options):
        with pytest.raises(SpecError, match="cannot be passed by name"):
            Handlers().add("call", function)
    with pytest.raises(SpecError, match="expected a function"):
        Handlers().add("call", 3)  # type: ignore[arg-type]


class Cache:
    """What has methods."""

    def limit(self, size: int) -> int:
        """Have room for *size*."""
        return size

    async def __call__(self, key: str, limit: int = 3) -> str:
        """Look *key* up."""
        return key * limit


@pytest.mark.parametrize(
    ("function", "parameters", "bad"),
    [
        (partial(stats, "x"), {"limit": "int = 3"}, {"limit": "3"}),
        (partial(stats, limit=7), {"prefix": "str", "limit": "int = 7"}, {"prefix": 3}),
        (partial(partial(stats), "x"), {"limit": "int = 3"}, {"limit": "3"}),
        (partial(Cache(), "x"), {"limit": "int = 3"}, {"limit": "3"}),
        (Cache(), {"key": "str", "limit": "int = 3"}, {"key": 3}),
        (Cache().limit, {"size": "int"}, {"size": "3"}),
        (partial(Cache().limit), {"size": "int"}, {"size": "3"}),
        (Range, {"first": "int", "last": "int"}, {"first": 1, "last": "2"}),
        (lru_cache(stats), {"prefix": "str", "limit": "int = 3"}, {"prefix": 3}),
    ],
)
def test_any_callable_has_its_declared_types(
    function: Callable[..., Any], parameters: dict[str, str], bad: dict[str, object]
) -> None:
    handlers = handlers_with("call", function)
    assert handlers.describe()[0]["parameters"] == parameters
    with pytest.raises(BadRequestError, match="expected"):
        handlers.find("call").bind(bad)


def test_partial_is_described_as_its_function() -> None:
    [found] = handlers_with("stats", partial(stats, "x")).describe()
    assert str(found["description"]).startswith("How full it is.")


def test_callable_without_signature_is_refused() -> None:
    with pytest.raises(SpecError, match=r"does not declare its parameters|by name"):
        Handlers().add("call", int)
    with pytest.raises(SpecError, match=r"function: .* does not declare"):
        Handlers().add("call", Secretive())


def test_unregistered_operation_is_unknown() -> None:
    with pytest.raises(UnknownOperationError, match="'nothing'"):
        Handlers().find("nothing")


def test_operation_describes_itself() -> None:
    [found] = handlers_with("stats", stats).describe()
    assert found["name"] == "stats"
    assert found["parameters"] == {"prefix": "str", "limit": "int = 3"}
    assert str(found["description"]).startswith("How full it is.")


def test_same_name_replaces_operation() -> None:
    handlers = handlers_with("stats", stats)
    handlers.add("stats", lambda: 7)
    assert handlers.find("stats").bind({}) == {}


@pytest.mark.parametrize(
    ("result", "data"),
    [
        (Range(1, 2), {"first": 1, "last": 2}),
        (None, None),
        ({404: {1, 2}}, {"404": [1, 2]}),
        ([2**64 - 1, -(2**63), 1.5, True, "\ud800"],) * 2,
        ({"by": b"hi", "all": [bytearray(b"")]}, {"by": "aGk=", "all": [""]}),
    ],
)
def test_result_becomes_json(result: object, data: object) -> None:
    assert to_result("stats", result) == {"data": data}


def itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (math.nan, " is nan"),
        ({"rows": [1, {"mean": -math.inf}]}, ".rows[1].mean is -inf"),
        (2**64, " is an integer of more than 64 bits"),
        ((1, -(2**63) - 1), "[1] is an integer of more than 64 bits"),
        (object(), " is of type object"),
        ({"all": (n for n in "ab")}, ".all is of type generator"),
        (itself(), " is nested too deeply, or in itself"),
    ],
)
def test_result_not_json_is_named(result: object, problem: str) -> None:
    with pytest.raises(OperationFailedError) as caught:
        to_result("stats", result)
    assert str(caught.value) == (
        f"'stats' returned a value that JSON cannot represent: its result{problem}"
    )


def test_bytes_become_base64() -> None:
    def takes(content: bytes) -> None: ...

    handler = handlers_with("takes", takes).find("takes")
    assert handler.bind({"content": "aGk="}) == {"content": b"hi"}
    for bad in ("aGk", "a-k=", 3, None):
        with pytest.raises(BadRequestError, match="content: expected base64, got"):
            handler.bind({"content": bad})
